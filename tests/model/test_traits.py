"""What changes with the traits of an engine, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from qbprop_model.expectation import Anonymous, Expectation, Reason
from qbprop_model.image import Alloc
from qbprop_model.operations import (
    Abort,
    AddDisk,
    BitmapAdd,
    BlockCommit,
    BlockdevBackup,
    BlockdevSnapshot,
    CreateImage,
    Discard,
    DriveBackup,
    ExportAdd,
    ExportedBitmap,
    Fault,
    Flush,
    HoldWrite,
    InvalidOperationError,
    JobPause,
    JobSetSpeed,
    Layer,
    OpenOutcomeError,
    Operation,
    Pattern,
    RebaseImage,
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
OLD = Traits(
    blockdev_backup_x_perf=False,
    copy_before_write=False,
    empty_discards_count=False,
    exports_check_use_first=True,
)
NEW = Traits(
    groups_checked_first=True,
    copy_bitmap_on_filter=True,
    unmap_needs_discard=True,
    graph_waits=True,
    filter_end_flushes=True,
    commit_skips_zeroes=True,
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


@pytest.mark.parametrize(
    ("traits", "due"), [(Traits(), Reason.EXPORT_READ_ONLY), (OLD, Reason.BITMAP_BUSY)]
)
def test_for_what_a_read_only_export_refuses_a_bitmap_in_use(traits: Traits, due: Reason) -> None:
    def export(number: int, *, writable: bool) -> ExportAdd:
        bitmaps = (ExportedBitmap(name="bitmap0"),)
        return ExportAdd(
            export=f"export{number}", node="drive0", bitmaps=bitmaps, writable=writable
        )

    add = BitmapAdd(node="drive0", name="bitmap0")
    expected = last(traits, add, export(0, writable=True), export(1, writable=False))
    assert reason(expected) == due
    assert reason(last(traits, add, export(0, writable=False))) == Reason.EXPORT_READ_ONLY


def test_without_x_perf_nothing_is_tuned_limited_or_paused_in_its_run() -> None:
    common: dict[str, Any] = {"node": "drive0", "target": "target0", "sync": "full"}
    with pytest.raises(InvalidOperationError, match="x-perf"):
        last(OLD, BlockdevBackup(**common, max_workers=1))
    with pytest.raises(InvalidOperationError, match="x-perf"):
        last(OLD, Transaction(actions=(Abort(), BlockdevBackup(**common, max_workers=1))))
    with pytest.raises(OpenOutcomeError):
        last(OLD, BlockdevBackup(**common, speed=1))
    with pytest.raises(OpenOutcomeError):
        last(OLD, endless(), JobPause(job="job0"))
    assert reason(last(OLD, BlockdevBackup(**common))) is None


def test_without_x_perf_a_limit_is_open_for_a_job_that_has_stopped_before_its_end() -> None:
    write = Write(node="drive0", offset=0, length=SIZE, fill=1)
    common: dict[str, Any] = {"node": "drive0", "target": "target0", "sync": "full"}
    stopped = BlockdevBackup(compress=True, on_target_error="stop", **common)
    limit = JobSetSpeed(job="job0", speed=1)
    with pytest.raises(OpenOutcomeError, match="limited"):
        last(OLD, write, BlockdevBackup(**common), stopped, limit)
    serial = replace(stopped, max_workers=1, max_chunk=CLUSTER)
    assert reason(last(Traits(), write, BlockdevBackup(**common), serial, limit)) is None
    assert reason(last(OLD, endless(), limit)) is None


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


@pytest.mark.parametrize(
    ("traits", "jobs", "due"),
    [
        (Traits(), 1, [Reason.IO_ERROR, Reason.IO_ERROR, None]),
        (NEW, 1, [Reason.IO_ERROR, None]),
        (NEW, 2, [None, None]),
    ],
)
def test_a_backup_that_is_undone_has_a_filter_that_goes_too(
    traits: Traits, jobs: int, due: list[Reason | None]
) -> None:
    world = World(traits=traits)
    backups = tuple(
        BlockdevBackup(node="drive0", target=f"target{i}", sync="full", job=f"job{i}")
        for i in range(jobs)
    )
    write = Write(node="drive0", offset=0, length=0, fill=1)
    undone = Transaction(actions=(*backups, Abort()))
    for each in (replace(DISK, faults=(Fault(request="flush", times=2),)), *TARGETS, write, undone):
        world.apply(each)
    assert [reason(world.apply(Flush(node="drive0"))) for _ in due] == due


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


@pytest.mark.parametrize(("traits", "due"), [(Traits(), None), (OLD, OpenOutcomeError)])
@pytest.mark.parametrize("change", ["zeroes", "beside"])
def test_whether_zeroes_are_surely_found_in_what_is_copied(
    traits: Traits, due: type[Exception] | None, change: str
) -> None:
    """Where the host copies, data travels as data, and what is none beside it as zeroes."""
    world = World(traits=traits)
    small = Layer(size=SIZE, cluster_size=512, compat="0.10")
    write = Write(node="drive1", offset=0, length=512, fill=0 if change == "zeroes" else 1)
    copied: dict[str, Any] = {"node": "drive1", "sync": "incremental", "bitmap": "bitmap0"}
    for operation in (
        AddDisk(node="drive1", layers=(Layer(size=SIZE, cluster_size=512),)),
        BitmapAdd(node="drive1", name="bitmap0", granularity=512),
        write,
        TARGETS[0],
        CreateImage(image="target1", layer=small),
        DriveBackup(target="target1", mode="existing", **copied),
    ):
        assert reason(world.apply(operation)) is None
    rebase = RebaseImage(image="target1", backing="target0")
    if due is None:
        assert reason(world.apply(rebase)) is None
    else:
        with pytest.raises(due):
            world.apply(rebase)


def test_data_is_surely_allocated_by_whoever_it_is_copied() -> None:
    world = World(traits=OLD)
    write = Write(node="drive1", offset=512, length=512, fill=0)
    for operation in (
        AddDisk(node="drive1", layers=(Layer(size=SIZE, cluster_size=512),)),
        write,
        TARGETS[0],
        BlockdevBackup(node="drive1", target="target0", sync="full"),
        CreateImage(image="target1", layer=Layer(size=SIZE, cluster_size=512)),
        BlockdevBackup(node="drive1", target="target1", sync="full"),
    ):
        assert reason(world.apply(operation)) is None
    alloc = world.images["target1"].alloc
    assert [alloc.at(at) for at in (0, 512, 1024)] == [
        Alloc.DATA_OR_ZERO,
        Alloc.DATA,
        Alloc.DATA_OR_ZERO,
    ]


def committed(traits: Traits, layer: Layer, zeroes: int = CLUSTER, **base: Any) -> int:
    """Bytes that are dirty in a base into which some bytes of zeroes and a cluster of data went."""
    return (
        last(
            traits,
            AddDisk(node="drive1", layers=(layer,), **base),
            BitmapAdd(node="drive1", name="a"),
            AddDisk(node="drive2", layers=(EMPTY,)),
            WriteZeroes(node="drive2", offset=0, length=zeroes),
            Write(node="drive2", offset=2 * CLUSTER, length=1, stamp=2),
            BlockdevSnapshot(node="drive1", overlay="drive2"),
            BlockCommit(job="job0", node="drive2", base="drive1"),
        )
        .bitmaps["drive1"]["a"]
        .count
    )


EMPTY = Layer(size=SIZE)
RAW = Layer(size=SIZE, format="raw")
UNMAPS: dict[str, Any] = {"discard": "unmap", "detect_zeroes": "unmap"}


def test_whether_a_commit_writes_zeroes_to_zeroes() -> None:
    full = Layer(size=SIZE, data=(Pattern(offset=SIZE - 512, length=512, stamp=1),))
    assert committed(Traits(), EMPTY) == 2 * CLUSTER
    assert committed(NEW, EMPTY) == CLUSTER
    assert committed(NEW, EMPTY, **UNMAPS) == 2 * CLUSTER
    assert committed(NEW, full) == 2 * CLUSTER
    assert committed(Traits(), RAW) == 2 * CLUSTER
    with pytest.raises(OpenOutcomeError, match="zeroes meet zeroes"):
        committed(NEW, RAW)


def test_a_commit_writes_zeroes_of_a_last_unit_that_is_shorter() -> None:
    size = CLUSTER + 512
    expected = last(
        NEW,
        AddDisk(node="drive1", layers=(Layer(size=size),)),
        BitmapAdd(node="drive1", name="a", granularity=512),
        AddDisk(node="drive2", layers=(Layer(size=size),)),
        WriteZeroes(node="drive2", offset=0, length=size),
        BlockdevSnapshot(node="drive1", overlay="drive2"),
        BlockCommit(job="job0", node="drive2", base="drive1"),
    )
    assert expected.bitmaps["drive1"]["a"].count == 512


def test_a_commit_writes_zeroes_that_fill_no_cluster_of_the_base() -> None:
    assert committed(NEW, replace(EMPTY, cluster_size=4 * CLUSTER)) == 2 * CLUSTER
    with pytest.raises(OpenOutcomeError):
        committed(NEW, replace(EMPTY, cluster_size=CLUSTER // 2 * 4), zeroes=2 * CLUSTER)
