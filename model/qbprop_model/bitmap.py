"""Dirty bitmaps: one bit per cluster of ``granularity`` bytes (semantics 1, 2.1, 3, 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from qbprop_model.expectation import BitmapState, Reason, digest
from qbprop_model.operations import InvalidOperationError

Bits = npt.NDArray[np.bool_]

Use = Literal["read", "switch", "change", "remove"]
"""What a command does with a bitmap: "switch" turns its recording on or off."""


BITS_LIMIT = 1 << 24
"""Most bits of a bitmap: those of a disk of 1 TiB at the default granularity."""


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(-a // b)


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A bitmap of a node. ``bits`` is never changed in place.

    ``granularity`` in bytes. While a job uses the bitmap it is ``busy`` and guest writes go to
    ``successor``, which has the shape of ``bits``. A ``persistent`` one is stored in the image;
    its node may be ``read_only``. What is ``inconsistent`` was lost, and can only be removed.
    """

    granularity: int
    bits: Bits
    recording: bool = True
    busy: bool = False
    persistent: bool = False
    inconsistent: bool = False
    read_only: bool = False
    successor: Bits | None = None

    @cached_property
    def state(self) -> BitmapState:
        """What a query shows (semantics 4)."""
        return BitmapState(
            granularity=self.granularity,
            count=int(np.count_nonzero(self.bits)) * self.granularity,
            recording=self.recording,
            busy=self.busy,
            persistent=self.persistent,
            inconsistent=self.inconsistent,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the bits in 64-bit words, at least one word (semantics 2.1)."""
        words = max(1, ceil_div(len(self.bits), 64))
        return digest(np.packbits(self.bits, bitorder="little").tobytes().ljust(8 * words, b"\0"))

    def differs_from(self, other: "Bitmap | None") -> bool:
        """Whether its bits are others, and more than their number is to be known of them."""
        if other is not None and self.bits is other.bits:
            return False
        if other is not None and len(self.bits) != len(other.bits):
            return True
        count = self.state.count
        if count in (0, len(self.bits) * self.granularity):
            return False
        if other is None or count != other.state.count:
            return True
        return not np.array_equal(self.bits, other.bits)

    def dirty_ranges(self, size: int) -> list[tuple[int, int]]:
        """The dirty byte ranges ``(start, end)`` on a node of ``size`` bytes, ascending."""
        bits = self.bits
        edges = (np.flatnonzero(bits[1:] != bits[:-1]) + 1).tolist()
        if len(bits) and bits[0]:
            edges.insert(0, 0)
        if len(edges) % 2:
            edges.append(len(bits))
        g = self.granularity
        return [(a * g, min(b * g, size)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class BitmapRules:
    """How bitmaps change. Override one method to state another rule."""

    def length(self, size: int, granularity: int) -> int:
        """Number of bits for a node of ``size`` bytes (semantics 1.1).

        Raises InvalidOperationError for more than are followed.
        """
        bits = ceil_div(size, granularity)
        if bits > BITS_LIMIT:
            raise InvalidOperationError(f"a bitmap of more than {BITS_LIMIT} bits is not followed")
        return bits

    def default_granularity(self, cluster_size: int | None) -> int:
        """Granularity in bytes when none is asked for (semantics 1.1)."""
        return 65536 if cluster_size is None else min(max(cluster_size, 4096), 65536)

    def granularity_accepted(self, granularity: int) -> bool:
        """Whether ``block-dirty-bitmap-add`` takes it: a power of two from 512 (1.1)."""
        return granularity >= 512 and granularity & (granularity - 1) == 0

    def add(self, size: int, granularity: int, *, disabled: bool) -> Bitmap:
        """A new bitmap is clean (semantics 3)."""
        return Bitmap(granularity, np.zeros(self.length(size, granularity), np.bool_), not disabled)

    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        """Why a command may not use a bitmap, in QEMU's order (matrix of semantics 3)."""
        if bitmap.busy:
            return Reason.BITMAP_BUSY
        if bitmap.read_only and use in ("change", "remove"):
            return Reason.BITMAP_READ_ONLY
        if bitmap.inconsistent and use != "remove":
            return Reason.BITMAP_INCONSISTENT
        return None

    def covered(self, granularity: int, offset: int, length: int) -> slice:
        """The clusters that a byte range touches: rounded outward (semantics 1.2)."""
        return slice(offset // granularity, ceil_div(offset + length, granularity))

    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        """A request over ``[offset, offset + length)`` completed on the node (1.2)."""
        if length == 0 or not bitmap.recording:
            return bitmap
        where = self.covered(bitmap.granularity, offset, length)
        if bitmap.successor is not None:
            return replace(bitmap, successor=self._set(bitmap.successor, where))
        return replace(bitmap, bits=self._set(bitmap.bits, where))

    def _set(self, bits: Bits, where: slice) -> Bits:
        new = bits.copy()
        new[where] = True
        return new

    def clear(self, bitmap: Bitmap) -> Bitmap:
        """``block-dirty-bitmap-clear`` (semantics 3)."""
        return replace(bitmap, bits=np.zeros_like(bitmap.bits))

    def enable(self, bitmap: Bitmap) -> Bitmap:
        """``block-dirty-bitmap-enable`` (semantics 3)."""
        return replace(bitmap, recording=True)

    def disable(self, bitmap: Bitmap) -> Bitmap:
        """``block-dirty-bitmap-disable`` (semantics 3)."""
        return replace(bitmap, recording=False)

    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        """Bits of granularity ``source`` seen at granularity ``target`` (semantics 3.1).

        A source bit covers its cluster clipped to the ``size`` of the node; every target
        cluster that this range touches is set.
        """
        if source == target:
            return bits
        if source < target:
            coarse = np.zeros(self.length(size, target), np.bool_)
            coarse[np.flatnonzero(bits) // (target // source)] = True
            return coarse
        return np.repeat(bits, source // target)[: self.length(size, target)]

    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        """``block-dirty-bitmap-merge``: the union, at the target's granularity (3.1)."""
        bits = target.bits
        for source in sources:
            bits = bits | self.project(source.bits, source.granularity, target.granularity, size)
        return replace(target, bits=bits)

    def occupy(self, bitmap: Bitmap) -> Bitmap:
        """Being removed: busy until the transaction commits (semantics 3.2)."""
        return replace(bitmap, busy=True)

    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        """The node now has ``size`` bytes: bits are cut off, new ones are clean (5.2)."""
        bits = np.zeros(self.length(size, bitmap.granularity), np.bool_)
        kept = min(len(bits), len(bitmap.bits))
        bits[:kept] = bitmap.bits[:kept]
        return replace(bitmap, bits=bits)
