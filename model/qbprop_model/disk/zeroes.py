"""Zeroes and discards."""

from dataclasses import replace

from qbprop_model.bitmap import ceil_div
from qbprop_model.data import ZERO
from qbprop_model.disk.geometry import outward, pieces
from qbprop_model.disk.writes import WriteRules
from qbprop_model.image import Alloc, Cell, Chain, Image


class ZeroRules(WriteRules):
    """What writing zeroes and discarding do to a layer."""

    def write_zeroes(
        self, chain: Chain, offset: int, length: int, step: int, *, unmap: bool
    ) -> Image:
        """Zero a range (semantics 5.3): whole units by their flag, the rest as data."""
        image = chain[0]
        zero = Cell(ZERO, step)
        if image.format == "raw" or length == 0:
            return self.write(chain, offset, length, zero)
        for s, e in pieces(image.unit, offset, offset + length):
            whole = self.zeroable(image, s, e)
            rest = self.read_status((image, *chain[1:]), self._rest(image, s, e))
            if whole is not None and rest == {Alloc.ZERO} and self._flagged(image, chain[1:]):
                image = self.zero_units(image, *whole, step, unmap=unmap)
                continue
            image = self.write((image, *chain[1:]), s, e - s, zero)
            if (
                whole is not None
                and rest <= {Alloc.ZERO, Alloc.DATA_OR_ZERO}
                and self._flagged(image, chain[1:])
            ):
                alloc = image.alloc.assign(*whole, Alloc.DATA_OR_ZERO)
                image = replace(image, alloc=alloc)
        return image

    def _flagged(self, image: Image, below: Chain) -> bool:
        """Version 2 has no zero flag: over a backing file zeroes are written out (5.3)."""
        return image.compat != "0.10" or not below

    def zeroable(self, image: Image, start: int, end: int) -> tuple[int, int] | None:
        """The units to be flagged as zero for a piece, or None where data is in the way.

        At the end of the disk a piece whose units hold the start of the last cluster takes all
        of that cluster with it, ghosts included (5.3).
        """
        s, e = outward(image.unit, start, end)
        if e >= image.size and s <= (image.size - 1) // image.cluster_size * image.cluster_size:
            e = image.capacity(end)
        if s < start or (e > end and end != image.size):
            free = (Alloc.NONE, Alloc.ZERO, Alloc.DATA_OR_ZERO)
            return (s, e) if image.alloc.at(s) in free else None
        cut = [edge for edge in (s, e) if edge % image.cluster_size and edge < image.alloc.size]
        return None if any(image.alloc.at(x) is Alloc.COMPRESSED for x in cut) else (s, e)

    def _rest(self, image: Image, start: int, end: int) -> list[tuple[int, int]]:
        """What a piece leaves of its units: it must read zero for the units to be flagged."""
        s, e = outward(image.unit, start, end)
        return [(s, start), (end, max(end, min(e, image.size)))]

    def zero_units(self, image: Image, start: int, end: int, step: int, *, unmap: bool) -> Image:
        """Flag whole units as zero; version 2 has no flag and drops the clusters."""
        if image.compat == "0.10":
            return self.drop(image, start, end)
        hosted = image.hosted
        if unmap:
            first = ceil_div(start, image.cluster_size) * image.cluster_size
            last = end // image.cluster_size * image.cluster_size
            hosted = hosted.assign(first, last, value=False)
        alloc = image.alloc.assign(start, end, Alloc.ZERO)
        if not unmap:
            doubtful = [r for r in image.alloc.runs(start, end) if r[2] is Alloc.DATA_OR_ZERO]
            alloc = alloc.paste(doubtful)
        return replace(
            image,
            cells=image.cells.assign(start, end, Cell(ZERO, step)),
            alloc=alloc,
            hosted=hosted,
        )

    def drop(self, image: Image, start: int, end: int) -> Image:
        """Take clusters out of the layer altogether."""
        return replace(
            image,
            cells=image.cells.assign(start, end, None),
            alloc=image.alloc.assign(start, end, Alloc.NONE),
            hosted=image.hosted.assign(start, end, value=False),
        )

    def discard(self, chain: Chain, offset: int, length: int, step: int) -> Image:
        """A discard that reaches the node (semantics 5.3): whole clusters read zero."""
        image, below = chain[0], chain[1:]
        if image.format == "raw":
            return self.write(chain, offset, length, Cell(ZERO, step))
        if image.compat == "0.10" and below:
            return image
        cluster, end = image.cluster_size, offset + length
        start = ceil_div(offset, cluster) * cluster
        end = image.capacity(end) if end == image.size else end // cluster * cluster
        if start >= end:
            return image
        if image.compat == "0.10":
            return self.drop(image, start, end)
        alloc, cells = image.alloc, image.cells
        for s, e, hosted in image.hosted.runs(start, end):
            for us, ue, kind in image.alloc.runs(s, e):
                if below or hosted or kind is Alloc.COMPRESSED:
                    alloc = alloc.assign(us, ue, Alloc.ZERO)
                    cells = cells.assign(us, ue, Cell(ZERO, step))
        hosted_after = image.hosted.assign(start, end, value=False)
        return replace(image, cells=cells, alloc=alloc, hosted=hosted_after)

    def read_status(self, chain: Chain, ranges: list[tuple[int, int]]) -> set[Alloc]:
        """The kinds that the block status of some ranges gives; ZERO for none."""
        found = {kind for s, e in ranges if s < e for _, _, kind in self.status(chain, s, e)}
        return found | {Alloc.ZERO} if Alloc.DATA not in found else found
