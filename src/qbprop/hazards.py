"""Hazards: steps that are known to lead some QEMU astray, told from the operations alone.

A bug that corrupts memory or an image shows itself anywhere: as a crash, a hang, wrong bytes
many steps later. What follows such a step is therefore named after the hazard and not after
the step at which it came to light, so that one bug has one identity for each kind of finding
and hides no other. A QEMU without the bug is checked behind a hazard as everywhere.
"""

from dataclasses import dataclass

from qbprop_model.disk import Alloc, Image
from qbprop_model.expectation import Expectation
from qbprop_model.operations import (
    BitmapMerge,
    BlockdevBackup,
    DriveBackup,
    Operation,
    Transaction,
    WriteCompressed,
)
from qbprop_model.world import World

EMPTY_MERGE = "a merge of nothing"
FAILED_ENABLE = "undoing a failed enable"
ALWAYS_UNDONE = "undoing a backup with mode always"
FILTER_BACKUP = "undoing a backup of a job's filter"
COMPRESSED_REUSE = "a compressed write behind a freed compressed cluster"

LASTING = {FILTER_BACKUP, COMPRESSED_REUSE}
"""After these nothing in the example can be trusted; the others are over with their step."""


@dataclass
class Hazards:
    """What one example went through. ``active`` is the hazard that findings are named after."""

    active: str | None = None

    def __post_init__(self) -> None:
        self._freed: set[str] = set()

    def see(self, before: World, operation: Operation, expected: Expectation, after: World) -> None:
        """Note what an operation provokes; ``before`` and ``after`` it, in the model."""
        if self.active not in LASTING:
            self.active = self._provoked(operation, expected, before)
        for name, image in after.images.items():
            old = before.images.get(name)
            if old is not None and old is not image and _frees_compressed(old, image):
                self._freed.add(name)

    def _provoked(self, operation: Operation, expected: Expectation, before: World) -> str | None:
        actions = operation.actions if isinstance(operation, Transaction) else (operation,)
        refusal = expected.refusal
        if isinstance(operation, Transaction) and refusal is not None:
            if refusal.action == "bitmap_enable":
                return FAILED_ENABLE
            backups = [a for a in actions if isinstance(a, DriveBackup | BlockdevBackup)]
            nodes = [before.roots.get(backup.node, backup.node) for backup in backups]
            if any(
                b.node in before.roots and b_node in nodes[:i]
                for i, (b, b_node) in enumerate(zip(backups, nodes, strict=True))
            ):
                return FILTER_BACKUP
            if expected.jobs and any(backup.bitmap_mode == "always" for backup in backups):
                return ALWAYS_UNDONE
        if any(isinstance(action, BitmapMerge) and not action.sources for action in actions):
            return EMPTY_MERGE
        if isinstance(operation, WriteCompressed):
            node = before.nodes.get(before.roots.get(operation.node, operation.node))
            if node is not None and node.image in self._freed:
                return COMPRESSED_REUSE
        return None


def _frees_compressed(old: Image, new: Image) -> bool:
    """Whether a compressed cluster of an image is compressed no more."""
    return any(
        kind is Alloc.COMPRESSED
        and any(now is not Alloc.COMPRESSED for _, _, now in new.alloc.runs(start, end))
        for start, end, kind in old.alloc.runs()
    ) or (old.alloc.size > new.alloc.size and old.alloc.at(old.alloc.size - 1) is Alloc.COMPRESSED)
