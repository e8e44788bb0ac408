"""What a guest writes: data described by a number, turned into bytes on demand.

A payload is never stored. A :class:`Fill` repeats one byte. A :class:`Stamp` gives every
sector of the disk its own bytes, computed from the stamp and the *absolute* sector number,
so that data from another write, another place or another time is told apart.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

SECTOR = 512
"""Bytes per sector, the unit in which stamped data differs."""

_WORDS = SECTOR // 8
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Fill:
    """Every byte has the value ``byte`` (0..255)."""

    byte: int

    def render(self, offset: int, length: int) -> Bytes:
        """The ``length`` bytes that lie at byte ``offset`` of a disk holding this data."""
        return np.full(length, self.byte, np.uint8)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Every sector has bytes of its own, derived from ``number`` and the sector's place.

    Even numbers repeat one 8-byte word through the sector (such data compresses); odd
    numbers give pseudo-random bytes (which do not compress).
    """

    number: int

    def render(self, offset: int, length: int) -> Bytes:
        """The ``length`` bytes that lie at byte ``offset`` of a disk holding this data."""
        if length == 0:
            return np.empty(0, np.uint8)
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        seed = np.uint64(self.number * _GOLDEN % 2**64)
        if self.number % 2:
            words = _mix(np.arange(first * _WORDS, (last + 1) * _WORDS, dtype=np.uint64) + seed)
        else:
            words = _mix(np.arange(first, last + 1, dtype=np.uint64) + seed).repeat(_WORDS)
        whole = words.astype("<u8", copy=False).view(np.uint8)
        start = offset - first * SECTOR
        return whole[start : start + length]


Data = Fill | Stamp


def all_zero(data: Data, offset: int, length: int) -> bool:
    """Whether ``length`` bytes of this data at byte ``offset`` are all zero."""
    if isinstance(data, Fill):
        return data.byte == 0 or length == 0
    if data.render(offset, min(length, SECTOR)).any():
        return False
    return not data.render(offset, length).any()


ZERO = Fill(0)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit words in place, bijectively: the end of SplitMix64 (public domain)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x
