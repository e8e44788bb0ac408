"""RangeMap against a list with one value for every byte."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.model.compare import checked

from qbprop_model.rangemap import RangeMap

SIZE = 24
values = st.integers(0, 3)
edges = st.integers(0, SIZE + 4)
spans = st.tuples(edges, edges, values)


def build(size: int, changes: list[tuple[int, int, int]]) -> tuple[RangeMap[int], list[int]]:
    ranges, plain = RangeMap(size, 0), [0] * size
    for start, end, value in changes:
        ranges = ranges.assign(start, end, value)
        for at in range(start, min(end, size)):
            plain[at] = value
    return ranges, plain


def expand(ranges: RangeMap[int]) -> list[int]:
    return [value for start, end, value in ranges.runs() for _ in range(start, end)]


maps = st.builds(build, st.integers(0, SIZE), st.lists(spans, max_size=8))
small = checked(100)


@small
@given(maps)
def test_assigning_ranges_is_assigning_bytes(pair: tuple[RangeMap[int], list[int]]) -> None:
    ranges, plain = pair
    assert expand(ranges) == plain
    assert [ranges.at(offset) for offset in range(len(plain))] == plain


@small
@given(maps)
def test_runs_are_as_long_as_they_can_be(pair: tuple[RangeMap[int], list[int]]) -> None:
    ranges, plain = pair
    changes = sum(a != b for a, b in pairwise(plain))
    assert len(list(ranges.runs())) == (changes + 1 if plain else 0)


@small
@given(maps, edges, edges)
def test_a_part_of_the_runs_is_a_slice(
    pair: tuple[RangeMap[int], list[int]], start: int, end: int
) -> None:
    ranges, plain = pair
    runs = list(ranges.runs(start, end))
    assert [v for s, e, v in runs for _ in range(s, e)] == plain[start:end]
    assert all(start <= s < e <= end for s, e, _ in runs)


@small
@given(maps, edges, edges)
def test_replacing_changes_the_values_of_a_slice(
    pair: tuple[RangeMap[int], list[int]], start: int, end: int
) -> None:
    ranges, plain = pair
    expected = [3 - v if start <= at < end else v for at, v in enumerate(plain)]
    assert expand(ranges.replace(start, end, lambda value: 3 - value)) == expected
    assert expand(ranges) == plain, "a map never changes"


@small
@given(maps, st.lists(spans, max_size=5))
def test_pasting_is_assigning_in_order(
    pair: tuple[RangeMap[int], list[int]], changes: list[tuple[int, int, int]]
) -> None:
    ranges, plain = pair
    for start, end, value in changes:
        plain[start : max(end, start)] = [value] * len(plain[start : max(end, start)])
    assert expand(ranges.paste(changes)) == plain


@small
@given(maps, st.integers(0, SIZE + 8), values)
def test_resizing_cuts_off_or_goes_on(
    pair: tuple[RangeMap[int], list[int]], size: int, value: int
) -> None:
    ranges, plain = pair
    resized = ranges.resized(size, value)
    assert expand(resized) == (plain + [value] * size)[:size]
    assert resized.size == size
