"""Guest writes, plain and compressed."""

import hashlib
import zlib
from dataclasses import replace

from qbprop_model.data import ZERO, Bytes
from qbprop_model.disk.chains import ChainRules
from qbprop_model.disk.geometry import clusters, outward
from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc, Cell, Chain, Image, Refused
from qbprop_model.operations import OpenOutcomeError

COMPRESSED_LIMIT = 10_000
"""Most clusters whose compressed length is remembered: compressing takes milliseconds."""

_compressed: dict[tuple[bytes, int], int] = {}
"""Bytes of a compressed cluster, by a digest of its data and by its size."""


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
            data = cell.data.render(start, min(stop, end) - start)
            if not self.compresses(data, image.cluster_size):
                image = self.write((image, *chain[1:]), start, len(data), cell)
            elif self.taken(image, start):
                if length > image.cluster_size:
                    raise OpenOutcomeError("which clusters a failed compressed write changes")
                raise Refused(Reason.ALREADY_ALLOCATED)
            else:
                cells = image.cells.assign(start, stop, Cell(ZERO, cell.step))
                image = replace(
                    image,
                    cells=cells.assign(start, start + len(data), cell),
                    alloc=image.alloc.assign(start, stop, Alloc.COMPRESSED),
                )
        return image

    def compresses(self, data: Bytes, cluster_size: int) -> bool:
        """Whether a cluster, padded with zeroes, gets smaller when compressed (1.2)."""
        key = hashlib.blake2b(data.tobytes(), digest_size=16).digest(), cluster_size
        if key not in _compressed:
            if len(_compressed) >= COMPRESSED_LIMIT:
                _compressed.clear()
            packer = zlib.compressobj(-1, zlib.DEFLATED, -12, 9)
            padded = data.tobytes().ljust(cluster_size, b"\0")
            _compressed[key] = len(packer.compress(padded) + packer.flush())
        return _compressed[key] < cluster_size - 1

    def taken(self, image: Image, start: int) -> bool:
        """Whether the cluster at ``start`` holds what a compressed write cannot replace.

        Raises :class:`OpenOutcomeError` where that hangs on holes in a raw file.
        """
        runs = image.alloc.runs(start, start + image.cluster_size)
        kinds = {kind for _, _, kind in runs}
        if Alloc.DATA_OR_ZERO in kinds:
            raise OpenOutcomeError("whether the cluster is allocated hangs on holes")
        return image.hosted.at(start) or Alloc.COMPRESSED in kinds
