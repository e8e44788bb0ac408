"""Reducing a sequence."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from qbprop.campaign.reduction import reduce


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
