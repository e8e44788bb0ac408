"""What goes along to another QEMU, and what does not."""

from dataclasses import replace

import pytest

from qbprop_model.expectation import BitmapState, Expectation, Reason
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapRemove,
    BlockdevBackup,
    CloseDisk,
    CreateImage,
    ExportAdd,
    ExportedBitmap,
    InvalidOperationError,
    Layer,
    Migrate,
    OpenDisk,
    Opening,
    OpenOutcomeError,
    Operation,
    Renaming,
    ReopenDisk,
    Resize,
    Restart,
    Write,
)
from qbprop_model.rules import Rules
from qbprop_model.traits import Traits
from qbprop_model.world import World

SIZE = 1 << 20
LONG = "n" * 1023
DISK = Opening(node="drive0")
KINDS = (
    BitmapAdd(node="drive0", name="transient", granularity=512),
    BitmapAdd(node="drive0", name="off", granularity=512, disabled=True),
    BitmapAdd(node="drive0", name="kept", granularity=512, persistent=True),
    BitmapAdd(node="drive0", name="kept off", granularity=512, persistent=True, disabled=True),
    Write(node="drive0", offset=512, length=1, fill=1),
)


def world_after(*operations: Operation, others: tuple[Traits, ...] = ()) -> World:
    world = World(Rules(), Traits(), *others)
    world.apply(AddDisk(node="drive0", layers=(Layer(size=SIZE),)))
    for operation in operations:
        assert world.apply(operation).refusal is None, operation
    return world


def bitmaps(expected: Expectation) -> dict[str, BitmapState]:
    return dict(expected.bitmaps["drive0"])


def renamed(name: str, to: str) -> tuple[Renaming, ...]:
    return (Renaming(node="drive0", name=name, to=to),)


def test_all_bitmaps_go_along_with_all_that_they_have() -> None:
    world = world_after(*KINDS)
    before = bitmaps(world.final())
    moved = world.apply(Migrate(disks=(DISK,)))
    assert bitmaps(moved) == before
    assert set(moved.digests) == {("drive0", name) for name in before}
    assert before["kept"].count == 512
    assert list(world.nodes["drive0"].bitmaps) == list(before)


def test_without_the_capability_the_image_hands_over_what_it_stores() -> None:
    world = world_after(*KINDS)
    before = bitmaps(world.final())
    moved = bitmaps(world.apply(Migrate(disks=(DISK,), bitmaps=False)))
    assert moved == {name: before[name] for name in ("kept", "kept off")}


def test_a_mapping_renames_and_leaves_behind() -> None:
    world = world_after(*KINDS)
    before = bitmaps(world.final())
    moved = bitmaps(world.apply(Migrate(disks=(DISK,), mapping=renamed("transient", "other"))))
    assert moved == {
        "other": before["transient"],
        "kept": before["kept"],
        "kept off": before["kept off"],
    }


def test_what_a_file_has_of_a_renamed_bitmap_is_inconsistent() -> None:
    world = world_after(*KINDS, CloseDisk(node="drive0"), OpenDisk(node="drive0"))
    moved = bitmaps(world.apply(Migrate(disks=(DISK,), mapping=renamed("kept", "other"))))
    assert moved["other"].count == 512
    assert moved["kept"].inconsistent
    assert not moved["kept off"].inconsistent


def test_a_bitmap_of_its_name_hides_what_a_file_has_of_a_renamed_one() -> None:
    world = world_after(*KINDS, CloseDisk(node="drive0"), OpenDisk(node="drive0"))
    world.apply(BitmapAdd(node="drive0", name="transient", granularity=512))
    mapping = (*renamed("transient", "kept"), *renamed("kept", "other"))
    moved = bitmaps(world.apply(Migrate(disks=(DISK,), mapping=mapping)))
    assert not moved["kept"].persistent
    world.apply(BitmapRemove(node="drive0", name="kept"))
    refusal = world.apply(Resize(node="drive0", size=512)).refusal
    assert refusal is not None
    assert refusal.reason is Reason.BITMAP_NOT_LOADED
    with pytest.raises(OpenOutcomeError):
        world.apply(ReopenDisk(node="drive0"))
    world.apply(CloseDisk(node="drive0"))
    reopened = bitmaps(world.apply(OpenDisk(node="drive0")))
    assert reopened["kept"].inconsistent
    assert reopened["other"].count == 512


def test_a_kill_behind_a_migration_leaves_what_the_file_has() -> None:
    stored = world_after(*KINDS, CloseDisk(node="drive0"), OpenDisk(node="drive0"))
    fresh = world_after(*KINDS)
    for world, names in ((stored, {"kept", "kept off"}), (fresh, set())):
        world.apply(Migrate(disks=(DISK,)))
        world.apply(Restart(how="kill"))
        reopened = bitmaps(world.apply(OpenDisk(node="drive0")))
        assert reopened.keys() == names
        assert all(each.inconsistent for each in reopened.values())


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        pytest.param(
            (
                BitmapAdd(node="drive0", name="bitmap0", disabled=True),
                ExportAdd(
                    export="export0", node="drive0", bitmaps=(ExportedBitmap(name="bitmap0"),)
                ),
            ),
            Reason.BITMAP_BUSY,
            id="busy",
        ),
        pytest.param(
            (
                BitmapAdd(node="drive0", name="bitmap0", persistent=True),
                CloseDisk(node="drive0"),
                OpenDisk(node="drive0", read_only=True),
            ),
            Reason.BITMAP_READ_ONLY,
            id="read-only",
        ),
        pytest.param(
            (
                BitmapAdd(node="drive0", name="bitmap0", persistent=True),
                CloseDisk(node="drive0"),
                OpenDisk(node="drive0"),
                Restart(how="kill"),
                OpenDisk(node="drive0"),
            ),
            Reason.BITMAP_INCONSISTENT,
            id="inconsistent",
        ),
        pytest.param(
            (BitmapAdd(node="drive0", name=LONG),), Reason.MIGRATED_NAME_TOO_LONG, id="long"
        ),
    ],
)
def test_one_bitmap_stops_a_migration(operations: tuple[Operation, ...], reason: Reason) -> None:
    world = world_after(*operations)
    disk = replace(DISK, read_only=world.nodes["drive0"].read_only)
    before = bitmaps(world.final())
    failed = world.apply(Migrate(disks=(disk,)))
    assert failed.refusal is not None
    assert failed.refusal.reason is reason
    assert bitmaps(failed) == before
    assert {name for _, name in failed.digests} == set(before)


def test_an_alias_is_short() -> None:
    world = world_after(BitmapAdd(node="drive0", name=LONG))
    assert world.apply(Migrate(disks=(DISK,), mapping=renamed(LONG, LONG))).refusal is None


def test_what_a_bitmap_left_out_is_like_stops_nothing() -> None:
    world = world_after(
        BitmapAdd(node="drive0", name="bitmap0", persistent=True),
        CloseDisk(node="drive0"),
        OpenDisk(node="drive0"),
        Restart(how="kill"),
        OpenDisk(node="drive0"),
        BitmapAdd(node="drive0", name="bitmap1"),
    )
    moved = world.apply(Migrate(disks=(DISK,), mapping=renamed("bitmap1", "bitmap1")))
    assert moved.refusal is None
    assert bitmaps(moved)["bitmap0"].inconsistent


@pytest.mark.parametrize(
    ("operations", "migration"),
    [
        pytest.param((), Migrate(), id="a disk is missing"),
        pytest.param((), Migrate(disks=(DISK, DISK)), id="a disk twice"),
        pytest.param((), Migrate(disks=(replace(DISK, format="raw"),)), id="another format"),
        pytest.param((), Migrate(disks=(replace(DISK, read_only=True),)), id="read-only"),
        pytest.param((), Migrate(disks=(DISK,), qemu=2), id="no such QEMU"),
        pytest.param((), Migrate(disks=(DISK,), qemu=1), id="a QEMU that cannot"),
        pytest.param(
            (Migrate(disks=(DISK,), mapping=()),), Migrate(disks=(DISK,)), id="a mapping stays"
        ),
        pytest.param(
            (ExportAdd(export="export0", node="drive0"),), Migrate(disks=(DISK,)), id="exported"
        ),
        pytest.param(
            (
                CreateImage(image="target0", layer=Layer(size=SIZE)),
                BlockdevBackup(node="drive0", target="target0", sync="none", job="job0"),
            ),
            Migrate(disks=(DISK,)),
            id="a job",
        ),
        pytest.param(
            KINDS, Migrate(disks=(DISK,), mapping=renamed("off", "kept")), id="a name that is taken"
        ),
        pytest.param(KINDS, Migrate(disks=(DISK,), mapping=renamed("none", "a")), id="no bitmap"),
    ],
)
def test_what_is_not_judged(operations: tuple[Operation, ...], migration: Migrate) -> None:
    world = world_after(*operations, others=(Traits(migrate=False),))
    with pytest.raises(InvalidOperationError):
        world.apply(migration)


def test_bitmaps_look_for_their_drive() -> None:
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=SIZE),), drive="device0"))
    world.apply(BitmapAdd(node="drive0", name="bitmap0"))
    with pytest.raises(InvalidOperationError):
        world.apply(Migrate(disks=(DISK,)))
    drive = replace(DISK, drive="device0")
    assert world.apply(Migrate(disks=(drive,))).refusal is None
    assert world.roots == {"device0": "drive0"}
