"""The state machine: which operations may come next, drawn from the model alone.

Each family of operations has a module that draws from it; the rules stand here. Hypothesis
switches rules off at random for whole examples, so that each example has a character of its
own, and many examples keep to one subject. A rule that needs something to work on begins with
guest writes.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from qbprop.machine import (
    backups,
    bitmaps,
    exports,
    faults,
    graphs,
    groups,
    guest,
    jobs,
    opening,
    refusals,
    start,
    topology,
    transactions,
)
from qbprop.machine.core import MachineBase, drawn, going_on, part_of, step_rule
from qbprop.machine.start import Begun
from qbprop.machine.topology import empty_slots
from qbprop_model.operations import NODES, Operation

SUBJECTS = ("jobs", "layers", "bitmaps", "backups", "storage", "graphs")
"""What an example may keep to, beside the guest's requests."""

__all__ = ["SUBJECTS", "BlockMachine", "drawn", "step_rule"]


class BlockMachine(MachineBase):
    """Guest I/O, resizes, bitmap commands, transactions and backups on a live QEMU.

    Subclass it to add rules: decorate a method with ``@step_rule`` and ``@rule(ops=…)``, draw
    the operations from ``self.world`` with :func:`drawn`, and hand them to ``self.perform``.
    """

    subjects: ClassVar[Sequence[str | None]] = (
        *(None, None, None, None, None, "jobs", "bitmaps", "layers", "jobs", "backups"),
        *("bitmaps", "jobs", "storage", "graphs", "layers", "bitmaps", "backups", "storage"),
        *("jobs", "graphs", "graphs"),
    )
    """What examples keep to, None for no subject at all; the first one is the simplest."""

    @initialize(
        begun=start.begun(),
        depth=st.integers(0, 3),
        daring=st.integers(0, 7),
    )
    def start(self, begun: Begun, depth: int, daring: int) -> None:
        """Disks, bitmaps and targets to start with."""
        self.daring = daring == 7
        self.subject, ops = begun
        self.deep = self.thorough or depth == 0
        self.perform(ops)

    @precondition(lambda self: going_on(self) and bool(empty_slots(self.world)))
    @part_of("layers", "graphs")
    @rule(op=drawn(topology.add_disk))
    def add_disk(self, op: Operation) -> None:
        """One more disk."""
        self.perform(op)

    @step_rule
    @part_of("backups", "graphs")
    @rule(ops=drawn(backups.backups))
    def backup(self, ops: Iterable[Operation]) -> None:
        """A backup of any kind."""
        self.perform(ops)

    @step_rule
    @part_of("bitmaps", "storage", "graphs")
    @rule(ops=drawn(guest.burst, bitmaps.bitmap_command))
    def bitmap_command(self, ops: Iterable[Operation]) -> None:
        """Add, clear, enable, disable or remove a bitmap."""
        self.perform(ops)

    @step_rule
    @part_of("bitmaps", "storage", "graphs")
    @rule(ops=drawn(guest.burst, bitmaps.merge))
    def bitmap_merge(self, ops: Iterable[Operation]) -> None:
        """Merge bitmaps."""
        self.perform(ops)

    @step_rule
    @part_of("bitmaps", "jobs")
    @rule(ops=drawn(exports.exports))
    def exports(self, ops: Iterable[Operation]) -> None:
        """Bitmaps in NBD exports."""
        self.perform(ops)

    @step_rule
    @rule(ops=drawn(guest.requests))
    def guest_io(self, ops: Iterable[Operation]) -> None:
        """Guest requests."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and faults.can_hold(self.world))
    @part_of("jobs")
    @rule(ops=drawn(faults.held_write))
    def held_write(self, ops: Iterable[Operation]) -> None:
        """A guest's write held in flight while others go on."""
        self.perform(ops)

    @step_rule
    @part_of("backups", "storage")
    @rule(ops=drawn(backups.incremental))
    def incremental(self, ops: Iterable[Operation]) -> None:
        """The next link of a chain of incremental backups."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and len(jobs.active(self.world)) < 2)
    @part_of("jobs")
    @rule(ops=drawn(groups.group))
    def job_group(self, ops: Iterable[Operation]) -> None:
        """Jobs of several disks that start together, and perhaps end together."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and any(map(self.world.faults.get, NODES)))
    @part_of("jobs")
    @rule(ops=drawn(faults.runs_into))
    def fault(self, ops: Iterable[Operation]) -> None:
        """Guest requests that meet injected errors."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and bool(faults.tearing(self.world)))
    @part_of("jobs", "bitmaps")
    @rule(ops=drawn(faults.torn_write))
    def torn_write(self, ops: Iterable[Operation]) -> None:
        """A guest's write that fails midway, and the same write again."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and bool(self.world.jobs))
    @part_of("jobs", "backups")
    @rule(ops=drawn(jobs.commands))
    def job_commands(self, ops: Iterable[Operation]) -> None:
        """Commands to jobs in flight."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and bool(jobs.active(self.world)))
    @part_of("jobs", "backups", "storage")
    @rule(ops=drawn(jobs.during))
    def job_in_flight(self, ops: Iterable[Operation]) -> None:
        """What happens beside a job."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and len(jobs.active(self.world)) < 3)
    @part_of("jobs", "backups", "storage")
    @rule(ops=drawn(jobs.start_any))
    def job_start(self, ops: Iterable[Operation]) -> None:
        """A job that stays in flight."""
        self.perform(ops)

    @step_rule
    @part_of("layers", "bitmaps", "storage", "graphs")
    @rule(ops=drawn(opening.openings))
    def opening(self, ops: Iterable[Operation]) -> None:
        """Disks closed and opened again, and QEMU restarted or killed."""
        self.perform(ops)

    @precondition(lambda self: going_on(self) and graphs.possible(self.world))
    @part_of("storage", "graphs")
    @rule(ops=drawn(graphs.graphs))
    def graphs(self, ops: Iterable[Operation]) -> None:
        """Snapshots, commits and streams."""
        self.perform(ops)

    @step_rule
    @part_of("backups", "bitmaps")
    @rule(ops=drawn(refusals.refusals))
    def refusals(self, ops: Iterable[Operation]) -> None:
        """What QEMU must refuse."""
        self.perform(ops)

    @step_rule
    @part_of("layers", "bitmaps", "backups", "storage", "graphs")
    @rule(ops=drawn(guest.resizes))
    def resize(self, ops: Iterable[Operation]) -> None:
        """Grow or shrink a disk."""
        self.perform(ops)

    @step_rule
    @part_of("backups")
    @rule(op=drawn(backups.target))
    def target(self, op: Operation) -> None:
        """Another image to back up into, or another backing file for one."""
        self.perform(op)

    @step_rule
    @part_of("bitmaps", "storage")
    @rule(ops=drawn(guest.burst, transactions.transaction))
    def transaction(self, ops: Iterable[Operation]) -> None:
        """A transaction of bitmap commands and backups."""
        self.perform(ops)

    @step_rule
    @part_of("layers")
    @rule(ops=drawn(guest.write_compressed))
    def write_compressed(self, ops: Iterable[Operation]) -> None:
        """A compressed write."""
        self.perform(ops)
