"""Ranges and units. All numbers are bytes."""

from collections.abc import Iterator

from qbprop_model.bitmap import ceil_div
from qbprop_model.ranges import Ranges


def outward(unit: int, start: int, end: int) -> tuple[int, int]:
    """The smallest range of whole units that holds ``[start, end)``."""
    return start // unit * unit, ceil_div(end, unit) * unit


def clusters(size: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The clusters of ``size`` that ``[start, end)`` touches, one by one."""
    for s in range(start // size * size, end, size):
        yield s, s + size


def units(size: int, ranges: Ranges) -> Iterator[tuple[int, int]]:
    """The units of ``size`` from the start of each range on, one by one, cut off at its end."""
    for start, end in ranges:
        for s in range(start, end, size):
            yield s, min(s + size, end)


def pieces(unit: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The head inside a unit, the whole units, the tail inside a unit."""
    first = min(ceil_div(start, unit) * unit, end)
    last = max(end // unit * unit, first)
    for s, e in ((start, first), (first, last), (last, end)):
        if s < e:
            yield s, e
