"""Jobs in flight: what the model says of them, against numbers worked out by hand (6.2 to 6.7)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbprop_model.expectation import NOISE, Anonymous, JobEnd, JobState, Reason
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapMode,
    BlockdevBackup,
    CreateImage,
    Discard,
    DriveBackup,
    InvalidOperationError,
    JobCancel,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    Layer,
    OpenOutcomeError,
    Operation,
    Pattern,
    Read,
    Resize,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.ranges import joined, minus, plus, total, within
from qbprop_model.world import World

KIB = 1024
CLUSTER = 64 * KIB
SIZE = 10 * CLUSTER
HELD: dict[str, Any] = {"speed": 1, "max_workers": 1, "max_chunk": CLUSTER}


def after(*operations: Operation) -> World:
    """A World with a disk full of data, a fine bitmap and a target, behind some operations."""
    data = (Pattern(offset=0, length=SIZE, stamp=1),)
    world = World()
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE, data=data),), drive="device0"),
        BitmapAdd(node="drive0", name="b", granularity=4096),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        *operations,
    ):
        assert world.apply(operation).refusal is None
    return world


def write(cluster: int, length: int = 512, stamp: int = 2) -> Write:
    return Write(node="drive0", offset=cluster * CLUSTER, length=length, stamp=stamp)


def backup(**more: Any) -> BlockdevBackup:
    return BlockdevBackup(
        **({"sync": "incremental", "bitmap": "b"} | more), node="drive0", target="target0"
    )


def held(*operations: Operation, **more: Any) -> World:
    """Clusters 2, 4, 5 and 9 are dirty, and the job has copied the first of them."""
    return after(write(2), write(4, CLUSTER + 1), write(9), backup(**(HELD | more)), *operations)


def test_a_held_job_has_copied_its_first_cluster() -> None:
    world = held()
    assert world.jobs["job0"].left == ((4 * CLUSTER, 6 * CLUSTER), (9 * CLUSTER, 10 * CLUSTER))
    expected = world.apply(JobSetSpeed(job="job0", speed=1))
    assert expected.alive == {"job0": JobState("running", 4 * CLUSTER, CLUSTER)}
    assert expected.opened == ("target0",)
    state = expected.bitmaps["drive0"]["b"]
    assert (state.busy, state.recording, state.count) == (True, True, 4096 * (1 + 17 + 1))


def test_sync_top_is_held_with_the_first_allocated_cluster_copied() -> None:
    world = World()
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE), Layer(size=SIZE))),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        write(3),
        write(7),
        backup(sync="top", bitmap=None, **HELD),
    ):
        assert world.apply(operation).refusal is None
    assert world.final().alive == {"job0": JobState("running", 2 * CLUSTER, CLUSTER)}
    assert world.jobs["job0"].left == ((7 * CLUSTER, 8 * CLUSTER),)


def test_the_bitmaps_without_a_name() -> None:
    expected = held(filter="filter1").apply(write(4))
    assert expected.anonymous == tuple(
        sorted(
            [
                Anonymous("drive0", 4096, 4096, recording=True),
                Anonymous("drive0", CLUSTER, 2 * CLUSTER, recording=False),
                Anonymous("filter1", CLUSTER, SIZE, recording=False),
                Anonymous("filter1", CLUSTER, CLUSTER, recording=False),
            ]
        )
    )


def test_a_write_is_copied_before_and_the_target_keeps_the_moment_of_the_start() -> None:
    world = held(write(5, stamp=9))
    assert world.jobs["job0"].left == ((4 * CLUSTER, 5 * CLUSTER), (9 * CLUSTER, 10 * CLUSTER))
    seen = world.apply(Read(node="target0", offset=5 * CLUSTER, length=512)).data
    now = world.apply(Read(node="drive0", offset=5 * CLUSTER, length=512)).data
    assert seen is not None
    assert now is not None
    assert (
        seen.tolist()
        == write(4, stamp=2).data.render(5 * CLUSTER, 1).tolist()
        + Pattern(offset=0, length=SIZE, stamp=1).data.render(5 * CLUSTER + 1, 511).tolist()
    )
    assert now.tolist() == write(5, stamp=9).data.render(5 * CLUSTER, 512).tolist()


def test_a_write_of_nothing_takes_its_job_cluster_along_only_within_one() -> None:
    aligned = held(Write(node="drive0", offset=5 * CLUSTER, length=0, fill=1))
    assert aligned.jobs["job0"].offset == CLUSTER
    within_one = held(Write(node="drive0", offset=5 * CLUSTER + 1, length=0, fill=1))
    assert within_one.jobs["job0"].offset == 2 * CLUSTER


def test_a_discard_beside_a_job_changes_nothing() -> None:
    world = held()
    expected = world.apply(Discard(node="drive0", offset=0, length=SIZE))
    assert expected.digests == {}
    assert world.jobs["job0"].offset == CLUSTER


@pytest.mark.parametrize(
    ("mode", "ended", "dirty"),
    [
        ("on-success", "done", {80}),
        ("never", "done", {32, *range(64, 81), 144}),
        ("always", "done", {80}),
        ("on-success", "cancelled", {32, *range(64, 81), 144}),
        ("never", "cancelled", {32, *range(64, 81), 144}),
        ("always", "cancelled", {*range(64, 96), *range(144, 160)}),
    ],
)
def test_the_table_of_outcomes(mode: BitmapMode, ended: str, dirty: set[int]) -> None:
    """Of the 16 bits of each job cluster (6.3); a guest writes the first of cluster 5."""
    world = held(sync="bitmap", bitmap_mode=mode)
    if mode == "always" and ended == "cancelled":
        # Cluster 5 is left as well: a write there would have it copied.
        dirty = dirty | {32}
        world.apply(write(2))
    else:
        world.apply(write(5))
    expected = world.apply(
        JobSetSpeed(job="job0") if ended == "done" else JobCancel(job="job0", block=True)
    )
    assert expected.alive == {}
    bits = world.nodes["drive0"].bitmaps["b"].bits
    assert set(np.flatnonzero(bits).tolist()) == dirty


def test_guests_that_copy_the_rest_end_the_job() -> None:
    world = held()
    expected = world.apply(write(0, SIZE))
    assert expected.words == {
        "job0": (NOISE, "waiting", "pending", "COMPLETED", "concluded", "null")
    }
    assert expected.jobs == {"job0": JobEnd(4 * CLUSTER, 4 * CLUSTER, speed=1)}
    assert set(expected.contents) == {"target0"}


def test_zeroes_that_end_a_job_still_meet_its_filter_which_unmaps_nothing() -> None:
    zeroes = WriteZeroes(node="drive0", offset=0, length=SIZE, unmap=True)
    world = held(zeroes)
    assert not world.jobs
    assert all(hosted for _, _, hosted in world.images["drive0.0"].hosted.runs())
    alone = after(zeroes)
    assert not any(hosted for _, _, hosted in alone.images["drive0.0"].hosted.runs())


def test_a_paused_job_ends_when_it_is_resumed_with_nothing_left() -> None:
    world = held(JobPause(job="job0"))
    assert world.apply(write(0, SIZE)).words == {"job0": ()}
    expected = world.apply(JobResume(job="job0", block=True))
    assert expected.words["job0"][:3] == ("running", NOISE, "waiting")


def test_a_pending_job_keeps_its_bitmap_until_it_is_finalized() -> None:
    world = after(write(2), backup(auto_finalize=False, auto_dismiss=False))
    expected = world.apply(write(3))
    assert expected.alive["job0"] == JobState("pending", CLUSTER, CLUSTER)
    assert expected.bitmaps["drive0"]["b"].busy
    expected = world.apply(JobFinalize(job="job0"))
    assert expected.alive["job0"].status == "concluded"
    assert expected.bitmaps["drive0"]["b"].count == 4096
    assert not expected.bitmaps["drive0"]["b"].busy
    assert world.apply(JobDismiss(job="job0")).words == {"job0": ("null",)}


def test_cancelling_what_is_pending_leaves_nothing_uncopied() -> None:
    world = after(
        write(2), backup(sync="bitmap", bitmap_mode="always", auto_finalize=False), write(7)
    )
    world.apply(JobCancel(job="job0"))
    assert np.flatnonzero(world.nodes["drive0"].bitmaps["b"].bits).tolist() == [112]


def test_sync_none_copies_only_what_guests_come_upon_and_never_ends() -> None:
    world = after(backup(sync="none", bitmap=None))
    assert world.apply(write(1)).alive == {"job0": JobState("running", SIZE, CLUSTER)}
    assert world.apply(write(0, SIZE)).alive == {"job0": JobState("running", SIZE, SIZE)}
    assert world.apply(JobCancel(job="job0")).jobs["job0"].error is Reason.JOB_CANCELLED


def test_a_drive_name_means_the_filter_and_its_bitmaps_go_with_the_job() -> None:
    world = held(BitmapAdd(node="device0", name="f", granularity=CLUSTER), filter="filter0")
    expected = world.apply(write(3))
    assert expected.bitmaps["filter0"]["f"].count == CLUSTER
    refused = world.apply(BitmapClear(node="device0", name="b")).refusal
    assert refused is not None
    assert refused.reason is Reason.BITMAP_NOT_FOUND
    assert set(world.apply(JobSetSpeed(job="job0")).bitmaps) == {"drive0"}
    assert world.apply(BitmapClear(node="device0", name="b")).refusal is None


def test_a_bitmap_of_a_filter_that_cannot_be_named_makes_no_sense() -> None:
    with pytest.raises(InvalidOperationError):
        held().apply(BitmapAdd(node="device0", name="f"))


@pytest.mark.parametrize(
    ("node", "reason"),
    [("drive0", Reason.PERMISSION_DENIED), ("device0", Reason.DEVICE_IN_USE)],
)
def test_no_resize_beside_a_job(node: str, reason: Reason) -> None:
    refused = held().apply(Resize(node=node, size=SIZE)).refusal
    assert refused is not None
    assert refused.reason is reason


def test_only_the_filter_on_top_is_written_to_compressed() -> None:
    world = held(CreateImage(image="target1", layer=Layer(size=SIZE)), filter="filter0")
    more: dict[str, Any] = {"mode": "existing", "job": "job1", "filter": "filter1"}
    second = DriveBackup(node="drive0", target="target1", sync="none", **more)
    assert world.apply(second).refusal is None
    due = {"filter0": Reason.NOT_SUPPORTED}
    for node in ("filter0", "filter1", "drive0"):
        write = WriteCompressed(node=node, offset=0, length=CLUSTER, fill=1)
        refused = world.apply(write).refusal
        assert refused is not None
        assert refused.reason is due.get(node, Reason.PERMISSION_DENIED)


def group(**second: Any) -> World:
    """A held backup of drive0, and one of drive1 that has everything copied, as one group."""
    world = after(
        write(2),
        write(4),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BitmapAdd(node="drive1", name="c"),
        Write(node="drive1", offset=0, length=1, fill=1),
        CreateImage(image="target1", layer=Layer(size=SIZE)),
    )
    other = BlockdevBackup(
        node="drive1", target="target1", sync="incremental", bitmap="c", job="job1", **second
    )
    started = world.apply(Transaction(actions=(backup(**HELD), other), grouped=True))
    assert {job: state.status for job, state in started.alive.items()} == {
        "job0": "running",
        "job1": "waiting",
    }
    return world


def test_a_group_ends_when_its_last_member_has_copied_all() -> None:
    expected = group().apply(JobSetSpeed(job="job0"))
    assert set(expected.jobs) == {"job0", "job1"}
    assert expected.alive == {}
    assert expected.bitmaps["drive1"]["c"].count == 0


def test_one_member_that_needs_finalizing_keeps_the_whole_group_pending() -> None:
    world = group(auto_finalize=False)
    expected = world.apply(JobSetSpeed(job="job0"))
    assert {state.status for state in expected.alive.values()} == {"pending"}
    assert world.apply(JobFinalize(job="job0")).alive == {}


def test_one_member_that_is_cancelled_takes_the_group_with_it() -> None:
    expected = group().apply(JobCancel(job="job1"))
    assert {end.error for end in expected.jobs.values()} == {Reason.JOB_CANCELLED}
    assert expected.bitmaps["drive1"]["c"].count == CLUSTER
    assert expected.bitmaps["drive0"]["b"].count == 2 * 4096


@pytest.mark.parametrize("more", [{"speed": 1}, {"sync": "top", "speed": 1}, HELD | {"speed": 100}])
def test_what_would_hang_on_timing_is_open(more: dict[str, Any]) -> None:
    with pytest.raises(OpenOutcomeError):
        after(write(2)).apply(backup(**({"sync": "full", "bitmap": None} | more)))


@st.composite
def byte_sets(draw: st.DrawFn) -> set[int]:
    return draw(st.sets(st.integers(0, 40), max_size=30))


def ranges_of(members: set[int]) -> tuple[tuple[int, int], ...]:
    return joined((each, each + 1) for each in sorted(members))


@given(byte_sets(), st.integers(0, 41), st.integers(0, 41))
def test_ranges_are_sets(members: set[int], a: int, b: int) -> None:
    start, end = min(a, b), max(a, b)
    ranges, piece = ranges_of(members), set(range(start, end))
    assert total(ranges) == len(members)
    assert within(ranges, start, end) == ranges_of(members & piece)
    assert minus(ranges, start, end) == ranges_of(members - piece)
    assert plus(ranges, start, end) == ranges_of(members | piece)


def test_a_target_over_its_disk_locks_no_backing_file_of_its_own() -> None:
    made = (
        AddDisk(node="drive0", layers=(Layer(size=65536),)),
        AddDisk(node="drive1", layers=(Layer(size=512),)),
        CreateImage(image="target0", layer=Layer(size=512)),
        CreateImage(image="target1", layer=Layer(size=65536), backing="target0"),
    )
    over_disk = DriveBackup(node="drive0", target="target1", sync="none", mode="existing")
    below = BlockdevBackup(node="drive1", target="target0", sync="none", job="job1")
    for order in ((over_disk, below), (below, over_disk)):
        world = World()
        for operation in (*made, *order):
            assert world.apply(operation).refusal is None
    world = World()
    for operation in (*made, below):
        world.apply(operation)
    refused = world.apply(replace(over_disk, sync="full")).refusal
    assert refused is not None
    assert refused.reason is Reason.IMAGE_LOCKED
