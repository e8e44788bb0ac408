"""The state machine: which operations may come next, drawn from the model alone.

Each family of operations has a module of strategies; the rules stand here, in one list.
"""

from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from qbprop.machine import backups, bitmaps, guest, topology, transactions
from qbprop.machine.core import MachineBase, drawn, step_rule
from qbprop_model.operations import (
    NODES,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapRemove,
    Operation,
)

__all__ = ["BlockMachine", "drawn", "step_rule"]


bitmap_rule = precondition(lambda self: not self.over and bool(bitmaps.sited(self.world)))
"""Decorator of the rules that need a bitmap to work on."""


class BlockMachine(MachineBase):
    """Guest I/O, resizes, bitmap commands, transactions and backups on a live QEMU.

    Subclass it to add rules: decorate a method with ``@step_rule`` and ``@rule(op=…)``, draw
    the operation from ``self.world`` with :func:`drawn`, and hand it to ``self.perform``.
    """

    @initialize(ops=drawn(topology.topology), depth=st.integers(0, 3))
    def start(self, ops: Iterable[Operation], depth: int) -> None:
        """One to three disks, most with bitmaps."""
        self.deep = self.thorough or depth == 0
        self.perform(ops)

    @precondition(lambda self: not self.over and 0 < len(self.world.nodes) < len(NODES))
    @rule(op=drawn(topology.add_disk))
    def add_disk(self, op: Operation) -> None:
        """One more disk."""
        self.perform(op)

    @step_rule
    @rule(ops=drawn(guest.requests))
    def guest_io(self, ops: Iterable[Operation]) -> None:
        """A few guest requests."""
        self.perform(ops)

    @step_rule
    @rule(ops=drawn(guest.requests))
    def guest_io_again(self, ops: Iterable[Operation]) -> None:
        """As ``guest_io``: twice as likely as the others, whatever the swarm switches off."""
        self.perform(ops)

    @step_rule
    @rule(op=drawn(guest.write_compressed))
    def write_compressed(self, op: Operation) -> None:
        """A compressed write."""
        self.perform(op)

    @step_rule
    @rule(op=drawn(guest.resize))
    def resize(self, op: Operation) -> None:
        """Resize a disk."""
        self.deep = True
        self.perform(op)

    @step_rule
    @rule(op=drawn(bitmaps.bitmap_add))
    def bitmap_add(self, op: Operation) -> None:
        """Add a bitmap."""
        self.perform(op)

    @bitmap_rule
    @rule(op=drawn(bitmaps.by_name, BitmapClear))
    def bitmap_clear(self, op: Operation) -> None:
        """Clear a bitmap."""
        self.perform(op)

    @bitmap_rule
    @rule(op=drawn(bitmaps.by_name, BitmapEnable))
    def bitmap_enable(self, op: Operation) -> None:
        """Let a bitmap record."""
        self.perform(op)

    @bitmap_rule
    @rule(op=drawn(bitmaps.by_name, BitmapDisable))
    def bitmap_disable(self, op: Operation) -> None:
        """Stop a bitmap from recording."""
        self.perform(op)

    @bitmap_rule
    @rule(op=drawn(bitmaps.by_name, BitmapRemove))
    def bitmap_remove(self, op: Operation) -> None:
        """Remove a bitmap."""
        self.perform(op)

    @bitmap_rule
    @rule(op=drawn(bitmaps.bitmap_merge))
    def bitmap_merge(self, op: Operation) -> None:
        """Merge bitmaps."""
        self.perform(op)

    @step_rule
    @rule(op=drawn(transactions.transaction))
    def transaction(self, op: Operation) -> None:
        """A transaction."""
        self.perform(op)

    @step_rule
    @rule(op=drawn(backups.backup_action))
    def backup(self, op: Operation) -> None:
        """A backup of any kind."""
        self.perform(op)

    @step_rule
    @rule(ops=drawn(backups.incremental))
    def incremental(self, ops: Iterable[Operation]) -> None:
        """A target and an incremental backup into it."""
        self.perform(ops)

    @step_rule
    @rule(op=drawn(backups.create_image))
    def create_image(self, op: Operation) -> None:
        """A fresh target."""
        self.perform(op)

    @precondition(lambda self: not self.over and backups.has_overlay(self.world))
    @rule(op=drawn(backups.rebase_image))
    def rebase_image(self, op: Operation) -> None:
        """Another backing file for a target."""
        self.perform(op)
