"""Wrong rules about the bytes of images."""

from collections.abc import Iterable, Iterator

from tests.sensitivity.registry import wrong_rule

from qbprop_model.data import ZERO
from qbprop_model.disk.writes import Part
from qbprop_model.image import Cell, Chain, Image
from qbprop_model.operations import Compat
from qbprop_model.rules import Rules

_ZERO = Cell(ZERO, 0)


@wrong_rule("what a write leaves of a new cluster is zero, whatever the backing file has")
class WritesDoNotFillUp(Rules):
    def allocate(self, chain: Chain, offset: int, length: int) -> Image:
        return super().allocate(chain[:1], offset, length)


@wrong_rule("past the end of a short backing file its last sector is seen again")
class ShortBackingFileRepeats(Rules):
    def backed(self, below: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        for s, e, cell in super().backed(below, start, end):
            past = bool(below) and s >= below[0].size >= 512
            yield s, e, below[0].cells.at(below[0].size - 1) or cell if past else cell


@wrong_rule("a discard zeroes clusters that it covers in part")
class PartialClustersAreDiscarded(Rules):
    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        return self.write(chain, offset, length, Cell(ZERO, step))


@wrong_rule("a discard changes no byte")
class DiscardIsNothing(Rules):
    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        return chain[0]


@wrong_rule("a discarded cluster shows the backing file again")
class DiscardShowsTheBackingFile(Rules):
    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        image = super().discard(chain, offset, length, step)
        if image.format == "raw" or len(chain) == 1 or image is chain[0]:
            return image
        unit = image.cluster_size
        start, end = -(-offset // unit) * unit, (offset + length) // unit * unit
        return self.drop(image, start, end) if start < end else image


@wrong_rule("a discard spares what only the backing file has")
class DiscardSparesTheBackingFile(Rules):
    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        return super().discard(chain[:1], offset, length, step)


@wrong_rule("zeroed clusters show the backing file")
class ZeroedClustersAreUnallocated(Rules):
    def zero_units(self, image: Image, start: int, end: int, step: int, *, unmap: bool) -> Image:
        return self.drop(image, start, end)


@wrong_rule("zeroing spares what is only part of a cluster")
class ZeroingRoundsInward(Rules):
    def write_zeroes(
        self, chain: Chain, offset: int, length: int, step: int, *, unmap: bool
    ) -> Image:
        unit = chain[0].unit
        start, end = -(-offset // unit) * unit, (offset + length) // unit * unit
        if chain[0].format == "raw":
            start, end = offset, offset + length
        return super().write_zeroes(chain, start, max(0, end - start), step, unmap=unmap)


@wrong_rule("a compressed write replaces what a cluster holds")
class CompressesOntoAnything(Rules):
    def taken(self, image: Image, start: int) -> bool:
        return False


@wrong_rule("a compressed write of bytes that do not compress fails")
class IncompressibleFails(Rules):
    def compresses(self, parts: Iterable[Part], cluster_size: int) -> bool:
        return True


@wrong_rule("rebasing keeps the backing file that an image had")
class RebaseKeepsTheOldFile(Rules):
    def rebase(self, image: Image, backing: str | None) -> Image:
        super().rebase(image, backing)
        return image


@wrong_rule("version 2 images take extended L2 entries")
class ExtendedL2InVersion2(Rules):
    def create(self, *, compat: Compat = "1.1", **kwargs: object) -> Image:
        late = bool(kwargs.get("extended_l2"))
        return super().create(compat="1.1" if late else compat, **kwargs)  # type: ignore[arg-type]
