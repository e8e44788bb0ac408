"""What a campaign costs beside the bare traffic with QEMU."""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.bare import bare_time
from benchmarks.clock import Clock
from benchmarks.wire import Group, Launch, Recorder, RunProgram
from rich.console import Console

from qbprop.campaign.known import shipped_known
from qbprop.campaign.runner import Campaign, Options
from qbprop.hazards import Hazard
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.machine.core import Drawn
from qbprop_model.expectation import Expectation
from qbprop_model.operations import FILTERS, Backup, Operation, Transaction


class Cautious(BlockMachine):
    """Shuns in every example what QEMU is known to fall for; each job that stays names its filter.

    The traffic is sent twice, and the names that QEMU makes up differ.
    """

    def perform(self, operations: Drawn) -> None:
        """As usual, with names for the filters of jobs that stay."""
        given = (operations,) if isinstance(operations, Operation) else operations
        super().perform(named for each in given if (named := self._named(each)) is not None)

    def _named(self, operation: Operation) -> Operation | None:
        """The operation with names for its filters; None where there are too few."""
        free = (name for name in FILTERS if name not in self.world.nodes)
        try:
            return self._filtered(operation, free)
        except StopIteration:
            return None

    def _filtered(self, operation: Operation, free: Iterator[str]) -> Operation:
        if isinstance(operation, Transaction):
            actions = tuple([_with_filter(each, free) for each in operation.actions])
            return replace(operation, actions=actions)
        return _with_filter(operation, free)

    def accepts(self, expected: Expectation, provoked: Collection[Hazard]) -> bool:
        """As in any example that is not daring."""
        self.daring = False
        return super().accepts(expected, provoked)


T = TypeVar("T", bound=Operation)


def _with_filter(operation: T, free: Iterator[str]) -> T:
    if isinstance(operation, Backup) and operation.lasting and operation.filter is None:
        return replace(operation, filter=next(free))
    return operation


def overhead(lab: Lab, seed: int, seconds: float) -> dict[str, Any]:
    """A campaign, and its traffic alone, one after the other on the same machine."""
    clock = Clock()
    recorder = Recorder(clock)
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            out=Path(folder),
            max_seconds=seconds,
            seed=seed,
            known=tuple(shipped_known()),
            machine=Cautious,
        )
        campaign = Campaign(lab, options, Console(quiet=True))
        with recorder.recording(), clock.running():
            summary = campaign.run()
    steps = summary.statistics.steps
    bare = bare_time(lab.binaries, recorder.entries, 10 * seconds)
    sent = sum(len(entry.payload) for entry in recorder.entries if isinstance(entry, Group))
    return {
        "seed": seed,
        "overhead_ratio": (clock.total - bare.left_out_seconds) / bare.seconds,
        "steps_per_second": steps / clock.total,
        "steps": steps,
        "examples": summary.statistics.examples,
        "campaign_seconds": clock.total,
        "bare_seconds": bare.seconds,
        "shares": {part: used / clock.total for part, used in clock.seconds.items()},
        "round_trips_per_step": recorder.groups / steps,
        "commands_per_step": recorder.commands / steps,
        "bytes_sent_per_step": sent / steps,
        "bytes_received_per_step": bare.received / steps,
        "examples_left_out": bare.left_out,
        "seconds_left_out": bare.left_out_seconds,
        "launches": sum(isinstance(entry, Launch) for entry in recorder.entries),
        "programs_run": sum(isinstance(entry, RunProgram) for entry in recorder.entries),
        "new_findings": sum(not record.known for record in summary.findings),
    }
