"""Guest-visible bytes of a disk or image against what they must be, sparse and of any size."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from qbprop.qemu.guest import TRANSFER_LIMIT, Source
from qbprop.qemu.images import data_extents
from qbprop_model.data import Bytes
from qbprop_model.expectation import Contents

CHUNK = 1 << 22
"""Bytes compared at once."""

assert CHUNK <= TRANSFER_LIMIT

SHOWN = 32
"""Bytes shown of a difference."""

RANGES_LIMIT = 100
"""Differing ranges are counted up to this number; then the comparison stops."""


@dataclass(frozen=True)
class Difference:
    """The first place where contents differ, in bytes, with up to SHOWN bytes from there on.

    ``ranges``: how many ranges differ in all, at most RANGES_LIMIT. Where the sizes differ,
    ``offset`` is the smaller one and ``expected`` and ``observed`` are empty.
    """

    offset: int
    expected: bytes
    observed: bytes
    ranges: int
    expected_size: int
    observed_size: int
    origin: int | None = None

    def __str__(self) -> str:
        """One line."""
        if self.expected_size != self.observed_size:
            return f"size {self.observed_size}, expected {self.expected_size}"
        return (
            f"at byte {self.offset}: {self.observed.hex()}, expected {self.expected.hex()} "
            f"({self.ranges} differing ranges)"
        )


class RawFile:
    """A sparse raw file as a source; a ``scratch`` file is deleted when it is left."""

    def __init__(self, path: Path, *, scratch: bool = False) -> None:
        self._path = path
        self._scratch = scratch
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> Self:
        """The source itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, and delete it if that is due."""
        os.close(self._descriptor)
        if self._scratch:
            self._path.unlink()

    def data_extents(self) -> Iterable[tuple[int, int]]:
        """The file's ranges that are not holes."""
        return data_extents(self._descriptor, self.size)

    def read(self, offset: int, length: int) -> Bytes:
        """The bytes of a range."""
        return np.frombuffer(os.pread(self._descriptor, length, offset), np.uint8)


def first_difference(source: Source, expected: Contents) -> Difference | None:
    """Compare all that was ever written, and all that the source does not call zero.

    What lies outside both is zero by the model's and by QEMU's own account. Raises
    RequestRefused when the source cannot be read, and the gone exceptions.
    """
    size = source.size
    if size != expected.size:
        return Difference(min(size, expected.size), b"", b"", 1, expected.size, size)
    first: Difference | None = None
    ranges, end_of_last = 0, -1
    for start, end in _chunks(_union([*expected.written(), *source.data_extents()])):
        want, got = expected.render(start, end - start), source.read(start, end - start)
        if np.array_equal(want, got):
            continue
        wrong = np.flatnonzero(want != got)
        begins = np.flatnonzero(np.diff(wrong, prepend=-2) != 1)
        joined = bool(start + wrong[0] == end_of_last)
        ranges = min(ranges + len(begins) - joined, RANGES_LIMIT)
        end_of_last = start + int(wrong[-1]) + 1
        if first is None:
            at = int(wrong[0])
            shown = slice(at, at + SHOWN)
            first = Difference(
                start + at,
                want[shown].tobytes(),
                got[shown].tobytes(),
                ranges,
                size,
                size,
                expected.origin(start + at),
            )
        if ranges == RANGES_LIMIT:
            break
    if first is None:
        return None
    return Difference(
        first.offset, first.expected, first.observed, ranges, size, size, first.origin
    )


def _union(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges (start, end) merged where they meet, ascending, without empty ones."""
    current: tuple[int, int] | None = None
    for start, end in sorted(each for each in ranges if each[0] < each[1]):
        if current is not None and start <= current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (start, end)
    if current is not None:
        yield current


def _chunks(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        for position in range(start, end, CHUNK):
            yield position, min(position + CHUNK, end)
