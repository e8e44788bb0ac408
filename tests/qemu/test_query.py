"""What the state that QEMU shows says of its jobs."""

from typing import Any

import pytest

from qbprop.qemu.query import has_copied, in_hand


def job(copied: int, status: str = "running") -> dict[str, Any]:
    progress = {"total-progress": 10, "current-progress": copied}
    return {"id": "job0", "status": status, **progress}


def node(count: int, where: str = "drive0", **more: Any) -> dict[str, Any]:
    return {"node-name": where, "dirty-bitmaps": [{"count": count, "recording": False, **more}]}


def of_filter(*counts: int) -> dict[str, Any]:
    """A filter that has the copy bitmap, too, behind its own."""
    bitmaps = [{"count": count, "recording": False} for count in counts]
    return {"node-name": "#block123", "dirty-bitmaps": bitmaps}


@pytest.mark.parametrize(
    ("jobs", "nodes", "bytes_in_hand"),
    [
        ([job(1)], [node(9)], 0),
        ([job(1)], [node(7)], 2),
        ([job(1), job(4)], [node(9), node(6, "drive1")], 0),
        ([job(1), job(3, "concluded")], [node(9)], 0),
        ([job(1)], [node(9), node(5, "filter0")], 0),
        ([job(1)], [node(0) | {"dirty-bitmaps": []}, of_filter(10, 0, 7)], 2),
        ([job(1)], [node(9), node(5, "drive1", name="bitmap0")], 0),
        ([job(1)], [node(9), node(5, "drive1") | {"dirty-bitmaps": []}], 0),
    ],
)
def test_what_is_in_hand_is_neither_copied_nor_waiting(
    jobs: list[dict[str, Any]], nodes: list[dict[str, Any]], bytes_in_hand: int
) -> None:
    assert in_hand(jobs, nodes) == bytes_in_hand


def test_a_job_that_has_copied_shows_progress() -> None:
    assert has_copied("job0", [job(1)])
    assert not has_copied("job0", [job(0)])
    assert not has_copied("job1", [job(1)])
