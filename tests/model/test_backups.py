"""Backups against the naive World: copy sets, outcomes, refusals, chains."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.compare import checked, compare
from tests.model.strategies import COPIED as SIZE
from tests.model.strategies import KIB, backup_sequences, guest_requests, layers

from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapDisable,
    BitmapMode,
    BlockdevBackup,
    CreateImage,
    DriveBackup,
    JobCancel,
    Layer,
    MergeSource,
    OpenOutcomeError,
    Operation,
    RebaseImage,
    SyncMode,
    Transaction,
    Write,
)
from qbprop_model.operations import BitmapMerge as Merge
from qbprop_model.world import World

MODES = (None, *get_args(BitmapMode))
small = checked(8)


def a_disk(size: int = SIZE, **layer: Any) -> AddDisk:
    below = Layer(size=200 * KIB, data=())
    return AddDisk(node="drive0", layers=(Layer(size=size, **layer), below), discard="unmap")


@pytest.mark.parametrize("sync", get_args(SyncMode)[:4])
@pytest.mark.parametrize("cluster", [512, 64 * KIB, 128 * KIB, 2048 * KIB])
@small
@given(st.data())
def test_copy_sets(sync: SyncMode, cluster: int, data: st.DataObject) -> None:
    """Every sync mode, job clusters of 64 KiB and more, into a file and into one over it."""
    compare(data.draw(backup_sequences(sync, cluster)))


@pytest.mark.parametrize("sync", get_args(SyncMode))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bitmap", [None, "bitmap0", "bitmap1"])
def test_every_combination_of_modes(
    sync: SyncMode, mode: BitmapMode | None, bitmap: str | None
) -> None:
    """Table 6.1, and table 6.3 after it, with a bitmap that is there and one that is not."""
    common: dict[str, Any] = {"node": "drive0", "sync": sync, "bitmap": bitmap, "bitmap_mode": mode}
    start: list[Operation] = [
        a_disk(),
        BitmapAdd(node="drive0", name="bitmap0"),
        Write(node="drive0", offset=64 * KIB, length=1, stamp=1),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
    ]
    last: list[Operation] = [Write(node="drive0", offset=0, length=1, stamp=2)]
    blockdev = BlockdevBackup(target="target0", **common)
    compare([*start, blockdev, BitmapDisable(node="drive0", name="bitmap0"), *last])
    compare([*start, DriveBackup(target="target0", **common), *last])


def test_what_is_refused_first() -> None:
    """Each step repairs what was refused in the step before (6.1)."""
    world = World()
    for operation in (
        a_disk(),
        CreateImage(image="target0", layer=Layer(size=512, format="raw")),
        BitmapAdd(node="drive0", name="bitmap0", granularity=512),
    ):
        assert world.apply(operation).refusal is None
    wrong: dict[str, Any] = {"node": "drive1", "target": "target1", "sync": "bitmap", "job": None}
    wrong |= {"bitmap": None, "bitmap_mode": "never", "compress": True}
    repairs: list[tuple[Reason, dict[str, Any]]] = [
        (Reason.NO_SUCH_FILE, {"target": "target0"}),
        (Reason.DEVICE_NOT_FOUND, {"node": "drive0"}),
        (Reason.BITMAP_NEEDED, {"sync": "incremental", "bitmap": "bitmap1"}),
        (Reason.BITMAP_MODE_NOT_ON_SUCCESS, {"sync": "full", "bitmap_mode": None}),
        (Reason.BACKUP_BITMAP_NOT_FOUND, {"bitmap": "bitmap0"}),
        (Reason.BITMAP_MODE_NEEDED, {"bitmap_mode": "never"}),
        (Reason.BITMAP_MODE_USELESS, {"bitmap_mode": "always"}),
        (Reason.COMPRESS_UNSUPPORTED, {"compress": False}),
        (Reason.BACKUP_SIZES_DIFFER, {}),
    ]
    for reason, repair in repairs:
        refusal = world.apply(BlockdevBackup(**wrong)).refusal
        assert refusal is not None
        assert refusal.reason is reason
        wrong |= repair
    world.apply(CreateImage(image="target0", layer=Layer(size=SIZE)))
    refusal = world.apply(BlockdevBackup(**wrong)).refusal
    assert refusal is not None
    assert refusal.reason is Reason.JOB_ID_INVALID
    assert world.apply(BlockdevBackup(**wrong | {"job": "job0"})).refusal is None


def test_a_chain_of_incrementals_restores_the_moment_of_the_last() -> None:
    found: list[Operation] = [a_disk(), BitmapAdd(node="drive0", name="bitmap0", granularity=512)]
    sync: SyncMode = "full"
    world = World()
    for number, target in enumerate(("target0", "target1", "target2")):
        found.append(Write(node="drive0", offset=number * 66000, length=3000, stamp=number))
        backing = f"target{number - 1}" if number else None
        found.append(CreateImage(image=target, layer=Layer(size=SIZE), backing=backing))
        mode: Any = "on-success" if sync == "full" else None
        found.append(
            BlockdevBackup(
                node="drive0", target=target, sync=sync, bitmap="bitmap0", bitmap_mode=mode
            )
        )
        sync = "incremental"
    assert compare(found) == len(found)
    for operation in found:
        world.apply(operation)
    contents = world.final().contents
    last, disk = contents["target2"], contents["drive0"]
    assert last.render(0, SIZE).tobytes() == disk.render(0, SIZE).tobytes()
    assert contents["target0"].render(0, SIZE).tobytes() != disk.render(0, SIZE).tobytes()


def test_a_failed_compressed_copy_keeps_the_bitmap() -> None:
    job: dict[str, Any] = {"node": "drive0", "target": "target0", "compress": True}
    whole: dict[str, Any] = {"node": "drive0", "offset": 0, "length": 128 * KIB}
    found: list[Operation] = [
        a_disk(128 * KIB),
        BitmapAdd(node="drive0", name="bitmap0"),
        CreateImage(image="target0", layer=Layer(size=128 * KIB)),
        Write(**whole, stamp=2),
        BlockdevBackup(**job, sync="full"),
        BlockdevBackup(**job, sync="incremental", bitmap="bitmap0"),
    ]
    assert compare(found) == len(found)
    world = World()
    ends = [world.apply(operation).jobs for operation in found]
    assert ends[-1]["job0"].error is Reason.ALREADY_ALLOCATED
    assert world.final().bitmaps["drive0"]["bitmap0"].count == 128 * KIB
    grouped = Transaction(
        actions=(
            BlockdevBackup(**job, sync="incremental", bitmap="bitmap0"),
            DriveBackup(node="drive0", target="target1", sync="full", job="job1"),
        ),
        grouped=True,
    )
    compare([*found, grouped])


def test_zeroing_a_copy_that_may_be_data_keeps_its_space_in_doubt() -> None:
    """Whether holes were copied as data decides if zeroed clusters own space, hence 1.2."""
    job: dict[str, Any] = {"target": "target0", "sync": "full"}
    performed = compare(
        [
            AddDisk(node="drive0", layers=(Layer(size=128 * KIB),)),
            AddDisk(node="drive1", layers=(Layer(size=128 * KIB, format="raw"),)),
            CreateImage(image="target0", layer=Layer(size=128 * KIB)),
            BlockdevBackup(node="drive1", **job),
            BlockdevBackup(node="drive0", **job),
            Write(node="drive0", offset=0, length=128 * KIB, fill=1),
            BlockdevBackup(node="drive0", **job, compress=True),
        ]
    )
    assert performed == 6


@small
@given(st.data())
def test_top_copies_what_the_top_layer_holds(data: st.DataObject) -> None:
    chain = data.draw(layers())
    size = chain[0].size
    compare(
        [
            AddDisk(node="drive0", layers=chain, discard="unmap"),
            *(data.draw(guest_requests("drive0", size)) for _ in range(3)),
            DriveBackup(node="drive0", target="target0", sync="top"),
            BitmapAdd(node="drive0", name="bitmap0"),
            BitmapAdd(node="drive0", name="bitmap1", granularity=512),
            Merge(node="drive0", target="bitmap1", sources=(MergeSource(name="bitmap0"),)),
        ]
    )


def test_zeroes_detected_by_a_version_2_target_show_a_later_backing_file() -> None:
    """Such a target has no zero flag: it drops the cluster, and what is below is seen (5.3)."""
    size = 64 * KIB
    world = World()
    operations: tuple[Operation, ...] = (
        AddDisk(node="drive0", layers=(Layer(size=size),)),
        BitmapAdd(node="drive0", name="bitmap0"),
        Write(node="drive0", offset=0, length=1, fill=0),
        CreateImage(image="target1", layer=Layer(size=size, compat="0.10")),
        DriveBackup(
            node="drive0", target="target1", sync="incremental", bitmap="bitmap0", mode="existing"
        ),
        Write(node="drive0", offset=512, length=512, fill=7),
        DriveBackup(node="drive0", target="target0", sync="full"),
    )
    for operation in operations:
        assert world.apply(operation).refusal is None
    expected = world.apply(RebaseImage(image="target1", backing="target0"))
    assert expected.contents["target1"].render(512, 1).tolist() == [7]


def test_nothing_is_read_above_a_target_that_a_job_writes_to() -> None:
    world, size = World(), 131072
    layer = Layer(size=size)
    held = DriveBackup(
        node="drive0", target="target0", sync="full", job="job0", speed=1,
        max_workers=1, max_chunk=65536,
    )  # fmt: skip
    operations: tuple[Operation, ...] = (
        AddDisk(node="drive0", layers=(layer,)),
        CreateImage(image="target0", layer=layer),
        CreateImage(image="target1", layer=layer, backing="target0"),
        CreateImage(image="target3", layer=layer),
        held,
    )
    for operation in operations:
        assert world.apply(operation).refusal is None
    rebase = RebaseImage(image="target3", backing="target1")
    assert not world.apply(rebase).contents
    assert not world.final().contents.keys() & {"target0", "target1", "target3"}
    world.apply(JobCancel(job="job0"))
    assert world.apply(rebase).contents.keys() == {"target3"}


MIB = 1 << 20
FULL = BlockdevBackup(node="drive0", target="target0", sync="full")
WORLD_OF_A_HOLE = (
    AddDisk(node="drive0", layers=(Layer(size=2 * MIB, cluster_size=2 * MIB),)),
    CreateImage(image="target0", layer=Layer(size=2 * MIB)),
    Write(node="drive0", offset=65536, length=1, stamp=2),
    FULL,
)


def test_a_hole_in_a_large_cluster_may_travel_as_zeroes() -> None:
    world = World()
    for operation in WORLD_OF_A_HOLE:
        world.apply(operation)
    alloc = world.images["target0"].alloc
    assert alloc.at(0) is Alloc.DATA_OR_ZERO
    assert alloc.at(65536) is Alloc.DATA
    with pytest.raises(OpenOutcomeError):
        world.apply(replace(FULL, compress=True))


def test_a_cluster_no_larger_than_the_job_cluster_has_no_hole() -> None:
    world = World()
    disk = AddDisk(node="drive0", layers=(Layer(size=2 * MIB, cluster_size=65536),))
    write = Write(node="drive0", offset=0, length=512, fill=0)
    for operation in (disk, WORLD_OF_A_HOLE[1], write, FULL):
        world.apply(operation)
    assert world.images["target0"].alloc.at(0) is Alloc.DATA


@pytest.mark.parametrize("sync", ["none", "top"])
def test_a_raw_target_is_refused_a_backing_file_before_anybody_asks_for_its_lock(
    sync: SyncMode,
) -> None:
    world = World()
    for operation in (
        a_disk(),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        BlockdevBackup(node="drive1", target="target0", sync="none", job="job1"),
    ):
        assert world.apply(operation).refusal is None
    raw = DriveBackup(node="drive0", target="target0", sync=sync, format="raw", job="job0")
    for backup, reason in (
        (raw, Reason.BACKING_UNSUPPORTED),
        (replace(raw, sync="full"), Reason.IMAGE_LOCKED),
    ):
        refusal = world.apply(backup).refusal
        assert refusal is not None
        assert refusal.reason is reason


def test_a_target_above_one_that_a_job_still_writes_to_is_not_read_when_its_own_job_ends() -> None:
    world, small = World(), Layer(size=1 << 18)
    above = DriveBackup(node="drive0", target="target2", sync="none", job="job1", mode="existing")
    for operation in (
        AddDisk(node="drive0", layers=(small,)),
        AddDisk(node="drive1", layers=(small,)),
        CreateImage(image="target0", layer=small),
        CreateImage(image="target2", layer=small, backing="target0"),
        DriveBackup(node="drive1", target="target0", sync="none", job="job0", mode="existing"),
        above,
    ):
        assert world.apply(operation).refusal is None
    assert "target2" not in world.apply(JobCancel(job="job1")).contents
    assert world.apply(JobCancel(job="job0")).contents.keys() == {"target0"}
    world.apply(above)
    assert world.apply(JobCancel(job="job1")).contents.keys() == {"target2"}


@pytest.mark.parametrize(
    ("offset", "due"), [(128 * KIB, Alloc.NONE), (64 * KIB, Alloc.DATA_OR_ZERO)]
)
def test_zeroes_that_a_guest_has_copied_along_with_data_may_be_data(
    offset: int, due: Alloc
) -> None:
    """Seen on 7.2, 10.0 and 11.1: what a write comes upon is copied at once, be the job serial."""
    world, size = World(), 256 * KIB
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=size),)),
        Write(node="drive0", offset=0, length=128 * KIB, fill=2),
        Write(node="drive0", offset=128 * KIB, length=128 * KIB, fill=0),
        CreateImage(image="target1", layer=Layer(size=size, compat="0.10")),
        DriveBackup(
            node="drive0",
            target="target1",
            sync="full",
            mode="existing",
            speed=1,
            max_workers=1,
            max_chunk=64 * KIB,
        ),
        Write(node="drive0", offset=offset, length=192 * KIB - offset, fill=3),
    ):
        assert world.apply(operation).refusal is None
    assert world.images["target1"].alloc.at(128 * KIB) is due
