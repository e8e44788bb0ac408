"""Resizes."""

from dataclasses import replace

from qbprop_model.bitmap import ceil_div
from qbprop_model.data import ZERO
from qbprop_model.disk.creation import CreationRules
from qbprop_model.disk.zeroes import ZeroRules
from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc, Cell, Chain, Image, Refused

MAX_LENGTH = 2**63 - 2**30
"""The largest size in bytes that QEMU gives a node (semantics 5.1)."""


class ResizeRules(CreationRules, ZeroRules):
    """What growing and shrinking do to the top layer."""

    def resize(self, chain: Chain, size: int, step: int) -> Image:
        """``block_resize`` of the top layer (semantics 5.1, 5.3)."""
        image = chain[0]
        if size > MAX_LENGTH:
            raise Refused(Reason.SIZE_TOO_LARGE)
        if image.format == "raw":
            return self.resize_raw(image, size, step)
        if size % 512:
            raise Refused(Reason.SIZE_NOT_ALIGNED)
        if size > image.size and self.size_too_large(
            image.cluster_size, size, extended_l2=image.extended_l2
        ):
            raise Refused(Reason.SIZE_TOO_LARGE)
        if size < image.size:
            return self.shrink(image, size)
        return self.grow(chain, size, step) if size > image.size else image

    def writes_size_alone(self, chain: Chain, size: int) -> bool:
        """Whether a resize of qcow2 grows it with no more L1 entries and nothing to be zeroed."""
        image = chain[0]
        covered = image.cluster_size * (image.cluster_size // (16 if image.extended_l2 else 8))
        same = ceil_div(size, covered) == ceil_div(image.size, covered)
        hidden = len(chain) > 1 and chain[1].size > image.size
        return size > image.size and same and not hidden

    def resize_raw(self, image: Image, size: int, step: int) -> Image:
        """Raw: bytes past the exact size are dropped; the node is rounded up to 512 (5.3)."""
        self.fits_host(size)
        rounded = ceil_div(size, 512) * 512
        zero = Cell(ZERO, step)
        cells = image.cells.assign(size, image.size, zero) if size < image.size else image.cells
        return replace(
            image,
            size=rounded,
            cells=cells.resized(rounded, zero),
            alloc=image.alloc.resized(rounded, Alloc.DATA),
            hosted=image.hosted.resized(rounded, value=True),
        )

    def shrink(self, image: Image, size: int) -> Image:
        """qcow2: whole clusters past the end go, the last one keeps its ghosts (5.3)."""
        capacity = image.capacity(size)
        return replace(
            image,
            size=size,
            cells=image.cells.resized(capacity, None),
            alloc=image.alloc.resized(capacity, Alloc.NONE),
            hosted=image.hosted.resized(capacity, value=False),
        )

    def grow(self, chain: Chain, size: int, step: int) -> Image:
        """qcow2: the new area is unallocated, or zeroed where the backing file is longer."""
        image, below = chain[0], chain[1:]
        old, capacity = image.size, image.capacity(size)
        grown = replace(
            image,
            size=size,
            cells=image.cells.resized(capacity, None),
            alloc=image.alloc.resized(capacity, Alloc.NONE),
            hosted=image.hosted.resized(capacity, value=False),
        )
        if not below or below[0].size <= old:
            return grown
        edge = ceil_div(old, image.unit) * image.unit
        if edge < size:
            units = self.zeroable(grown, edge, size)
            if image.compat == "0.10" or units is None:
                raise Refused(Reason.GROW_UNSUPPORTED)
            grown = self.zero_units(grown, *units, step, unmap=False)
        head = min(edge, size) - old
        return self.write((grown, *below), old, head, Cell(ZERO, step)) if head > 0 else grown
