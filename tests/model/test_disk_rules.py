"""The rules of disks: every kind of layer, over every kind of backing file, rule by rule."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.compare import checked, compare
from tests.model.strategies import BELOW, KIB, KINDS, disk, disk_sequences

from qbprop_model.data import Stamp
from qbprop_model.operations import (
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)

COMBINATIONS = [(a, b) for a in KINDS for b in BELOW if a != "raw" or b == "alone"]


@pytest.mark.parametrize(("kind", "below"), COMBINATIONS)
@checked(12)
@given(st.data())
def test_requests_and_resizes(kind: str, below: str, data: st.DataObject) -> None:
    compare(data.draw(disk_sequences(kind, below)))


@pytest.mark.parametrize(
    ("size", "start", "survivors"),
    [(100 * KIB, 96 * KIB, None), (99 * KIB, 96 * KIB, 100 * KIB), (98 * KIB, 64 * KIB, None)],
)
def test_ghosts_of_extended_l2(size: int, start: int, survivors: int | None) -> None:
    """Section 5.3's example, and a whole last cluster zeroed from its start (seen on 7.2)."""
    compare(
        [
            disk("extended-64k", "alone", 128 * KIB, discard="unmap"),
            Write(node="drive0", offset=0, length=128 * KIB, fill=7),
            Resize(node="drive0", size=size),
            WriteZeroes(node="drive0", offset=start, length=size - start),
            Resize(node="drive0", size=128 * KIB),
            Read(node="drive0", offset=survivors or size, length=28 * KIB),
        ]
    )


def test_a_zeroed_byte_takes_the_last_cluster_along() -> None:
    """Where its subcluster is the last of the disk and the first of the cluster (seen on all)."""
    last = 64 * KIB
    compare(
        [
            disk("extended-64k", "alone", last + 2 * KIB),
            WriteZeroes(node="drive0", offset=last + 1, length=1),
            Resize(node="drive0", size=last + 8 * KIB),
        ]
    )


def test_zeroes_over_holes_of_a_raw_file_stay_open() -> None:
    """Seen on 7.2: over a hole the cluster is flagged as zero, and may be compressed onto."""
    performed = compare(
        [
            disk("v3-64k", "raw", 128 * KIB),
            WriteZeroes(node="drive0", offset=64 * KIB, length=512),
            WriteZeroes(node="drive0", offset=64 * KIB + 512, length=512),
            WriteCompressed(node="drive0", offset=64 * KIB, length=64 * KIB, fill=1),
        ]
    )
    assert performed == 3


def test_stamped_data_that_is_all_zero_is_detected() -> None:
    assert not Stamp(0).render(0, 512).any()
    whole: dict[str, Any] = {"node": "drive0", "offset": 0, "length": 64 * KIB}
    performed = compare(
        [
            disk("v3-64k", "alone", 128 * KIB, detect_zeroes="on"),
            Write(node="drive0", offset=0, length=512, stamp=0),
            WriteCompressed(**whole, fill=7),
            WriteCompressed(**whole, fill=7),
        ]
    )
    assert performed == 4
