"""Sets of bytes, as ascending ranges ``(start, end)`` that neither meet nor overlap."""

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]


def total(ranges: Ranges) -> int:
    """The number of bytes."""
    return sum(end - start for start, end in ranges)


def within(ranges: Ranges, start: int, end: int) -> Ranges:
    """The part of a set that lies in ``[start, end)``."""
    cut = ((max(s, start), min(e, end)) for s, e in ranges)
    return tuple((s, e) for s, e in cut if s < e)


def minus(ranges: Ranges, start: int, end: int) -> Ranges:
    """The set without ``[start, end)``."""
    if not ranges or start >= end:
        return ranges
    first, last = ranges[0][0], ranges[-1][1]
    return (*within(ranges, first, start), *within(ranges, end, last))


def plus(ranges: Ranges, start: int, end: int) -> Ranges:
    """The set with ``[start, end)``."""
    return joined(sorted((*ranges, (start, end)))) if start < end else ranges


def joined(ascending: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order of their starts, those that meet or overlap made one."""
    found: list[tuple[int, int]] = []
    for start, end in ascending:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)
