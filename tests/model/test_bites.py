"""The comparison notices wrong rules: each of these models is told apart from the naive one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.model.compare import DifferenceError, checked, compare
from tests.model.strategies import (
    KIB,
    backup_sequences,
    bitmap_sequences,
    disk_sequences,
)
from tests.model.test_transactions import START

from qbprop_model.bitmap import Bitmap, Bits
from qbprop_model.data import ZERO
from qbprop_model.image import Alloc, Cell, Chain, Image
from qbprop_model.operations import (
    Backup,
    BitmapClear,
    BitmapMode,
    DriveBackup,
    Operation,
    Transaction,
)
from qbprop_model.rules import Rules

_ZERO = Cell(ZERO, 0)


class RoundsInward(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        return slice(-(-offset // granularity), (offset + length) // granularity)


class ForgetsTheLastPartialCluster(Rules):
    def length(self, size: int, granularity: int) -> int:
        return size // granularity


class ProjectsOnTheFirstClusterOnly(Rules):
    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        if source <= target:
            return super().project(bits, source, target, size)
        fine = np.zeros(self.length(size, target), np.bool_)
        fine[np.flatnonzero(bits) * (source // target)] = True
        return fine


class MergeReplaces(Rules):
    def merge(self, target: Bitmap, sources: Iterable[Bitmap], size: int) -> Bitmap:
        return super().merge(self.clear(target), list(sources), size)


class DisabledBitmapsRecord(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        touched = super().touch(replace(bitmap, recording=True), offset, length)
        return replace(touched, recording=bitmap.recording)


class ResizeDropsAllBits(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        return self.clear(super().resize_bitmap(bitmap, size))


class NewAreaIsDirty(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        bits = resized.bits.copy()
        bits[len(bitmap.bits) :] = True
        return replace(resized, bits=bits)


class SuccessKeepsTheBits(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, "never", failed=failed)


class NeverLosesTheBits(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, "on-success", failed=failed)


class FrozenIsNotBusy(Rules):
    def freeze(self, bitmap: Bitmap) -> Bitmap:
        return replace(super().freeze(bitmap), busy=False)


class ClearDisables(Rules):
    def clear(self, bitmap: Bitmap) -> Bitmap:
        return self.disable(super().clear(bitmap))


class ShrinkingZeroesGhosts(Rules):
    def shrink(self, image: Image, size: int) -> Image:
        small = super().shrink(image, size)
        cells = small.cells.replace(size, small.cells.size, lambda cell: cell and _ZERO)
        return replace(small, cells=cells)


class GrowingShowsTheBackingFile(Rules):
    def grow(self, chain: Chain, size: int, step: int) -> Image:
        return super().grow(chain[:1], size, step)


class CopiesWhatIsDirtyAlone(Rules):
    def outward(self, ranges: Iterable[tuple[int, int]], cluster: int) -> Iterator[tuple[int, int]]:
        return iter(ranges)


class TargetClustersDoNotMatter(Rules):
    def job_cluster(self, target: Image) -> int:
        return 65536


class CompressesOntoAnything(Rules):
    def taken(self, image: Image, start: int) -> bool:
        return False


class WritesDoNotFillUp(Rules):
    def backed(self, below: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        yield start, end, _ZERO


class ZeroedUnitsAreUnallocated(Rules):
    def zero_units(self, image: Image, start: int, end: int, step: int, *, unmap: bool) -> Image:
        return self.drop(image, start, end)


class PartialClustersAreDiscarded(Rules):
    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        return self.write(chain, offset, length, Cell(ZERO, step))


class NeverIsFineWithFull(Rules):
    def check_modes(self, op: Backup, bitmap: Bitmap | None) -> None:
        if bitmap is None or op.bitmap_mode != "never":
            super().check_modes(op, bitmap)


class TopCopiesAll(Rules):
    def create(self, **kwargs: object) -> Image:
        image = super().create(**kwargs)  # type: ignore[arg-type]
        return replace(image, alloc=image.alloc.assign(0, image.alloc.size, Alloc.DATA))


Strategy = st.SearchStrategy[list[Operation]]
BITMAPS = bitmap_sequences()
BACKUPS = backup_sequences("bitmap", 64 * KIB)
GHOSTS = disk_sequences("v3-64k", "alone")
OVERLAY = disk_sequences("v3-64k", "longer")
USED_TWICE = Transaction(
    actions=(
        DriveBackup(node="drive0", target="target0", sync="incremental", bitmap="bitmap0"),
        BitmapClear(node="drive0", name="bitmap0"),
    )
)
USELESS = DriveBackup(
    node="drive0", target="target0", sync="full", bitmap="bitmap0", bitmap_mode="never"
)
WRONG: list[tuple[type[Rules], Strategy]] = [
    (RoundsInward, BITMAPS),
    (ForgetsTheLastPartialCluster, BITMAPS),
    (ProjectsOnTheFirstClusterOnly, BITMAPS),
    (MergeReplaces, BITMAPS),
    (DisabledBitmapsRecord, BITMAPS),
    (ResizeDropsAllBits, BITMAPS),
    (NewAreaIsDirty, BITMAPS),
    (ClearDisables, BITMAPS),
    (SuccessKeepsTheBits, BACKUPS),
    (NeverLosesTheBits, BACKUPS),
    (CopiesWhatIsDirtyAlone, BACKUPS),
    (FrozenIsNotBusy, st.just([*START, USED_TWICE])),
    (NeverIsFineWithFull, st.just([*START, USELESS])),
    (TargetClustersDoNotMatter, backup_sequences("full", 128 * KIB)),
    (TopCopiesAll, backup_sequences("top", 64 * KIB)),
    (ShrinkingZeroesGhosts, GHOSTS),
    (CompressesOntoAnything, GHOSTS),
    (ZeroedUnitsAreUnallocated, OVERLAY),
    (PartialClustersAreDiscarded, OVERLAY),
    (GrowingShowsTheBackingFile, OVERLAY),
    (WritesDoNotFillUp, OVERLAY),
]


@pytest.mark.parametrize(("wrong", "operations"), WRONG)
def test_a_wrong_rule_is_noticed(wrong: type[Rules], operations: Strategy) -> None:
    @settings(checked(1500), phases=[Phase.generate], report_multiple_bugs=False)
    @given(operations)
    def agree(found: list[Operation]) -> None:
        compare(found, wrong())

    with pytest.raises(DifferenceError):
        agree()
