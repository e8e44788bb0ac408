"""Wrong rules about bitmaps and bytes when a disk is resized."""

from dataclasses import dataclass, replace

from tests.sensitivity.registry import wrong_rule

from qbprop_model.bitmap import Bitmap, Bits
from qbprop_model.data import ZERO
from qbprop_model.image import Alloc, Cell, Chain, Image
from qbprop_model.rules import Rules

_ZERO = Cell(ZERO, 0)


@dataclass(frozen=True, eq=False)
class Remembering(Bitmap):
    """A bitmap that keeps the bits that a shrink cuts off."""

    before: Bits | None = None


@wrong_rule("bits that a shrink cut off come back when the disk grows again")
class ShrinkKeepsTheBits(Rules):
    def add(self, size: int, granularity: int, *, disabled: bool) -> Bitmap:
        new = super().add(size, granularity, disabled=disabled)
        return Remembering(new.granularity, new.bits, new.recording)

    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        assert isinstance(resized, Remembering)
        if len(resized.bits) < len(bitmap.bits):
            return replace(resized, before=bitmap.bits)
        bits, cut = resized.bits.copy(), resized.before
        if cut is not None:
            start, end = len(bitmap.bits), min(len(bits), len(cut))
            bits[start:end] |= cut[start:end]
        return replace(resized, bits=bits)


@wrong_rule("growing past a 64-bit word's end drops the bits of the word that was the last")
class GrowDropsThePartialWord(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        old, new = len(bitmap.bits), len(resized.bits)
        if -(-new // 64) <= -(-old // 64):
            return resized
        bits = resized.bits.copy()
        bits[old // 64 * 64 :] = False
        return replace(resized, bits=bits)


@wrong_rule("the area that a disk grows by is dirty")
class NewAreaIsDirty(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        bits = resized.bits.copy()
        bits[len(bitmap.bits) :] = True
        return replace(resized, bits=bits)


@wrong_rule("growing inside the last partial cluster of a bitmap sets its bit")
class GrowthInsideAClusterDirties(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        if len(resized.bits) != len(bitmap.bits) or size % bitmap.granularity:
            return resized
        bits = resized.bits.copy()
        bits[-1:] = True
        return replace(resized, bits=bits)


@wrong_rule("a shrink drops the bit of the cluster that the disk now ends in")
class ShrinkDropsTheNewLastBit(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        if len(resized.bits) >= len(bitmap.bits) or size % bitmap.granularity == 0:
            return resized
        bits = resized.bits.copy()
        bits[-1:] = False
        return replace(resized, bits=bits)


@wrong_rule("a disabled bitmap does not follow a resize: what was cut off and grown is as before")
class DisabledDoesNotFollow(ShrinkKeepsTheBits):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        kept = super().resize_bitmap(bitmap, size)
        return Rules.resize_bitmap(self, bitmap, size) if bitmap.recording else kept


@wrong_rule("a disabled bitmap is cleared by a resize")
class ResizeClearsDisabled(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        resized = super().resize_bitmap(bitmap, size)
        return resized if bitmap.recording else self.clear(resized)


@wrong_rule("shrinking to zero leaves one bit")
class EmptyDiskHasABit(Rules):
    def length(self, size: int, granularity: int) -> int:
        return max(1, super().length(size, granularity))


@wrong_rule("shrinking wipes what stays of the last qcow2 cluster")
class ShrinkWipesGhosts(Rules):
    def shrink(self, image: Image, size: int) -> Image:
        small = super().shrink(image, size)
        cells = small.cells.replace(size, small.cells.size, lambda cell: cell and _ZERO)
        return replace(small, cells=cells)


@wrong_rule("growing over a longer backing file shows the backing file's bytes")
class GrowthShowsTheBackingFile(Rules):
    def grow(self, chain: Chain, size: int, step: int) -> Image:
        return super().grow(chain[:1], size, step)


@wrong_rule("a raw file that is cut off keeps its last sector whole")
class RawKeepsTheLastSector(Rules):
    def resize_raw(self, image: Image, size: int, step: int) -> Image:
        return super().resize_raw(image, -(-size // 512) * 512, step)


@wrong_rule("growing over a longer backing file shows its bytes in the last cluster that was")
class GrowthShowsTheBackingFileAtTheSeam(Rules):
    def grow(self, chain: Chain, size: int, step: int) -> Image:
        image, grown = chain[0], super().grow(chain, size, step)
        if size > image.capacity(image.size):
            return grown
        return super().grow(chain[:1], size, step)


@wrong_rule("the area that qcow2 grows by is allocated, as zeroes")
class GrownAreaIsAllocated(Rules):
    def grow(self, chain: Chain, size: int, step: int) -> Image:
        grown, old = super().grow(chain, size, step), chain[0].alloc.size
        capacity = grown.alloc.size
        return replace(grown, alloc=grown.alloc.assign(min(old, capacity), capacity, Alloc.ZERO))
