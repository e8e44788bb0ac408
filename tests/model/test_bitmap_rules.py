"""The rules of bitmaps, one by one, against sets of cluster numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.compare import checked
from tests.model.naive import NaiveBitmap

from qbprop_model.bitmap import BITS_LIMIT, Bitmap
from qbprop_model.operations import InvalidOperationError
from qbprop_model.rules import Rules

RULES = Rules()
SECTOR = 512
sizes = st.integers(0, 300).map(lambda n: n * SECTOR) | st.sampled_from(
    [64 * 64 * SECTOR, 64 * 64 * SECTOR + SECTOR, 2**31, 2**31 + SECTOR]
)
granularities = st.sampled_from([2**n for n in (9, 10, 12, 15, 16, 17, 20, 31)])
small = checked(60)


@st.composite
def requests(draw: st.DrawFn, size: int) -> tuple[int, int]:
    start = draw(st.integers(0, size))
    return start, draw(st.integers(0, min(size - start, 400 * SECTOR)))


def pair_of(size: int, granularity: int, *, disabled: bool = False) -> tuple[Bitmap, NaiveBitmap]:
    model = RULES.add(size, granularity, disabled=disabled)
    return model, NaiveBitmap(granularity, not disabled)


@st.composite
def pairs(draw: st.DrawFn, size: int) -> tuple[Bitmap, NaiveBitmap]:
    """The same bitmap twice, after the same requests."""
    granularity = draw(granularities.filter(lambda g: size // g < 2**13))
    model, naive = pair_of(size, granularity)
    for start, length in draw(st.lists(requests(size), max_size=5)):
        model = RULES.touch(model, start, length)
        naive.touch(start, length)
    return model, naive


def agree(model: Bitmap, naive: NaiveBitmap, size: int) -> None:
    assert len(model.bits) == naive.length(size)
    assert set(np.flatnonzero(model.bits).tolist()) == naive.dirty
    assert model.state == naive.state()
    assert model.digest == naive.digest(size)


@small
@given(sizes, granularities)
def test_a_bitmap_has_a_bit_for_every_cluster_begun(size: int, granularity: int) -> None:
    expected = sum(1 for _ in range(0, size, granularity))
    assert RULES.length(size, granularity) == expected


def test_a_bitmap_of_too_many_bits_is_not_followed() -> None:
    size = BITS_LIMIT * 65536
    assert RULES.length(size, 65536) == BITS_LIMIT
    with pytest.raises(InvalidOperationError, match="not followed"):
        RULES.length(size + 1, 65536)


def test_an_empty_disk_has_the_digest_of_one_zero_word() -> None:
    model, naive = pair_of(0, 512)
    agree(model, naive, 0)
    assert model.digest == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"


@small
@given(st.data(), sizes)
def test_requests_set_every_cluster_they_touch(data: st.DataObject, size: int) -> None:
    model, naive = data.draw(pairs(size))
    agree(model, naive, size)
    ranges = [(covered.start, covered.stop) for covered in naive.bytes_covered(size)]
    starts = {start for start, _ in ranges}
    ends = {end for _, end in ranges}
    joined = sorted(starts ^ ends)
    assert [edge for found in model.dirty_ranges(size) for edge in found] == joined


@small
@given(st.data(), sizes)
def test_a_disabled_bitmap_sees_no_request(data: st.DataObject, size: int) -> None:
    model, naive = data.draw(pairs(size))
    start, length = data.draw(requests(size))
    model, naive.recording = RULES.disable(model), False
    agree(RULES.touch(model, start, length), naive, size)
    model, naive.recording = RULES.enable(model), True
    naive.touch(start, length)
    agree(RULES.touch(model, start, length), naive, size)


@small
@given(st.data(), sizes)
def test_clearing_leaves_nothing_but_the_flags(data: st.DataObject, size: int) -> None:
    model, naive = data.draw(pairs(size))
    naive.dirty, naive.recording = set(), False
    agree(RULES.clear(RULES.disable(model)), naive, size)


@small
@given(st.data(), sizes)
def test_merging_projects_every_granularity_on_every_other(data: st.DataObject, size: int) -> None:
    model, naive = data.draw(pairs(size))
    others = data.draw(st.lists(pairs(size), max_size=3))
    for _, other in others:
        naive.merge(other, size)
    agree(RULES.merge(model, [other for other, _ in others], size), naive, size)


@small
@given(st.data(), sizes, sizes, sizes)
def test_resizing_forgets_what_is_past_the_end(
    data: st.DataObject, size: int, first: int, second: int
) -> None:
    model, naive = data.draw(pairs(size))
    if max(first, second) // naive.granularity < 2**13:
        for new in (first, second):
            model = RULES.resize_bitmap(model, new)
            naive.resize(new)
            agree(model, naive, new)


@small
@given(st.data(), sizes)
def test_a_job_freezes_a_bitmap_and_the_table_says_what_it_becomes(
    data: st.DataObject, size: int
) -> None:
    frozen, naive = data.draw(pairs(size))
    disabled = data.draw(st.booleans())
    written = data.draw(st.lists(requests(size), max_size=3))
    if disabled:
        frozen, naive.recording = RULES.disable(frozen), False
    before = set(naive.dirty)
    frozen = RULES.freeze(frozen)
    for start, length in written:
        frozen = RULES.touch(frozen, start, length)
    assert frozen.busy
    assert set(np.flatnonzero(frozen.bits).tolist()) == before
    g = naive.granularity
    since = {
        cluster
        for start, length in written
        for cluster in range(start // g, (start + length - 1) // g + 1)
        if length and not disabled
    }
    table = {
        ("on-success", False): since,
        ("on-success", True): before | since,
        ("never", False): before | since,
        ("never", True): before | since,
        ("always", False): since,
    }
    for (mode, failed), dirty in table.items():
        thawed = RULES.thaw(frozen, mode, failed=failed)  # type: ignore[arg-type]
        naive.dirty = dirty
        agree(thawed, naive, size)


def test_granularities_are_powers_of_two_from_512_to_2_gib() -> None:
    accepted = [g for g in range(4097) if RULES.granularity_accepted(g)]
    assert accepted == [512, 1024, 2048, 4096]
    assert RULES.granularity_accepted(2**31)
    assert not RULES.granularity_accepted(2**31 + 512)


def test_default_granularities_are_those_of_the_table() -> None:
    table = {512: 4096, 1024: 4096, 2048: 4096, 4096: 4096, 8192: 8192, 65536: 65536}
    table |= {2**17: 65536, 2**21: 65536}
    assert {cluster: RULES.default_granularity(cluster) for cluster in table} == table
    assert RULES.default_granularity(None) == 65536
