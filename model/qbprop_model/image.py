"""Image files and their state: bytes, and which clusters of a layer are allocated.

A layer knows its own bytes only; a chain of layers (top first) gives what the guest sees.
Bytes are runs of :class:`Cell`; nothing is rendered before a comparison asks for it. Rules:
semantics 1.2, 5.3 and 6.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto

import numpy as np

from qbprop_model.bitmap import Bitmap, ceil_div
from qbprop_model.data import ZERO, Bytes, Data
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.operations import Compat, Format
from qbprop_model.rangemap import RangeMap
from qbprop_model.ranges import Ranges, joined


class Refused(Exception):  # noqa: N818 - a refusal is an outcome, not an error
    """The operation is refused; see :class:`~qbprop_model.expectation.Refusal`."""

    def __init__(self, reason: Reason, subject: str = "") -> None:
        super().__init__(reason, subject)
        self.refusal = Refusal(reason, subject)


def refuse(reason: Reason | None, subject: str) -> None:
    """Refuse, if there is a reason."""
    if reason is not None:
        raise Refused(reason, subject)


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
    space in the file. A cell is None where the layer itself has nothing. ``stored`` are the
    bitmaps in the file, by name; those that are ``inconsistent`` are marked as in use.
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
    stored: Mapping[str, Bitmap] = field(default_factory=dict)

    @property
    def unit(self) -> int:
        """Bytes per unit of allocation: the cluster, or with extended_l2 the subcluster."""
        return self.cluster_size // 32 if self.extended_l2 else self.cluster_size

    @property
    def allocated(self) -> Ranges:
        """The byte ranges that are allocated, clipped to the image's size."""
        runs = self.alloc.runs(0, self.size)
        return joined((start, end) for start, end, alloc in runs if alloc is not Alloc.NONE)

    @property
    def table_size(self) -> int:
        """Bytes that one L2 table covers, which takes a cluster itself."""
        entry = 16 if self.extended_l2 else 8
        return self.cluster_size // entry * self.cluster_size

    @property
    def slice_size(self) -> int:
        """Bytes that one slice of the L2 tables covers: up to 4 KiB of a table are read at once."""
        return min(4096 * self.table_size // self.cluster_size, self.table_size)

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
        return [(start, end) for start, end, _ in self.parts()]

    def parts(self) -> list[tuple[int, int, Data]]:
        """What makes up the bytes: ``(start, end, data)``, ascending, zeroes left out."""
        runs = self.cells.runs()
        return [(start, end, cell.data) for start, end, cell in runs if cell.data != ZERO]

    def origin(self, offset: int) -> int | None:
        """The step that determined the byte at ``offset``."""
        return self.cells.at(offset).step


BLANK = Cell(ZERO, 0)
"""What was never written."""
