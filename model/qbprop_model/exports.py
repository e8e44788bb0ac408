"""NBD exports of nodes and of their bitmaps (semantics 2.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qbprop_model.bitmap import Bitmap, BitmapRules
from qbprop_model.expectation import Reason
from qbprop_model.image import Refused, refuse
from qbprop_model.ranges import Ranges, within


@dataclass(frozen=True)
class Export:
    """An export of disk ``node``, or of a filter above it, which makes no difference later.

    ``bitmaps`` are those exported along, as (node, name). ``orphans``: some of them went with
    their node. ``connected``: a client has asked for something, and stays.
    """

    node: str
    bitmaps: tuple[tuple[str, str], ...] = ()
    orphans: bool = False
    connected: bool = False

    def without(self, node: str) -> "Export":
        """The export when a node is gone."""
        kept = tuple(key for key in self.bitmaps if key[0] != node)
        return replace(self, bitmaps=kept, orphans=self.orphans or kept != self.bitmaps)

    def named(self, bitmap: str) -> set[tuple[str, str]]:
        """The exported bitmaps whose context has this name."""
        return {key for key in self.bitmaps if key[1] == bitmap}


class ExportRules(BitmapRules):
    """How bitmaps are exported. Override one method to state another rule."""

    def site(self, downward: Sequence[tuple[str, Mapping[str, Bitmap]]], name: str) -> str | None:
        """The node where a bitmap is found: the first one from the exported node down."""
        return next((node for node, bitmaps in downward if name in bitmaps), None)

    def check_exportable(self, name: str, bitmap: Bitmap, *, strict: bool) -> None:
        """Refuse a bitmap; ``strict`` where guests must not write and it was looked for.

        While a job has it, its successor is what records.
        """
        if strict and bitmap.recording and bitmap.successor is None:
            raise Refused(Reason.EXPORT_READ_ONLY, name)
        refuse(self.obstacle(bitmap, "read"), name)

    def publish(self, bitmap: Bitmap) -> Bitmap:
        """An exported bitmap is busy, and goes on recording."""
        return replace(bitmap, busy=True)

    def withdraw(self, bitmap: Bitmap) -> Bitmap:
        """Its export is gone."""
        return replace(bitmap, busy=False)

    def deletable(self, export: Export, mode: str) -> bool:
        """Whether ``block-export-del`` deletes an export in this mode."""
        return mode == "hard" or not export.connected

    def lets_resize(self, export: Export) -> bool:
        """Whether the exported node can be resized (5.1)."""
        return False

    def extents(self, bitmap: Bitmap, size: int, offset: int, length: int) -> Ranges:
        """The dirty part of a byte range; ``size`` is that of the bitmap's node, in bytes.

        What lies beyond that is clean.
        """
        return within(tuple(bitmap.dirty_ranges(size)), offset, offset + length)
