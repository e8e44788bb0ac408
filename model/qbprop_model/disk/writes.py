"""Guest writes, plain and compressed."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from qbprop_model.data import ZERO, Data, Fill
from qbprop_model.disk.chains import ChainRules
from qbprop_model.disk.geometry import clusters, outward
from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc, Cell, Chain, Image, Refused
from qbprop_model.operations import OpenOutcomeError

Part = tuple[int, int, Data]
"""Bytes ``(start, end, data)`` of a disk."""


class WriteRules(ChainRules):
    """What a write does to a layer."""

    def write(self, chain: Chain, offset: int, length: int, cell: Cell) -> Image:
        """A plain write; partly written units are filled up from below first."""
        image = chain[0]
        if length == 0:
            return image
        image = self.allocate(chain, offset, length)
        return replace(image, cells=image.cells.assign(offset, offset + length, cell))

    def allocate(self, chain: Chain, offset: int, length: int) -> Image:
        """Every unit that ``[offset, offset + length)`` touches becomes data of its own."""
        image = chain[0]
        if image.format == "raw":
            return image
        start, end = outward(image.unit, offset, offset + length)
        alloc, cells = image.alloc, image.cells
        if image.extended_l2:
            for cs, ce in clusters(image.cluster_size, offset, offset + length):
                if alloc.at(cs) is Alloc.COMPRESSED:
                    alloc = alloc.assign(cs, ce, Alloc.DATA)
        copied = [
            piece
            for s, e, cell in cells.runs(start, end)
            if cell is None
            for piece in self.backed(chain[1:], s, e)
        ]
        cs, ce = outward(image.cluster_size, offset, offset + length)
        return replace(
            image,
            cells=cells.paste(copied),
            alloc=alloc.assign(start, end, Alloc.DATA),
            hosted=image.hosted.assign(cs, ce, value=True),
        )

    def write_compressed(self, chain: Chain, offset: int, length: int, cell: Cell) -> Image:
        """A compressed write (semantics 1.2); refused as a whole or done as a whole."""
        image = chain[0]
        if image.format == "raw":
            raise Refused(Reason.NOT_SUPPORTED)
        if length == 0:
            return image
        end = offset + length
        if offset % image.cluster_size or (end % image.cluster_size and end != image.size):
            raise Refused(Reason.NOT_ALIGNED)
        for start, stop in clusters(image.cluster_size, offset, end):
            last = min(stop, end)
            if not self.compresses([(start, last, cell.data)], image.cluster_size):
                image = self.write((image, *chain[1:]), start, last - start, cell)
            elif self.taken(image, start):
                if length > image.cluster_size:
                    raise OpenOutcomeError("which clusters a failed compressed write changes")
                raise Refused(Reason.ALREADY_ALLOCATED)
            else:
                cells = image.cells.assign(start, stop, Cell(ZERO, cell.step))
                image = replace(
                    image,
                    cells=cells.assign(start, last, cell),
                    alloc=image.alloc.assign(start, stop, Alloc.COMPRESSED),
                )
        return image

    def compresses(self, parts: Iterable[Part], cluster_size: int) -> bool:
        """Whether a cluster, padded with zeroes, gets smaller when compressed (1.2)."""
        placed = ((0 if isinstance(d, Fill) else start, end - start, d) for start, end, d in parts)
        return _packed(tuple(placed), cluster_size) < cluster_size - 1

    def taken(self, image: Image, start: int) -> bool:
        """Whether the cluster at ``start`` holds what a compressed write cannot replace.

        Raises :class:`OpenOutcomeError` where that hangs on holes in a raw file.
        """
        runs = image.alloc.runs(start, start + image.cluster_size)
        kinds = {kind for _, _, kind in runs}
        if Alloc.DATA_OR_ZERO in kinds:
            raise OpenOutcomeError("whether the cluster is allocated hangs on holes")
        return image.hosted.at(start) or Alloc.COMPRESSED in kinds


@lru_cache(maxsize=4_000)
def _packed(parts: tuple[tuple[int, int, Data], ...], cluster_size: int) -> int:
    """Bytes of a compressed cluster, made of ``(offset, length, data)``: it takes milliseconds."""
    cluster = b"".join(data.render(offset, length).tobytes() for offset, length, data in parts)
    packer = zlib.compressobj(-1, zlib.DEFLATED, -12, 9)
    return len(packer.compress(cluster.ljust(cluster_size, b"\0")) + packer.flush())
