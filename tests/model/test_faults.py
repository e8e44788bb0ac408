"""Injected errors and held writes, by hand: what is hit, what is dirty, how jobs go on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qbprop_model.data import Stamp
from qbprop_model.expectation import FLOOD, NOISE, Expectation, JobEnd, JobState, Reason
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapMode,
    BlockdevBackup,
    CreateImage,
    Discard,
    Errno,
    ExportAdd,
    ExportedBitmap,
    Fault,
    Flush,
    HoldWrite,
    InvalidOperationError,
    JobCancel,
    JobResume,
    JobSetSpeed,
    Layer,
    OnError,
    OpenOutcomeError,
    Operation,
    Pattern,
    Read,
    ReleaseWrite,
    Request,
    Resize,
    SyncMode,
    Transaction,
    Write,
    WriteZeroes,
)
from qbprop_model.traits import Traits
from qbprop_model.world import World

CLUSTER = 65536
SIZE = 8 * CLUSTER
SERIAL: dict[str, Any] = {"max_workers": 1, "max_chunk": CLUSTER}


def fault(request: Request, cluster: int = 2, times: int = 1, errno: Errno = "EIO") -> Fault:
    return Fault(request=request, offset=cluster * CLUSTER, times=times, errno=errno)


def after(*operations: Operation, faults: tuple[Fault, ...] = ()) -> World:
    """A World with a disk that has data up to cluster 6, a bitmap, and a target."""
    data = (Pattern(offset=0, length=6 * CLUSTER, stamp=1),)
    world = World()
    for operation in (
        AddDisk(
            node="drive0", layers=(Layer(size=SIZE, data=data),), discard="unmap", faults=faults
        ),
        BitmapAdd(node="drive0", name="b", granularity=CLUSTER),
        CreateImage(image="target0", layer=Layer(size=SIZE, cluster_size=4096)),
        *operations,
    ):
        assert world.apply(operation).refusal is None
    return world


def write(cluster: int, length: int = 1) -> Write:
    return Write(node="drive0", offset=cluster * CLUSTER, length=length, stamp=2)


def backup(**more: Any) -> BlockdevBackup:
    given = {"sync": "bitmap", "bitmap": "b", "bitmap_mode": "on-success"} | SERIAL | more
    return BlockdevBackup(node="drive0", target="target0", **given)


def reason(expected: Expectation) -> Reason | None:
    return expected.refusal.reason if expected.refusal else None


def dirty(world: World) -> list[int]:
    return [int(each) for each in np.flatnonzero(world.nodes["drive0"].bitmaps["b"].bits)]


def at(cls: Any, start: int, end: int) -> Operation:
    """A request for bytes ``start`` to ``end``, counted from cluster 2."""
    more = {"stamp": 2} if cls is Write else {}
    operation: Operation = cls(
        node="drive0", offset=2 * CLUSTER + start, length=end - start, **more
    )
    return operation


KINDS: list[tuple[Any, Request]] = [
    (Read, "read"),
    (Write, "write"),
    (WriteZeroes, "write_zeroes"),
    (Discard, "discard"),
]


@pytest.mark.parametrize(("cls", "kind"), KINDS)
def test_only_a_request_of_its_kind_over_its_byte_is_hit(cls: Any, kind: Request) -> None:
    world = after(faults=(fault(kind, errno="ENOSPC"),))
    for other, _ in KINDS:
        if other is not cls:
            assert reason(world.apply(at(other, -1, 1))) is None
    assert reason(world.apply(at(cls, -9, 0))) is None
    assert reason(world.apply(at(cls, 1, 512))) is None
    assert reason(world.apply(at(cls, 0, 0))) is None
    assert reason(world.apply(at(cls, -9, 1))) is Reason.NO_SPACE
    assert reason(world.apply(at(cls, -9, 1))) is None


def test_a_fault_comes_as_often_as_it_says() -> None:
    world = after(faults=(fault("read", times=2), fault("read", 4, times=0)))
    hits = [reason(world.apply(at(Read, 0, 1))) for _ in range(4)]
    assert hits == [Reason.IO_ERROR, Reason.IO_ERROR, None, None]
    for _ in range(3):
        assert reason(world.apply(at(Read, 0, 3 * CLUSTER))) is Reason.IO_ERROR


@pytest.mark.parametrize(("cls", "kind"), KINDS[1:])
def test_what_fails_sets_its_bits_and_changes_no_byte(cls: Any, kind: Request) -> None:
    world = after(faults=(fault(kind),))
    before = world.apply(at(Read, -9, CLUSTER)).data
    assert reason(world.apply(at(cls, -9, CLUSTER))) is Reason.IO_ERROR
    assert dirty(world) == [1, 2]
    now = world.apply(at(Read, -9, CLUSTER)).data
    assert before is not None
    assert now is not None
    assert now.tolist() == before.tolist()


def test_a_flush_fails_only_where_something_is_to_be_flushed() -> None:
    world = after(faults=(fault("flush"),))
    assert reason(world.apply(Flush(node="drive0"))) is None
    world.apply(write(0))
    replies = [reason(world.apply(Flush(node="drive0"))) for _ in range(2)]
    assert replies == [Reason.IO_ERROR, None]


def test_a_job_that_stops_tries_the_cluster_again() -> None:
    world = after(write(1), write(2), write(3), faults=(fault("read"),))
    expected = world.apply(backup(on_source_error="stop"))
    assert expected.words["job0"] == ("created", "running", NOISE, "ERROR read stop", "paused")
    assert expected.alive["job0"] == JobState("paused", 3 * CLUSTER, CLUSTER)
    assert dirty(world) == [1, 2, 3]
    assert world.apply(JobResume(job="job0")).jobs["job0"].error is None
    assert dirty(world) == []


@pytest.mark.parametrize("side", ["read", "write"])
@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
def test_enospc_stops_where_there_is_no_space_and_reports_the_rest(side: str, errno: Errno) -> None:
    source, target = ((fault("read", errno=errno),), ()), ((), (fault("write", errno=errno),))
    of_disk, of_target = source if side == "read" else target
    world = after(write(1), write(2), faults=of_disk)
    more: dict[str, Any] = {f"on_{'source' if side == 'read' else 'target'}_error": "enospc"}
    expected = world.apply(backup(faults=of_target, **more))
    stopped = errno == "ENOSPC"
    assert (f"ERROR {side} stop" in expected.words["job0"]) == stopped
    assert (f"ERROR {side} report" in expected.words["job0"]) != stopped
    assert dirty(world) == [1, 2]


def test_an_error_that_is_ignored_is_met_again_until_it_is_over() -> None:
    world = after(write(2), faults=(fault("read", times=3),))
    words = world.apply(backup(on_source_error="ignore")).words["job0"]
    assert words.count("ERROR read ignore") == 3
    assert words[-1] == "null"
    assert FLOOD not in words


def test_an_error_that_lasts_is_ignored_for_ever() -> None:
    world = after(write(2), faults=(fault("read", times=0),))
    assert world.apply(backup(on_source_error="ignore")).words["job0"][-1] == FLOOD


def test_mode_always_keeps_what_was_not_copied() -> None:
    world = after(write(1), write(2), write(4), faults=(fault("read"),))
    assert world.apply(backup(bitmap_mode="always")).jobs["job0"].error is Reason.IO_ERROR
    assert dirty(world) == [2, 4]


def test_a_cluster_of_zeroes_is_not_read() -> None:
    zeroes = WriteZeroes(node="drive0", offset=7 * CLUSTER, length=CLUSTER)
    world = after(write(1), zeroes, faults=(fault("read", 7),))
    assert world.apply(backup()).jobs["job0"].error is None
    reading = Read(node="drive0", offset=7 * CLUSTER, length=1)
    assert reason(world.apply(reading)) is Reason.IO_ERROR


def test_a_failed_copy_before_a_write_leaves_the_disk_the_bitmap_and_the_job_alone() -> None:
    world = after(write(1), write(2))
    world.apply(backup(speed=1, faults=(fault("write", times=2),)))
    for _ in range(2):
        expected = world.apply(write(2, 9))
        assert reason(expected) is Reason.IO_ERROR
        assert expected.alive["job0"] == JobState("running", 2 * CLUSTER, CLUSTER)
    assert world.apply(JobSetSpeed(job="job0")).jobs["job0"].error is None
    assert dirty(world) == []


def test_a_failed_copy_before_a_write_uses_up_the_speed_limit() -> None:
    world = after(write(2), faults=(fault("read"),))
    world.apply(backup(on_source_error="stop", faults=(fault("write"),)))
    world.apply(JobSetSpeed(job="job0", speed=1))
    assert reason(world.apply(write(2, 9))) is Reason.IO_ERROR
    resumed = world.apply(JobResume(job="job0"))
    assert resumed.alive["job0"] == JobState("running", CLUSTER, 0)


def test_parallel_requests_have_one_fault_to_meet_or_none_is_known() -> None:
    parallel = {"max_workers": None, "max_chunk": None}
    one = after(write(1), write(2), write(4), faults=(fault("read"),))
    assert one.apply(backup(**parallel)).jobs["job0"].error is Reason.IO_ERROR
    two = after(write(1), write(2), write(4), faults=(fault("read"), fault("read", 4)))
    with pytest.raises(OpenOutcomeError):
        two.apply(backup(**parallel))


def test_a_compressed_copy_that_the_target_refuses_may_fail_before_a_fault_is_met() -> None:
    target_full = (write(1, CLUSTER), backup())
    faults = (fault("read", 4, errno="ENOSPC"),)
    compressed: dict[str, Any] = {"sync": "full", "compress": True, "bitmap": None}
    compressed["bitmap_mode"] = None
    serial = after(*target_full, faults=faults).apply(backup(**compressed))
    assert serial.jobs["job0"].error is Reason.ALREADY_ALLOCATED
    parallel = backup(**compressed, max_workers=None, max_chunk=None)
    with pytest.raises(OpenOutcomeError):
        after(*target_full, faults=faults).apply(parallel)
    assert after(faults=faults).apply(parallel).jobs["job0"].error is Reason.NO_SPACE


def test_the_progress_of_a_failed_job_stays_open_when_its_target_is_made_anew() -> None:
    world = after(write(1), write(2), faults=(fault("read"),))
    world.apply(backup(max_workers=None, auto_dismiss=False))
    again = CreateImage(image="target0", layer=Layer(size=SIZE))
    assert world.apply(again).alive["job0"].offset is None


def test_cancelling_must_not_use_up_a_fault() -> None:
    stopped = after(write(2), write(4), faults=(fault("read"), fault("read", 4)))
    stopped.apply(backup(on_source_error="stop"))
    with pytest.raises(OpenOutcomeError):
        stopped.apply(JobCancel(job="job0"))
    lasting = after(write(2), write(4), faults=(fault("read", times=0), fault("read", 4)))
    lasting.apply(backup(on_source_error="stop"))
    assert lasting.apply(JobCancel(job="job0")).alive == {}


HELD = HoldWrite(node="drive0", offset=2 * CLUSTER, length=9, stamp=5)
RELEASE = ReleaseWrite(node="drive0")


def test_a_held_write_sets_its_bit_when_it_completes() -> None:
    world = after(HELD)
    assert dirty(world) == []
    seen = world.apply(at(Read, 0, 9)).data
    assert seen is not None
    assert seen.tolist() != HELD.data.render(2 * CLUSTER, 9).tolist()
    world.apply(BitmapClear(node="drive0", name="b"))
    world.apply(BitmapAdd(node="drive0", name="c", granularity=CLUSTER))
    expected = world.apply(RELEASE)
    assert dirty(world) == [2]
    assert expected.bitmaps["drive0"]["c"].count == CLUSTER
    seen = world.apply(at(Read, 0, 9)).data
    assert seen is not None
    assert seen.tolist() == HELD.data.render(2 * CLUSTER, 9).tolist()


def test_a_held_write_can_fail_when_it_goes_on() -> None:
    world = after(HELD, faults=(fault("write"),))
    assert reason(world.apply(RELEASE)) is Reason.IO_ERROR
    assert dirty(world) == [2]


@pytest.mark.parametrize(
    "beside",
    [at(Write, 8, 99), at(WriteZeroes, -9, 1), HELD, Transaction(), backup(), at(Discard, 0, 9)],
)
def test_what_would_wait_or_overlap_is_not_done_beside_it(beside: Operation) -> None:
    world = after(HELD)
    with pytest.raises(InvalidOperationError):
        world.apply(beside)
    for apart in (at(Write, 9, 99), at(WriteZeroes, -9, 0), Flush(node="drive0")):
        assert reason(world.apply(apart)) is None


def test_only_a_filter_holds_a_write() -> None:
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=SIZE),)))
    with pytest.raises(InvalidOperationError):
        world.apply(HELD)


def test_a_resize_that_fails_changes_nothing() -> None:
    world = after(write(1), faults=(fault("resize", errno="ENOSPC"),))
    refused = world.apply(Resize(node="drive0", size=SIZE + CLUSTER))
    assert reason(refused) is Reason.SIZE_NOT_WRITTEN
    assert refused.sizes == {"drive0": SIZE}
    assert dirty(world) == [1]
    assert reason(world.apply(Resize(node="drive0", size=SIZE + CLUSTER))) is None


@pytest.mark.parametrize("size", [SIZE, SIZE - CLUSTER, 1 << 30])
def test_what_else_a_resize_does_before_it_fails_is_open(size: int) -> None:
    with pytest.raises(OpenOutcomeError):
        after(faults=(fault("resize"),)).apply(Resize(node="drive0", size=size))


@pytest.mark.parametrize(("cluster", "certain"), [(2, False), (7, True)])
def test_of_two_backups_of_one_disk_none_is_the_one_that_meets_its_error(
    *, cluster: int, certain: bool
) -> None:
    target = CreateImage(image="target1", layer=Layer(size=SIZE, cluster_size=4096))
    full = BlockdevBackup(node="drive0", target="target0", sync="full", job="job0", **SERIAL)
    both = Transaction(actions=(full, replace(full, target="target1", job="job1")), grouped=True)
    world = after(target, faults=(fault("read", cluster),))
    if certain:
        assert world.apply(both).refusal is None
        assert {end.error for end in world.ends.values()} == {None}
        return
    with pytest.raises(OpenOutcomeError):
        world.apply(both)


def test_of_two_members_of_a_group_that_fail_none_is_the_first() -> None:
    world = after(
        write(2),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),), faults=(fault("read", 0),)),
        Write(node="drive1", offset=0, length=1, stamp=2),
        CreateImage(image="target1", layer=Layer(size=SIZE)),
        faults=(fault("read"),),
    )
    other = BlockdevBackup(node="drive1", target="target1", sync="full", job="job1")
    alone = Transaction(actions=(backup(), other))
    assert {end.error for end in world.copy().apply(alone).jobs.values()} == {Reason.IO_ERROR}
    with pytest.raises(OpenOutcomeError):
        world.apply(replace(alone, grouped=True))


def beside_another(node: str, times: int, **traits: bool) -> World:
    """A World in which job0 meets a fault of drive0 while job1, of a disk ``node``, just ends."""
    world = World(None, Traits(**traits))
    data = (Pattern(offset=0, length=SIZE, stamp=1),)
    for each in (
        AddDisk(
            node="drive0",
            layers=(Layer(size=SIZE, data=data),),
            faults=(fault("read", times=times),),
        ),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BitmapAdd(node=node, name="clean"),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        CreateImage(image="target1", layer=Layer(size=SIZE)),
    ):
        assert world.apply(each).refusal is None
    clean = BlockdevBackup(
        node=node, target="target1", sync="incremental", bitmap="clean", job="job1"
    )
    faulty = BlockdevBackup(node="drive0", target="target0", sync="full")
    world.apply(Transaction(actions=(faulty, clean)))
    return world


@pytest.mark.parametrize(("node", "waits"), [("drive1", True), ("drive0", False)])
def test_a_job_that_is_paused_as_another_ends_may_try_again(node: str, waits: bool) -> None:  # noqa: FBT001
    with pytest.raises(OpenOutcomeError, match="tries again"):
        beside_another(node, 1, graph_waits=waits)


@pytest.mark.parametrize(("times", "waits"), [(0, True), (1, False)])
def test_an_error_that_lasts_or_of_another_disk_is_told(times: int, waits: bool) -> None:  # noqa: FBT001
    ends = beside_another("drive1", times, graph_waits=waits).ends
    assert (ends["job0"].error, ends["job1"].error) == (Reason.IO_ERROR, None)


@pytest.mark.parametrize(
    ("empty", "reached"),
    [
        (Write(node="drive0", offset=512, length=0, stamp=1), True),
        (Discard(node="drive0", offset=512, length=0), True),
        (WriteZeroes(node="drive0", offset=512, length=0), False),
        (WriteZeroes(node="drive0", offset=512, length=0, unmap=True), False),
    ],
)
def test_which_requests_of_no_length_leave_something_to_flush(
    empty: Operation, *, reached: bool
) -> None:
    world = after(empty, faults=(fault("flush"),))
    assert (reason(world.apply(Flush(node="drive0"))) is Reason.IO_ERROR) == reached


@pytest.mark.parametrize(
    ("offset", "length", "gone"),
    [
        (0, 2 * CLUSTER + 512, [True, True, False]),
        (100, 2 * CLUSTER, [False, True, False]),
        (CLUSTER, 2 * CLUSTER, [False, False, False]),
        (2 * CLUSTER, 512, [False, False, False]),
    ],
)
def test_a_discard_that_fails_has_done_what_came_before(
    offset: int, length: int, gone: list[bool]
) -> None:
    world = after(faults=(fault("discard"),))
    expected = world.apply(Discard(node="drive0", offset=offset, length=length))
    assert reason(expected) is Reason.IO_ERROR
    read = world.apply(Read(node="drive0", offset=0, length=3 * CLUSTER)).data
    assert read is not None
    assert [not read[at : at + CLUSTER].any() for at in range(0, 3 * CLUSTER, CLUSTER)] == gone
    assert dirty(world) == list(range(offset // CLUSTER, -(-(offset + length) // CLUSTER)))


def tearing(passing: int = 1, cluster: int = 512) -> World:
    """A World whose disk fails the write of data behind so many; an L2 table is for 64 clusters."""
    world = World()
    fault = Fault(request="write_aio", after=passing)
    world.apply(
        AddDisk(node="drive0", layers=(Layer(size=SIZE, cluster_size=cluster),), faults=(fault,))
    )
    world.apply(BitmapAdd(node="drive0", name="b", granularity=CLUSTER))
    return world


ACROSS = Write(node="drive0", offset=2 * CLUSTER - 512, length=1100, stamp=2)
"""From the last cluster of 512 bytes of an L2 table to the third of the next."""


def test_a_write_that_fails_midway_sets_its_bits_and_leaves_each_cluster_old_or_new() -> None:
    world = tearing()
    assert reason(world.apply(ACROSS)) is Reason.IO_ERROR
    assert dirty(world) == [1, 2]
    seen = world.apply(Read(node="drive0", offset=ACROSS.offset - 100, length=1024))
    assert seen.data is not None
    assert seen.torn is not None
    assert not seen.data.any()
    assert seen.torn.parts == ((100, 612), (612, 1024))
    assert seen.torn.written[100:].tobytes() == Stamp(2).render(ACROSS.offset, 924).tobytes()
    elsewhere = world.apply(Read(node="drive0", offset=0, length=512))
    assert elsewhere.torn is not None
    assert not elsewhere.torn.parts


def test_writes_below_the_count_pass_and_are_counted() -> None:
    world = tearing(passing=2)
    for at in (0, 512):
        assert reason(world.apply(Write(node="drive0", offset=at, length=512, stamp=1))) is None
    with pytest.raises(OpenOutcomeError):
        tearing(passing=1).apply(Write(node="drive0", offset=0, length=513, stamp=1))
    assert reason(world.apply(Write(node="drive0", offset=0, length=0, stamp=1))) is None
    assert reason(world.apply(Write(node="drive0", offset=9, length=1, stamp=1))) is Reason.IO_ERROR
    assert reason(world.apply(Write(node="drive0", offset=4096, length=1, stamp=1))) is None


def test_clusters_that_have_their_tables_may_be_written_at_once() -> None:
    first = Write(node="drive0", offset=0, length=512, stamp=1)
    world = tearing(passing=2)
    world.apply(first)
    assert reason(world.apply(ACROSS)) is Reason.IO_ERROR
    world = tearing(passing=2)
    world.apply(replace(first, offset=3 * CLUSTER - 512))
    assert reason(world.apply(ACROSS)) is Reason.IO_ERROR
    world = tearing(passing=2)
    world.apply(replace(first, offset=2 * CLUSTER + 4096))
    with pytest.raises(OpenOutcomeError):
        world.apply(ACROSS)


def test_tables_come_between_clusters_and_slices_do_not() -> None:
    cluster, table = 8192, 8192 // 8 * 8192
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=3 * table, cluster_size=cluster),)))
    image = world.images["drive0.0"]
    assert image.slice_size == table // 2
    writes = world.rules.data_writes
    assert writes(image, table // 2 - cluster, 2 * cluster) == (1, 2)
    assert writes(image, table - 1, 2) == (2, 2)
    assert writes(image, table - 1, 1) == (1, 1)
    assert writes(image, 0, 3 * table) == (3, 3 * table // cluster)


def test_a_discard_leaves_open_how_many_writes_there_are() -> None:
    world = World()
    layer = Layer(size=SIZE, cluster_size=512)
    fault = Fault(request="write_aio", after=1)
    world.apply(AddDisk(node="drive0", layers=(layer,), discard="unmap", faults=(fault,)))
    with pytest.raises(OpenOutcomeError):
        world.apply(Discard(node="drive0", offset=0, length=4096))
    assert reason(world.apply(ACROSS)) is Reason.IO_ERROR
    assert reason(world.apply(Discard(node="drive0", offset=0, length=4096))) is None


@pytest.mark.parametrize(
    "operation",
    [
        Write(node="drive0", offset=ACROSS.offset, length=1, stamp=3),
        replace(ACROSS, stamp=None, fill=0, offset=ACROSS.offset + 512, length=2000),
        WriteZeroes(node="drive0", offset=ACROSS.offset, length=1100),
        Discard(node="drive0", offset=ACROSS.offset + 1024, length=512),
        Resize(node="drive0", size=SIZE + 512),
        backup(sync="full", bitmap=None, bitmap_mode=None),
    ],
)
def test_what_becomes_of_bytes_that_are_open_is_open(operation: Operation) -> None:
    world = tearing()
    world.apply(ACROSS)
    world.apply(CreateImage(image="target0", layer=Layer(size=SIZE)))
    with pytest.raises(OpenOutcomeError):
        world.apply(operation)
    assert "drive0" not in world.final().allocated
    assert "drive0" not in world.final().contents


def test_the_same_write_again_settles_what_is_open() -> None:
    world = tearing()
    world.apply(ACROSS)
    world.apply(Write(node="drive0", offset=0, length=512, stamp=1))
    assert world.apply(Read(node="drive0", offset=ACROSS.offset, length=9)).torn is not None
    assert world.apply(replace(ACROSS, stamp=7, length=1200)).refusal is None
    seen = world.apply(Read(node="drive0", offset=ACROSS.offset, length=1200))
    assert seen.torn is None
    assert seen.data is not None
    assert seen.data.tobytes() == Stamp(7).render(ACROSS.offset, 1200).tobytes()
    assert "drive0" in world.final().contents


def blind_chain(errno: Errno = "EIO") -> World:
    """A World with a disk that has cluster 2 of its own, and tells nobody."""
    world = World()
    lower = Layer(size=SIZE, data=(Pattern(offset=0, length=6 * CLUSTER, stamp=1),))
    blind = Fault(request="block_status", times=0, errno=errno)
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE), lower), faults=(blind,)),
        BitmapAdd(node="drive0", name="b", granularity=CLUSTER),
        write(2),
        CreateImage(image="target0", layer=Layer(size=SIZE, cluster_size=4096)),
    ):
        assert world.apply(operation).refusal is None
    return world


@pytest.mark.parametrize("action", ["report", "stop", "ignore"])
@pytest.mark.parametrize(("mode", "left"), [("on-success", [2]), ("always", list(range(8)))])
def test_a_job_that_cannot_find_out_what_to_copy_fails_whatever_is_said_about_errors(
    action: OnError, mode: BitmapMode, left: list[int]
) -> None:
    world = blind_chain("ENOSPC")
    expected = world.apply(backup(sync="top", bitmap_mode=mode, on_source_error=action))
    assert expected.jobs["job0"] == JobEnd(SIZE, 0, error=Reason.NO_SPACE)
    assert not any("ERROR" in word for word in expected.words["job0"])
    assert dirty(world) == left


def test_a_job_that_knows_what_to_copy_needs_no_status() -> None:
    world = blind_chain()
    expected = world.apply(backup())
    assert expected.jobs["job0"] == JobEnd(CLUSTER, CLUSTER)
    assert dirty(world) == []
    assert "drive0.0" in world.final().contents


@pytest.mark.parametrize(
    "given",
    [
        {"request": "write_aio", "times": 0},
        {"request": "write_aio", "offset": 512},
        {"request": "write", "after": 1},
        {"request": "block_status"},
        {"request": "block_status", "times": 0, "offset": 512},
    ],
)
def test_a_fault_that_blkdebug_does_not_count_is_invalid(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOperationError):
        Fault(**given)


@pytest.mark.parametrize(
    "faults",
    [
        (fault("resize"), fault("read")),
        (Fault(request="write_aio"), Fault(request="write_aio")),
        (Fault(request="write_aio"), fault("read")),
    ],
)
def test_faults_below_a_layer_stand_alone(faults: tuple[Fault, ...]) -> None:
    with pytest.raises(InvalidOperationError):
        World().apply(AddDisk(node="drive0", layers=(Layer(size=SIZE),), faults=faults))


def test_which_of_two_errors_a_resize_meets_is_open() -> None:
    layers = (Layer(size=0, compat="0.10"), Layer(size=512, format="raw"))
    world = World()
    world.apply(AddDisk(node="drive0", layers=layers, faults=(fault("resize", 0),)))
    with pytest.raises(OpenOutcomeError):
        world.apply(Resize(node="drive0", size=512))


def test_whether_a_busy_bitmap_or_a_fault_comes_first_is_open() -> None:
    world = World()
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=0),), faults=(fault("resize", 0),)),
        AddDisk(node="drive1", layers=(Layer(size=0, format="raw"),)),
        BitmapAdd(node="drive0", name="b"),
        ExportAdd(
            export="export0", node="drive1", bitmaps=(ExportedBitmap(name="b", node="drive0"),)
        ),
    ):
        assert world.apply(operation).refusal is None
    with pytest.raises(OpenOutcomeError):
        world.apply(Resize(node="drive0", size=512))


@pytest.mark.parametrize(("sync", "length"), [("top", None), ("full", CLUSTER)])
def test_a_job_that_is_cancelled_at_once_may_still_have_been_looking(
    sync: SyncMode, length: int | None
) -> None:
    """How far one with sync top has looked is open, also where there is nothing to copy."""
    below = Layer(size=CLUSTER, data=(Pattern(offset=0, length=CLUSTER, stamp=1),))
    world = World()
    for each in (
        AddDisk(node="drive0", layers=(Layer(size=CLUSTER), below)),
        AddDisk(node="drive1", layers=(below,), faults=(Fault(request="read", times=0),)),
        *(CreateImage(image=f"target{i}", layer=Layer(size=CLUSTER)) for i in (0, 1)),
    ):
        world.apply(each)
    looking = BlockdevBackup(
        node="drive0", target="target0", sync=sync, job="job0", auto_dismiss=False
    )
    failing = BlockdevBackup(node="drive1", target="target1", sync="full", job="job1")
    expected = world.apply(Transaction(actions=(looking, failing), grouped=True))
    assert expected.alive["job0"].length == length
    ended = expected.jobs["job0"]
    assert (ended.length, ended.offset, ended.error) == (length, None, Reason.JOB_CANCELLED)
    assert "[waiting]" in expected.words["job0"]
    assert ("target0" in world.vague) == (sync == "full")
