"""The rules of disks: every kind of layer, over every kind of backing file, rule by rule."""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbprop_model.data import Stamp
from qbprop_model.operations import (
    AddDisk,
    Layer,
    Operation,
    Pattern,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from tests.model.compare import compare
from tests.model.strategies import KIB, SIZES, guest_requests

KINDS: dict[str, dict[str, Any]] = {
    "v3-512": {"cluster_size": 512},
    "v3-4k": {"cluster_size": 4096},
    "v3-64k": {"cluster_size": 64 * KIB},
    "v2-4k": {"cluster_size": 4096, "compat": "0.10"},
    "v2-64k": {"cluster_size": 64 * KIB, "compat": "0.10"},
    "extended-16k": {"cluster_size": 16 * KIB, "extended_l2": True},
    "extended-64k": {"cluster_size": 64 * KIB, "extended_l2": True},
    "raw": {"format": "raw"},
}
BELOW: dict[str, tuple[Layer, ...]] = {
    "alone": (),
    "shorter": (Layer(size=40 * KIB, data=(Pattern(offset=512, length=30 * KIB, fill=9),)),),
    "longer": (Layer(size=256 * KIB, data=(Pattern(offset=0, length=256 * KIB, stamp=9),)),),
    "raw": (Layer(size=150 * KIB, format="raw", data=(Pattern(offset=0, length=9000, fill=9),)),),
}
COMBINATIONS = [(a, b) for a in KINDS for b in BELOW if a != "raw" or b == "alone"]


def disk(kind: str, below: str, size: int, **options: Any) -> AddDisk:
    return AddDisk(node="drive0", layers=(Layer(size=size, **KINDS[kind]), *BELOW[below]), **options)


@pytest.mark.parametrize(("kind", "below"), COMBINATIONS)
@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.data())
def test_requests_and_resizes(kind: str, below: str, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES[1:]))
    discard: Literal["unmap", "ignore"] = data.draw(st.sampled_from(["unmap", "unmap", "ignore"]))
    found: list[Operation] = [disk(kind, below, size, discard=discard)]
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.integers(0, 4)) == 4:
            size = data.draw(st.sampled_from(SIZES))
            found.append(Resize(node="drive0", size=size))
        else:
            found.append(data.draw(guest_requests("drive0", size)))
    compare(found)


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
