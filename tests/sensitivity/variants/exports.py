"""Wrong rules about bitmaps in NBD exports: what they may be, what clients are told."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap, ceil_div
from qbprop_model.effects import exports
from qbprop_model.exports import Export
from qbprop_model.operations import ExportAdd, ExportedBitmap
from qbprop_model.ranges import Ranges, within
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_rule("an exported bitmap is not busy")
class ExportedIsFree(Rules):
    def publish(self, bitmap: Bitmap) -> Bitmap:
        return bitmap


@wrong_rule("an exported bitmap records nothing")
class ExportedRecordsNothing(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        exported = bitmap.busy and bitmap.successor is None
        return bitmap if exported else super().touch(bitmap, offset, length)


@wrong_rule("exporting a bitmap disables it")
class ExportingDisables(Rules):
    def publish(self, bitmap: Bitmap) -> Bitmap:
        return self.disable(super().publish(bitmap))


@wrong_rule("deleting an export clears its bitmaps")
class DeletionClears(Rules):
    def withdraw(self, bitmap: Bitmap) -> Bitmap:
        return self.clear(super().withdraw(bitmap))


@wrong_rule("clients are told whole clusters, also where they ask for a part")
class ExtentsRoundOutward(Rules):
    def extents(self, bitmap: Bitmap, size: int, offset: int, length: int) -> Ranges:
        g = bitmap.granularity
        start, end = offset // g * g, min(ceil_div(offset + length, g) * g, size)
        return super().extents(bitmap, size, start, end - start)


@wrong_rule("clients are told the last cluster as a whole, past the end of the disk")
class ExtentsPassTheEnd(Rules):
    def extents(self, bitmap: Bitmap, size: int, offset: int, length: int) -> Ranges:
        last = bitmap.granularity * len(bitmap.bits)
        if offset + length < size:
            return super().extents(bitmap, size, offset, length)
        return super().extents(bitmap, last, offset, last - offset)


@wrong_rule("clients are told nothing beyond the first word of a bitmap")
class ExtentsStopAtTheWord(Rules):
    def extents(self, bitmap: Bitmap, size: int, offset: int, length: int) -> Ranges:
        found = super().extents(bitmap, size, offset, length)
        return within(found, 0, 64 * bitmap.granularity)


@wrong_rule("an export is deleted whatever clients it has")
class SafeDropsClients(Rules):
    def deletable(self, export: Export, mode: str) -> bool:
        return True


@wrong_rule("a read-only export may have bitmaps that record")
class ReadersSeeWhatRecords(Rules):
    def check_exportable(self, name: str, bitmap: Bitmap, *, strict: bool) -> None:
        super().check_exportable(name, bitmap, strict=False)


@wrong_rule("an exported disk can be resized")
class ExportedIsResized(Rules):
    def lets_resize(self, export: Export) -> bool:
        return True


@wrong_rule("a bitmap is looked for on the exported node alone, not below a filter")
class FiltersHideBitmaps(Rules):
    def site(self, downward: Sequence[tuple[str, Mapping[str, Bitmap]]], name: str) -> str | None:
        return super().site(downward[:1], name)


@wrong_effect("a bitmap named by node must not record either in a read-only export", exports,
              "locate")  # fmt: skip
def named_must_not_record(original: Any) -> Any:
    def locate(op: ExportAdd, wanted: ExportedBitmap, world: State) -> tuple[str, str]:
        node, name = original(op, wanted, world)
        bitmap = world.nodes[node].bitmaps[name]
        world.rules.check_exportable(name, replace(bitmap, busy=False), strict=not op.writable)
        return node, name

    return locate
