"""Reducing a sequence."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from qbprop.campaign.reduction import reduce, related
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapMerge,
    Layer,
    MergeSource,
    Write,
)


@given(st.lists(st.integers(0, 30), unique=True), st.sets(st.integers(0, 30)))
def test_exactly_what_is_needed_remains(items: list[int], needed: set[int]) -> None:
    def shows(some: Sequence[int]) -> bool:
        return needed <= set(some)

    if shows(items):
        assert reduce(items, shows) == tuple(item for item in items if item in needed)


@given(st.lists(st.integers(0, 9), min_size=1))
def test_no_single_item_can_be_dropped_where_they_stand_for_each_other(items: list[int]) -> None:
    limit = sum(items) // 2

    def shows(some: Sequence[int]) -> bool:
        return sum(some) >= limit

    kept = reduce(items, shows)
    assert shows(kept)
    assert not any(shows(kept[:i] + kept[i + 1 :]) for i in range(len(kept)))


def test_an_expired_time_leaves_what_was_reached() -> None:
    calls = 0

    def expired() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    kept = reduce(range(100), lambda some: 0 in some, expired)
    assert 0 in kept
    assert 1 < len(kept) < 100


def test_what_is_related_to_the_last_operation_is_tried_first() -> None:
    disks = [AddDisk(node=f"drive{i}", layers=(Layer(size=65536),)) for i in range(3)]
    bitmap = BitmapAdd(node="drive0", name="bitmap0")
    other = BitmapAdd(node="drive0", name="bitmap1")
    elsewhere = BitmapAdd(node="drive1", name="bitmap1")
    write = Write(node="drive0", offset=0, length=512, fill=1)
    merge = BitmapMerge(
        node="drive0", target="bitmap0", sources=(MergeSource(name="bitmap1", node="drive1"),)
    )
    clear = BitmapClear(node="drive0", name="bitmap0")
    trace = (*disks, bitmap, other, elsewhere, write, merge, clear)
    assert list(related(trace)) == [
        (disks[0], bitmap, write, clear),
        (disks[0], disks[1], bitmap, other, elsewhere, write, merge, clear),
    ]
    assert list(related((disks[0], bitmap))) == []
    assert list(related(())) == []
