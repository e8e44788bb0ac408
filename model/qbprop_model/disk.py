"""Image files: guest-visible bytes, and which clusters of a layer are allocated.

A layer knows its own bytes only; a chain of layers (top first) gives what the guest sees.
Bytes are runs of :class:`Cell`; nothing is rendered before a comparison asks for it. Rules:
semantics 1.2, 5.3 and 6.2.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

import numpy as np

from qbprop_model.bitmap import ceil_div
from qbprop_model.data import ZERO, Bytes, Data
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.operations import Compat, Format, OpenOutcomeError
from qbprop_model.rangemap import RangeMap


class Refused(Exception):  # noqa: N818 - a refusal is an outcome, not an error
    """The operation is refused; see :class:`~qbprop_model.expectation.Refusal`."""

    def __init__(self, reason: Reason, subject: str = "") -> None:
        super().__init__(reason, subject)
        self.refusal = Refusal(reason, subject)


class Alloc(StrEnum):
    """What a unit (cluster, or subcluster) of a layer holds. Raw layers are all DATA."""

    NONE = auto()
    DATA = auto()
    ZERO = auto()
    COMPRESSED = auto()
    DATA_OR_ZERO = auto()
    """Reached by a write; whether as data or as zeroes hangs on holes in a file of the host."""


@dataclass(frozen=True)
class Cell:
    """Bytes, and the number of the step that put them there."""

    data: Data
    step: int


@dataclass(frozen=True, eq=False)
class Image:
    """One image file. ``size`` in bytes.

    ``cells`` and ``alloc`` reach up to the end of the last cluster, so the bytes that a shrink
    leaves behind it (ghosts, semantics 5.3) are kept. ``hosted`` tells which clusters own
    space in the file. A cell is None where the layer itself has nothing.
    """

    format: Format
    size: int
    cluster_size: int
    compat: Compat
    extended_l2: bool
    backing: str | None
    cells: RangeMap[Cell | None]
    alloc: RangeMap[Alloc]
    hosted: RangeMap[bool]

    @property
    def unit(self) -> int:
        """Bytes per unit of allocation: the cluster, or with extended_l2 the subcluster."""
        return self.cluster_size // 32 if self.extended_l2 else self.cluster_size

    def capacity(self, size: int) -> int:
        """``size`` rounded up to whole clusters (raw: as it is)."""
        if self.format == "raw":
            return size
        return ceil_div(size, self.cluster_size) * self.cluster_size


Chain = Sequence[Image]
"""Layers from the top down; the top one gives the size."""


@dataclass(frozen=True, eq=False)
class View:
    """The bytes of a disk at one moment; satisfies :class:`~qbprop_model.expectation.Contents`."""

    cells: RangeMap[Cell]

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.cells.size

    def render(self, offset: int, length: int) -> Bytes:
        """The bytes of ``[offset, offset + length)``."""
        out = np.zeros(length, np.uint8)
        for start, end, cell in self.cells.runs(offset, offset + length):
            if cell.data != ZERO:
                out[start - offset : end - offset] = cell.data.render(start, end - start)
        return out

    def written(self) -> list[tuple[int, int]]:
        """The ranges outside which every byte is zero."""
        return [(start, end) for start, end, cell in self.cells.runs() if cell.data != ZERO]

    def origin(self, offset: int) -> int | None:
        """The step that determined the byte at ``offset``."""
        return self.cells.at(offset).step


MAX_LENGTH = 2**63 - 2**30
"""The largest size in bytes that QEMU gives a node (semantics 5.1)."""

RAW_LIMIT = 1 << 43
"""Larger raw files are not taken by every file system."""

_BLANK = Cell(ZERO, 0)


class DiskRules:
    """How images change. Override one method to state another rule."""

    # --- what a chain shows ---------------------------------------------------------------

    def visible(self, chain: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        """What a read of ``[start, end)`` gives; past the end of a layer it has nothing."""
        if not chain:
            yield start, end, _BLANK
            return
        top, below = chain[0], chain[1:]
        for s, e, cell in top.cells.runs(start, end):
            if cell is None:
                yield from self.backed(below, s, e)
            else:
                yield s, e, cell

    def backed(self, below: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        """What the backing chain gives: zero past its end (semantics 5.3)."""
        edge = max(start, min(end, below[0].size)) if below else start
        if start < edge:
            yield from self.visible(below, start, edge)
        if edge < end:
            yield edge, end, _BLANK

    def view(self, chain: Chain) -> View:
        """The guest-visible bytes of a chain."""
        size = chain[0].size
        return View(RangeMap(size, _BLANK).paste(self.visible(chain, 0, size)))

    def view_range(self, chain: Chain, start: int, length: int) -> Bytes:
        """The bytes of ``[start, start + length)`` of a chain."""
        cells = RangeMap(chain[0].size, _BLANK).paste(self.visible(chain, start, start + length))
        return View(cells).render(start, length)

    # --- creation -------------------------------------------------------------------------

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
            return Image(
                format=format,
                size=size,
                cluster_size=1,
                compat="1.1",
                extended_l2=False,
                backing=None,
                cells=RangeMap[Cell | None](size, _BLANK),
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

    def size_too_large(self, cluster_size: int, size: int, *, extended_l2: bool) -> bool:
        """Whether the L1 table would exceed its 32 MiB (semantics 5.1, 5.3)."""
        l1_entries, l2_entries = 2**25 // 8, cluster_size // (16 if extended_l2 else 8)
        return size > l1_entries * l2_entries * cluster_size

    def rebase(self, image: Image, backing: str | None) -> Image:
        """``qemu-img rebase -u``: another backing file, no byte of the layer changes."""
        if image.format == "raw":
            raise Refused(Reason.BACKING_UNSUPPORTED)
        return replace(image, backing=backing)

    # --- guest writes ---------------------------------------------------------------------

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
        start, end = self._outward(image.unit, offset, offset + length)
        alloc, cells = image.alloc, image.cells
        if image.extended_l2:
            for cs, ce in self._clusters(image, offset, offset + length):
                if alloc.at(cs) is Alloc.COMPRESSED:
                    alloc = alloc.assign(cs, ce, Alloc.DATA)
        copied = [
            piece
            for s, e, cell in cells.runs(start, end)
            if cell is None
            for piece in self.backed(chain[1:], s, e)
        ]
        cs, ce = self._outward(image.cluster_size, offset, offset + length)
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
        for start, stop in self._clusters(image, offset, end):
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
        packer = zlib.compressobj(-1, zlib.DEFLATED, -12, 9)
        padded = data.tobytes().ljust(cluster_size, b"\0")
        return len(packer.compress(padded) + packer.flush()) < cluster_size - 1

    def taken(self, image: Image, start: int) -> bool:
        """Whether the cluster at ``start`` holds what a compressed write cannot replace.

        Raises :class:`OpenOutcomeError` where that hangs on holes in a raw file.
        """
        runs = image.alloc.runs(start, start + image.cluster_size)
        kinds = {kind for _, _, kind in runs}
        if Alloc.DATA_OR_ZERO in kinds:
            raise OpenOutcomeError("whether the cluster is allocated hangs on holes")
        return image.hosted.at(start) or Alloc.COMPRESSED in kinds

    # --- zeroes and discards --------------------------------------------------------------

    def write_zeroes(
        self, chain: Chain, offset: int, length: int, step: int, *, unmap: bool
    ) -> Image:
        """Zero a range (semantics 5.3): whole units by their flag, the rest as data."""
        image = chain[0]
        zero = Cell(ZERO, step)
        if image.format == "raw" or length == 0:
            return self.write(chain, offset, length, zero)
        for s, e in self._pieces(image.unit, offset, offset + length):
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

        At the end of the disk a piece that holds the start of the last cluster takes all of
        that cluster with it, ghosts included (5.3).
        """
        s, e = self._outward(image.unit, start, end)
        if end == image.size and s <= (image.size - 1) // image.cluster_size * image.cluster_size:
            e = image.capacity(end)
        if s < start or (e > end and end != image.size):
            free = (Alloc.NONE, Alloc.ZERO, Alloc.DATA_OR_ZERO)
            return (s, e) if image.alloc.at(s) in free else None
        cut = [edge for edge in (s, e) if edge % image.cluster_size and edge < image.alloc.size]
        return None if any(image.alloc.at(x) is Alloc.COMPRESSED for x in cut) else (s, e)

    def _rest(self, image: Image, start: int, end: int) -> list[tuple[int, int]]:
        """What a piece leaves of its units: it must read zero for the units to be flagged."""
        s, e = self._outward(image.unit, start, end)
        return [(s, start), (end, max(end, min(e, image.size)))]

    def read_status(self, chain: Chain, ranges: list[tuple[int, int]]) -> set[Alloc]:
        """The kinds that the block status of some ranges gives; ZERO for none."""
        found = {kind for s, e in ranges if s < e for _, _, kind in self.status(chain, s, e)}
        return found | {Alloc.ZERO} if Alloc.DATA not in found else found

    def status(self, chain: Chain, start: int, end: int) -> Iterator[tuple[int, int, Alloc]]:
        """The block status through the chain: DATA, ZERO, or DATA_OR_ZERO under raw files."""
        if not chain:
            yield start, end, Alloc.ZERO
            return
        top, below = chain[0], chain[1:]
        for s, e, alloc in top.alloc.runs(start, end):
            if alloc is Alloc.NONE:
                edge = max(s, min(e, below[0].size)) if below else s
                yield from self.status(below, s, edge) if s < edge else ()
                if edge < e:
                    yield edge, e, Alloc.ZERO
            elif top.format == "raw":
                yield s, e, Alloc.DATA_OR_ZERO
            else:
                yield s, e, Alloc.DATA if alloc is Alloc.COMPRESSED else alloc

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

    # --- resize ---------------------------------------------------------------------------

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

    def resize_raw(self, image: Image, size: int, step: int) -> Image:
        """Raw: bytes past the exact size are dropped; the node is rounded up to 512 (5.3)."""
        if size > RAW_LIMIT:
            raise OpenOutcomeError("whether the host's file system takes a file of that size")
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

    # --- geometry -------------------------------------------------------------------------

    def _outward(self, unit: int, start: int, end: int) -> tuple[int, int]:
        return start // unit * unit, ceil_div(end, unit) * unit

    def _clusters(self, image: Image, start: int, end: int) -> Iterator[tuple[int, int]]:
        size = image.cluster_size
        for s in range(start // size * size, end, size):
            yield s, s + size

    def _pieces(self, unit: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The head inside a unit, the whole units, the tail inside a unit."""
        first = min(ceil_div(start, unit) * unit, end)
        last = max(end // unit * unit, first)
        for s, e in ((start, first), (first, last), (last, end)):
            if s < e:
                yield s, e
