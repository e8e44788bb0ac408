"""A shorter sequence that still shows something."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeVar

from qbprop_model.operations import Operation

T = TypeVar("T")

_NAMES = ("node", "drive", "image", "backing", "name", "target", "bitmap", "job", "export")


def reduce(
    items: Sequence[T],
    shows: Callable[[Sequence[T]], bool],
    expired: Callable[[], bool] = lambda: False,
) -> tuple[T, ...]:
    """Drop items from a sequence that ``shows``, as long as it still does.

    Longer runs are tried before shorter ones. Unless time ``expired`` meanwhile, no single
    item of the result can be dropped.
    """
    kept = tuple(items)
    size = max(len(kept) // 2, 1)
    while kept:
        position, before = len(kept), len(kept)
        while position > 0:
            if expired():
                return kept
            start = max(position - size, 0)
            candidate = kept[:start] + kept[position:]
            if shows(candidate):
                kept = candidate
            position = start
        if size > 1:
            size //= 2
        elif len(kept) == before:
            break
    return kept


def related(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Shorter sequences that are worth a try at once, the shortest first.

    They hold what concerns nothing but the disks, bitmaps, images and jobs of the last operation;
    then also those that such an operation brings in, and theirs.
    """
    if not operations:
        return
    named = set(names(operations[-1]))
    size = len(operations)
    previous: tuple[Operation, ...] = ()
    while len(previous) < size:
        kept = tuple(each for each in operations if names(each) <= named)
        if len(kept) < size and kept != previous:
            yield kept
        touching = [each for each in operations if not named.isdisjoint(names(each))]
        wider = named.union(*map(names, touching))
        if wider == named:
            return
        named, previous = wider, kept


def names(value: object) -> frozenset[str]:
    """What an operation, or a part of one, names: disks, drives, images, bitmaps and jobs."""
    found: set[str] = set()
    if isinstance(value, tuple):
        return frozenset[str]().union(*map(names, value))
    if is_dataclass(value):
        for field in fields(value):
            part = getattr(value, field.name)
            if not isinstance(part, str):
                found |= names(part)
            elif field.name in _NAMES:
                found.add(part)
    return frozenset(found)
