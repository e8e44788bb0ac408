"""A shorter sequence that still shows something."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


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
