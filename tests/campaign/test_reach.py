"""What the summary tells of where the steps reached."""

from dataclasses import replace

import pytest

from qbprop.campaign.reach import reached
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapMerge,
    BlockCommit,
    BlockdevMirror,
    BlockdevSnapshot,
    Discard,
    DriveBackup,
    ExportAdd,
    ExportedBitmap,
    Layer,
    MergeSource,
    Operation,
    ReadDirtyExtents,
    Transaction,
    Write,
)
from qbprop_model.world import World

KIB = 1024
START: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=512 * KIB),)),
    AddDisk(node="drive1", layers=(Layer(size=512 * KIB),), drive="device1"),
    BitmapAdd(node="drive0", name="bitmap0", granularity=4 * KIB),
    BitmapAdd(node="drive0", name="bitmap1", granularity=64 * KIB),
    BitmapAdd(node="drive1", name="bitmap0", granularity=4 * KIB),
    BitmapAdd(node="drive0", name="odd", granularity=4 * KIB),
)
WRITE = Write(node="drive0", offset=0, length=4 * KIB, stamp=1)


EXPORT = ExportAdd(
    export="export0",
    node="drive0",
    bitmaps=(ExportedBitmap(name="odd"),),
    writable=True,
)


def ask(offset: int, length: int) -> ReadDirtyExtents:
    return ReadDirtyExtents(export="export0", bitmap="odd", offset=offset, length=length)


def merge(target: str, source: str, node: str | None = None) -> BitmapMerge:
    where = MergeSource(name=source, node=node)
    return BitmapMerge(node="drive0", target=target, sources=(where,))


def backup(bitmap: str) -> DriveBackup:
    return DriveBackup(node="drive0", target="target0", sync="incremental", bitmap=bitmap)


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (WRITE, {"whole clusters"}),
        (Discard(node="drive0", offset=1, length=2), {"clusters in part"}),
        (Discard(node="drive0", offset=1, length=0), {"of nothing"}),
        (
            Write(node="drive0", offset=255 * KIB, length=2 * KIB, stamp=1),
            {"clusters in part", "across words"},
        ),
        (
            Write(node="device1", offset=508 * KIB, length=4 * KIB, stamp=1),
            {"whole clusters", "to the last cluster"},
        ),
        (merge("bitmap0", "bitmap0"), {"same granularity"}),
        (merge("bitmap1", "bitmap0"), {"fine into coarse"}),
        (merge("bitmap0", "bitmap1"), {"coarse into fine"}),
        (merge("bitmap0", "bitmap0", "drive1"), {"from another disk", "same granularity"}),
        (backup("bitmap0"), {"incremental", "a part"}),
        (
            ExportAdd(
                export="export1",
                node="drive1",
                bitmaps=(ExportedBitmap(name="bitmap1", node="drive0"),),
            ),
            {"of disks", "read-only", "with bitmaps named by node"},
        ),
        (ask(0, 8 * KIB), {"a part"}),
        (ask(100, 1), {"all"}),
        (ask(4 * KIB, 1), {"none"}),
        (Transaction(actions=(merge("bitmap1", "bitmap0"),)), {"fine into coarse"}),
    ],
)
def test_what_an_operation_reaches(operation: Operation, found: set[str]) -> None:
    world = World()
    for each in (*START, EXPORT, WRITE):
        world.apply(each)
    expected = world.apply(operation)
    assert expected.refusal is None
    assert {what for _, what in reached(operation, expected, world)} == found


def test_a_backup_tells_how_much_it_copied() -> None:
    world = World()
    for each in START:
        world.apply(each)
    nothing = world.apply(backup("bitmap0"))
    assert ("copied", "nothing") in set(reached(backup("bitmap0"), nothing, world))
    world.apply(Write(node="drive0", offset=0, length=512 * KIB, stamp=1))
    everything = world.apply(backup("bitmap1"))
    assert ("copied", "all") in set(reached(backup("bitmap1"), everything, world))


def test_a_commit_that_stays_counts_as_a_mirror() -> None:
    world = World()
    for name in ("drive0", "drive1"):
        world.apply(AddDisk(node=name, layers=(Layer(size=512 * KIB),)))
    world.apply(BlockdevSnapshot(node="drive0", overlay="drive1"))
    commit = BlockCommit(job="job0", node="drive1", base="drive0")
    for operation, found in (
        (commit, []),
        (replace(commit, filter="filter0"), [("mirrors", "commit")]),
    ):
        trial = world.copy()
        expected = trial.apply(operation)
        assert list(reached(operation, expected, trial)) == found


def test_a_mirror_tells_how_it_copies() -> None:
    world = World()
    for name in ("drive0", "drive1"):
        world.apply(AddDisk(node=name, layers=(Layer(size=512 * KIB),)))
    plain = BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0", sync="top")
    blocking = replace(plain, copy_mode="write-blocking")
    for operation, found in ((plain, "top"), (blocking, "top, write-blocking")):
        trial = world.copy()
        expected = trial.apply(operation)
        assert list(reached(operation, expected, trial)) == [("mirrors", found)]
