"""How image files come to be."""

from dataclasses import replace

from qbprop_model.bitmap import ceil_div
from qbprop_model.expectation import Reason
from qbprop_model.image import BLANK, Alloc, Cell, Image, Refused
from qbprop_model.operations import Compat, Format, OpenOutcomeError
from qbprop_model.rangemap import RangeMap

RAW_LIMIT = 1 << 43
"""Larger raw files are not taken by every file system."""


class CreationRules:
    """Making an image and giving it another backing file."""

    def create(
        self,
        *,
        format: Format,  # noqa: A002 - the field's own word
        size: int,
        cluster_size: int = 65536,
        compat: Compat = "1.1",
        extended_l2: bool = False,
        backing: str | None = None,
    ) -> Image:
        """``qemu-img create``; refuses what QEMU refuses (semantics 5.3)."""
        if format == "raw":
            if backing is not None:
                raise Refused(Reason.BACKING_UNSUPPORTED)
            self.fits_host(size)
            return Image(
                format=format,
                size=size,
                cluster_size=1,
                compat="1.1",
                extended_l2=False,
                backing=None,
                cells=RangeMap[Cell | None](size, BLANK),
                alloc=RangeMap(size, Alloc.DATA),
                hosted=RangeMap(size, value=True),
            )
        if extended_l2 and (compat == "0.10" or cluster_size < 16384):
            raise Refused(Reason.IMAGE_REFUSED)
        if self.size_too_large(cluster_size, size, extended_l2=extended_l2):
            raise Refused(Reason.IMAGE_REFUSED)
        capacity = ceil_div(size, cluster_size) * cluster_size
        return Image(
            format=format,
            size=size,
            cluster_size=cluster_size,
            compat=compat,
            extended_l2=extended_l2,
            backing=backing,
            cells=RangeMap[Cell | None](capacity, None),
            alloc=RangeMap(capacity, Alloc.NONE),
            hosted=RangeMap(capacity, value=False),
        )

    def fits_host(self, size: int) -> None:
        """Raises :class:`OpenOutcomeError` for a raw file that the host may not take."""
        if size > RAW_LIMIT:
            raise OpenOutcomeError("whether the host's file system takes a file of that size")

    def size_too_large(self, cluster_size: int, size: int, *, extended_l2: bool) -> bool:
        """Whether the L1 table would exceed its 32 MiB (semantics 5.1, 5.3)."""
        l1_entries, l2_entries = 2**25 // 8, cluster_size // (16 if extended_l2 else 8)
        return size > l1_entries * l2_entries * cluster_size

    def empty(self, image: Image) -> Image:
        """A qcow2 image that has nothing of its own any more, behind ``qemu-img commit``."""
        return replace(
            image,
            cells=RangeMap[Cell | None](image.cells.size, None),
            alloc=RangeMap(image.alloc.size, Alloc.NONE),
            hosted=RangeMap(image.hosted.size, value=False),
        )

    def rebase(self, image: Image, backing: str | None) -> Image:
        """``qemu-img rebase -u``: another backing file, no byte of the layer changes."""
        if image.format == "raw":
            raise Refused(Reason.BACKING_UNSUPPORTED)
        doubtful = any(kind is Alloc.DATA_OR_ZERO for _, _, kind in image.alloc.runs())
        if image.compat == "0.10" and backing is not None and doubtful:
            raise OpenOutcomeError("whether zeroes of a version 2 image are clusters or nothing")
        return replace(image, backing=backing)
