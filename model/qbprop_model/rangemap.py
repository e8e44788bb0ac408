"""An immutable map from the bytes of a disk to values, stored as runs.

A disk of any size costs as much as it has runs: a 16 TiB disk with ten touched clusters is a
few dozen entries. Every change returns a new map, so a snapshot is a reference.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class RangeMap(Generic[T]):
    """Values for every byte in ``[0, size)``; equal neighbours share one run."""

    __slots__ = ("_starts", "_values", "size")

    def __init__(self, size: int, value: T) -> None:
        self.size = size
        self._starts: list[int] = [0] if size else []
        self._values: list[T] = [value] if size else []

    @classmethod
    def _of(cls, size: int, runs: Iterable[tuple[int, T]]) -> "RangeMap[T]":
        new: RangeMap[T] = cls.__new__(cls)
        new.size = size
        new._starts, new._values = [], []
        for start, value in runs:
            if not new._values or new._values[-1] != value:
                new._starts.append(start)
                new._values.append(value)
        return new

    def runs(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, T]]:
        """The runs ``(start, end, value)`` that make up ``[start, end)``, clipped to the map."""
        end = self.size if end is None else min(end, self.size)
        i = max(bisect_right(self._starts, start) - 1, 0)
        while start < end:
            stop = self._starts[i + 1] if i + 1 < len(self._starts) else self.size
            yield start, min(stop, end), self._values[i]
            start, i = stop, i + 1

    def at(self, offset: int) -> T:
        """The value of the byte at ``offset``."""
        return self._values[bisect_right(self._starts, offset) - 1]

    def assign(self, start: int, end: int, value: T) -> "RangeMap[T]":
        """A map in which ``[start, end)``, clipped to the map, has ``value``."""
        end = min(end, self.size)
        if start >= end:
            return self
        i = bisect_left(self._starts, start)
        j = bisect_right(self._starts, end) - 1
        starts, values = self._starts[:i], self._values[:i]
        if not values or values[-1] != value:
            starts.append(start)
            values.append(value)
        if end < self.size:
            after = self._values[j]
            if after != value:
                starts.append(end)
                values.append(after)
            starts += self._starts[j + 1 :]
            values += self._values[j + 1 :]
        new: RangeMap[T] = RangeMap.__new__(RangeMap)
        new.size, new._starts, new._values = self.size, starts, values
        return new

    def paste(self, runs: Iterable[tuple[int, int, T]]) -> "RangeMap[T]":
        """A map with every run of ``runs`` assigned, in order."""
        new = self
        for start, end, value in runs:
            new = new.assign(start, end, value)
        return new

    def replace(self, start: int, end: int, change: Callable[[T], T]) -> "RangeMap[T]":
        """A map in which every value in ``[start, end)`` went through ``change``."""
        return self.paste([(s, e, change(v)) for s, e, v in self.runs(start, end)])

    def resized(self, size: int, value: T) -> "RangeMap[T]":
        """A map of another size: cut off, or continued with ``value``."""
        kept = [(s, v) for s, _, v in self.runs(0, size)]
        if size > self.size:
            kept.append((self.size, value))
        return RangeMap._of(size, kept)
