"""The canary: a wrong rule, planted on purpose, that a campaign must find before it counts.

It is a campaign of its own in ``OUT/canary``, with the same machine on the same QEMU; nothing of it
counts for the other one. When the mistake is not found, neither would a mistake of QEMU be.
"""

import shutil
import time
from dataclasses import replace
from typing import Protocol

from rich.console import Console

from qbprop.campaign.known import KnownFinding
from qbprop.campaign.runner import Campaign, Options
from qbprop.campaign.summary import CanaryRecord, FindingRecord, Summary
from qbprop.lab import Lab
from qbprop.replay import play
from qbprop.trace import read_trace
from qbprop_model.rules import Rules

CANARY_SECONDS = 120.0
"""Longest search for the canary."""


class Canary(Rules):
    """Rules with a mistake: the last cluster of a request stays clean where it is hit in part."""

    def covered(self, granularity: int, offset: int, length: int) -> slice:
        """Rounded down at the end."""
        right = super().covered(granularity, offset, length)
        return slice(right.start, max(right.start, (offset + length) // granularity))


class Planted(Protocol):
    """A campaign that is about to begin."""

    options: Options
    summary: Summary


def look_for_canary(campaign: Planted, lab: Lab, console: Console) -> None:
    """Tell in the summary of a campaign, unless it tells already, whether the canary is found.

    :raises EnvironmentProblem: as :meth:`Campaign.run`.
    :raises KeyboardInterrupt: the user wants to stop.
    """
    summary, options = campaign.summary, campaign.options
    if summary.canary is not None:
        return
    summary.write(options.out)
    console.print("looking for a mistake that is planted, to see that one would be found")
    quiet = Console(quiet=True, force_terminal=False)
    start = time.monotonic()
    known = options.known
    found: FindingRecord | None = None
    while found is None and (left := start + CANARY_SECONDS - time.monotonic()) > 0:
        hunt = replace(
            options,
            out=options.out / "canary",
            rules=Canary(),
            max_seconds=left,
            max_examples=None,
            seed=summary.seed,
            stop_on_finding=True,
            exhaustive=False,
            known=known,
        )
        try:
            met = _hunt(hunt, lab, quiet)
        except KeyboardInterrupt:
            summary.status = "interrupted"
            summary.write(options.out)
            raise
        found = next((each for each in met if _passes(hunt, lab, options.rules, each)), None)
        known += tuple(KnownFinding(id=each.id, title=each.title) for each in met)
    title = found.title if found else ""
    seconds = round(time.monotonic() - start, 3)
    summary.canary = CanaryRecord(found=found is not None, seconds=seconds, title=title)
    summary.write(options.out)


def _hunt(hunt: Options, lab: Lab, console: Console) -> list[FindingRecord]:
    """The findings that come back of a campaign with the wrong rule."""
    shutil.rmtree(hunt.out, ignore_errors=True)
    hunt.out.mkdir()
    ended = Campaign(lab, hunt, console).run()
    if ended.status == "interrupted":
        raise KeyboardInterrupt
    return [each for each in ended.new_findings if each.rate]


def _passes(hunt: Options, lab: Lab, rules: Rules | None, record: FindingRecord) -> bool:
    """Whether a finding is owed to the wrong rule: with the right ones there is none."""
    trace = read_trace(hunt.out / "findings" / record.id / "trace.jsonl")
    with lab.session(rules) as session:
        return play(session, trace.examples) is None
