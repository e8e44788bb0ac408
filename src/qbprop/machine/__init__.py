"""The state machine: which operations may come next, drawn from the model alone.

Each family of operations has a module that draws from it; the rules stand here, one for each
family. Hypothesis switches rules off at random for whole examples, so every rule is a mixture
that gets somewhere by itself, and most begin with guest writes.
"""

from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from qbprop.machine import backups, bitmaps, guest, topology, transactions
from qbprop.machine.core import MachineBase, drawn, going_on, step_rule
from qbprop_model.operations import NODES, Operation

__all__ = ["BlockMachine", "drawn", "step_rule"]


class BlockMachine(MachineBase):
    """Guest I/O, resizes, bitmap commands, transactions and backups on a live QEMU.

    Subclass it to add rules: decorate a method with ``@step_rule`` and ``@rule(ops=…)``, draw
    the operations from ``self.world`` with :func:`drawn`, and hand them to ``self.perform``.
    """

    @initialize(ops=drawn(topology.topology), depth=st.integers(0, 3))
    def start(self, ops: Iterable[Operation], depth: int) -> None:
        """One to three disks, most with bitmaps."""
        self.deep = self.thorough or depth == 0
        self.perform(ops)

    @precondition(lambda self: going_on(self) and len(self.world.nodes) < len(NODES))
    @rule(op=drawn(topology.add_disk))
    def add_disk(self, op: Operation) -> None:
        """One more disk."""
        self.perform(op)

    @step_rule
    @rule(ops=drawn(guest.guest_io))
    def guest_io(self, ops: Iterable[Operation]) -> None:
        """Guest requests, compressed writes, resizes."""
        self.perform(ops)

    @step_rule
    @rule(ops=drawn(bitmaps.bitmap_command))
    def bitmap_command(self, ops: Iterable[Operation]) -> None:
        """Add, clear, enable, disable, remove or merge bitmaps."""
        self.perform(ops)

    @step_rule
    @rule(ops=drawn(transactions.transactions))
    def transaction(self, ops: Iterable[Operation]) -> None:
        """A transaction of bitmap commands and backups."""
        self.perform(ops)

    @step_rule
    @rule(ops=drawn(backups.backups))
    def backup(self, ops: Iterable[Operation]) -> None:
        """Backups of any kind, and the images they are written to."""
        self.perform(ops)
