"""What changes with the traits of an engine, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from qbprop_model.expectation import Anonymous, Expectation, Reason
from qbprop_model.operations import (
    Abort,
    AddDisk,
    BlockdevBackup,
    CreateImage,
    Discard,
    DriveBackup,
    Fault,
    Flush,
    HoldWrite,
    InvalidOperationError,
    JobPause,
    Layer,
    OpenOutcomeError,
    Operation,
    Pattern,
    Resize,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.traits import Traits
from qbprop_model.world import World

CLUSTER = 65536
SIZE = 4 * CLUSTER
OLD = Traits(blockdev_backup_x_perf=False, copy_before_write=False, empty_discards_count=False)
NEW = Traits(
    groups_checked_first=True,
    copy_bitmap_on_filter=True,
    unmap_needs_discard=True,
    graph_waits=True,
    filter_end_flushes=True,
)

DATA = (Pattern(offset=0, length=SIZE, stamp=1),)
DISK = AddDisk(node="drive0", layers=(Layer(size=SIZE, data=DATA),))
TARGETS = tuple(CreateImage(image=f"target{i}", layer=Layer(size=SIZE)) for i in (0, 1))


def last(traits: Traits, *operations: Operation) -> Expectation:
    """What must hold after the last of some operations."""
    world = World(traits=traits)
    *_, expected = [world.apply(each) for each in (DISK, *TARGETS, *operations)]
    return expected


def reason(expected: Expectation) -> Reason | None:
    return expected.refusal.reason if expected.refusal else None


def endless(**more: Any) -> BlockdevBackup:
    return BlockdevBackup(node="drive0", target="target0", sync="none", filter="filter0", **more)


@pytest.mark.parametrize(
    ("traits", "due"), [(Traits(), Reason.ABORTED), (NEW, Reason.GROUPED_UNSUPPORTED)]
)
def test_whether_an_abort_can_be_grouped(traits: Traits, due: Reason) -> None:
    backup = BlockdevBackup(node="drive0", target="target0", sync="full")
    expected = last(traits, Transaction(actions=(backup, Abort()), grouped=True))
    assert reason(expected) == due
    assert bool(expected.jobs) == (traits is not NEW), "nothing was begun"


@pytest.mark.parametrize(
    ("traits", "held"),
    [(Traits(), {"drive0": 1, "filter0": 2}), (NEW, {"filter0": 3}), (OLD, {"drive0": 1})],
)
def test_whose_the_bitmaps_of_a_job_are(traits: Traits, held: dict[str, int]) -> None:
    found: tuple[Anonymous, ...] = last(traits, endless()).anonymous
    assert {each.node: [a.node for a in found].count(each.node) for each in found} == held


@pytest.mark.parametrize(("traits", "due"), [(Traits(), None), (NEW, Reason.ALREADY_ALLOCATED)])
def test_whether_zeroing_frees_what_is_not_opened_for_it(
    traits: Traits, due: Reason | None
) -> None:
    zero = WriteZeroes(node="drive0", offset=0, length=SIZE, unmap=True)
    packed = WriteCompressed(node="drive0", offset=0, length=CLUSTER, fill=1)
    assert reason(last(traits, zero, packed)) == due


def test_without_x_perf_nothing_is_tuned_limited_or_paused_in_its_run() -> None:
    common: dict[str, Any] = {"node": "drive0", "target": "target0", "sync": "full"}
    with pytest.raises(InvalidOperationError, match="x-perf"):
        last(OLD, BlockdevBackup(**common, max_workers=1))
    with pytest.raises(OpenOutcomeError):
        last(OLD, BlockdevBackup(**common, speed=1))
    with pytest.raises(OpenOutcomeError):
        last(OLD, endless(), JobPause(job="job0"))
    assert reason(last(OLD, BlockdevBackup(**common))) is None


@pytest.mark.parametrize(
    ("first", "due"), [("none", Reason.PERMISSION_DENIED), ("full", Reason.DEVICE_IN_USE)]
)
def test_the_filter_of_a_later_job_comes_between_a_disk_and_what_it_backs(
    first: str, due: Reason
) -> None:
    over = DriveBackup(node="drive0", target="target0", sync="none", mode="existing")
    beside = DriveBackup(
        node="drive0", target="target1", sync="full", job="job1", auto_finalize=False
    )
    order = (over, beside) if first == "none" else (beside, over)
    assert reason(last(Traits(), *order, Resize(node="drive0", size=0))) == due


def test_a_write_is_the_same_everywhere() -> None:
    write = Write(node="drive0", offset=0, length=512, stamp=3)
    assert last(OLD, write) == last(NEW, write) == last(Traits(), write)


@pytest.mark.parametrize(
    ("traits", "complaints", "flushed"),
    [(Traits(), (), Reason.NO_SPACE), (NEW, (Reason.NO_SPACE,), None)],
)
def test_who_meets_an_error_of_flushing_at_the_end_of_a_backup(
    traits: Traits, complaints: tuple[Reason, ...], flushed: Reason | None
) -> None:
    world = World(traits=traits)
    fault = Fault(request="flush", errno="ENOSPC")
    backup = BlockdevBackup(node="drive0", target="target0", sync="full")
    for each in (replace(DISK, faults=(fault,)), TARGETS[0]):
        world.apply(each)
    assert world.apply(backup).complaints == ()
    world.apply(Write(node="drive0", offset=0, length=1, fill=1))
    assert world.apply(backup).complaints == complaints
    assert reason(world.apply(Flush(node="drive0"))) == flushed
    assert world.apply(backup).complaints == ()


def test_no_write_is_held_where_changes_of_the_graph_wait() -> None:
    hold = HoldWrite(node="drive0", offset=0, length=1, fill=1)
    disk = replace(DISK, faults=())
    world = World(traits=NEW)
    world.apply(disk)
    with pytest.raises(InvalidOperationError):
        world.apply(hold)


@pytest.mark.parametrize(("traits", "due"), [(Traits(), Reason.IO_ERROR), (OLD, None)])
def test_whether_a_discard_of_nothing_leaves_something_to_flush(
    traits: Traits, due: Reason | None
) -> None:
    world = World(traits=traits)
    world.apply(replace(DISK, discard="unmap", faults=(Fault(request="flush"),)))
    world.apply(Discard(node="drive0", offset=0, length=0))
    assert reason(world.apply(Flush(node="drive0"))) == due
