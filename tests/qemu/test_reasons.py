"""Every reason is provoked on the real QEMU, and the table must recognise what QEMU says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.driver import Driver
from qbprop.qemu.observation import Refused
from qbprop.qemu.reasons import TABLE, Row, classify, matches
from qbprop_model import operations as op
from qbprop_model.expectation import Reason, Refusal

MIB = 1 << 20
LONG = "n" * 1023
ODD = "ü\n'\"\\"


def disk(node: str, size: int = MIB, **layer: Any) -> op.AddDisk:
    return op.AddDisk(node=node, layers=(op.Layer(size=size, **layer),))


def add(name: str = "b", node: str = "drive0", **more: Any) -> op.BitmapAdd:
    return op.BitmapAdd(node=node, name=name, **more)


def backup(target: str = "target0", node: str = "drive0", **more: Any) -> op.BlockdevBackup:
    return op.BlockdevBackup(**({"sync": "full"} | more), node=node, target=target)


def to_file(target: str = "target0", node: str = "drive0", **more: Any) -> op.DriveBackup:
    return op.DriveBackup(**({"sync": "full"} | more), node=node, target=target)


def image(name: str = "target0", size: int = MIB, **layer: Any) -> op.CreateImage:
    return op.CreateImage(image=name, layer=op.Layer(size=size, **layer))


def both(*actions: op.Action) -> op.Transaction:
    return op.Transaction(actions=actions)


def converted(form: op.Format = "qcow2", *, bitmaps: bool = False) -> op.ConvertImage:
    """A conversion of the disk into another slot."""
    return op.ConvertImage(node="drive0", into="drive2", format=form, bitmaps=bitmaps)


def commit_above(job: str, above: str) -> op.BlockCommit:
    """A commit of the upper one of a pair that is ready and stays."""
    return op.BlockCommit(job=job, node="drive2", base="drive1", filter=above)


def compressed(offset: int, length: int, node: str = "drive0") -> op.WriteCompressed:
    return op.WriteCompressed(node=node, offset=offset, length=length, fill=1)


def broken(request: op.Request, errno: op.Errno = "EIO") -> op.AddDisk:
    fault = op.Fault(request=request, errno=errno)
    return replace(DISK, discard="unmap", faults=(fault,))


DISK = disk("drive0")
OVERLAY = (op.Layer(size=MIB, compat="0.10"), op.Layer(size=2 * MIB))
CLEAR = op.BitmapClear(node="drive0", name="b")

Case = tuple[Reason, str, list[op.Operation]]
"""A reason, its subject, and operations of which the last is refused for it."""

CASES: list[Case] = [
    (Reason.NODE_NOT_FOUND, "drive0", [CLEAR]),
    (Reason.NODE_NOT_FOUND, "drive0", [op.BitmapEnable(node="drive0", name="b")]),
    (Reason.NODE_NOT_FOUND, "drive0", [op.BitmapMerge(node="drive0", target="b")]),
    (Reason.NODE_NOT_FOUND, "device0", [DISK, op.BitmapClear(node="device0", name="b")]),
    (Reason.DEVICE_NOT_FOUND, "drive0", [add()]),
    (Reason.DEVICE_NOT_FOUND, "drive0", [to_file()]),
    (Reason.RESIZE_NOT_FOUND, "drive0", [op.Resize(node="drive0", size=512)]),
    (Reason.RESIZE_NOT_FOUND, "device0", [DISK, op.Resize(node="device0", size=512)]),
    (Reason.GUEST_NOT_FOUND, "drive0", [op.Write(node="drive0", offset=0, length=1, fill=1)]),
    (Reason.GUEST_NOT_FOUND, "device0", [DISK, op.Read(node="device0", offset=0, length=1)]),
    (Reason.GUEST_NOT_FOUND, "device0", [DISK, compressed(0, 65536, "device0")]),
    (Reason.BITMAP_EXISTS, "b", [DISK, add(), add()]),
    (Reason.BITMAP_EXISTS, LONG, [DISK, add(LONG), add(LONG)]),
    (Reason.BITMAP_NAME_EMPTY, "", [DISK, add("")]),
    (Reason.BITMAP_NAME_TOO_LONG, "", [DISK, add("x" * 1024)]),
    (Reason.BAD_GRANULARITY, "", [DISK, add(granularity=1000)]),
    (Reason.GRANULARITY_OUT_OF_RANGE, "", [DISK, add(granularity=1 << 32)]),
    (Reason.BITMAP_NOT_FOUND, "b", [DISK, CLEAR]),
    (Reason.BITMAP_NOT_FOUND, ODD, [DISK, op.BitmapClear(node="drive0", name=ODD)]),
    (Reason.BITMAP_NOT_FOUND, LONG, [DISK, op.BitmapRemove(node="drive0", name=LONG)]),
    (
        Reason.BITMAP_BUSY,
        LONG,
        [
            DISK,
            add(LONG),
            both(
                op.BitmapRemove(node="drive0", name=LONG), op.BitmapClear(node="drive0", name=LONG)
            ),
        ],
    ),
    (
        Reason.BITMAP_SIZES_DIFFER,
        "",
        [
            DISK,
            disk("drive1", 512),
            add(),
            add(node="drive1"),
            op.BitmapMerge(
                node="drive0", target="b", sources=(op.MergeSource(name="b", node="drive1"),)
            ),
        ],
    ),
    (Reason.ABORTED, "", [both(op.Abort())]),
    (Reason.GROUPED_UNSUPPORTED, "", [DISK, op.Transaction(actions=(add(),), grouped=True)]),
    (Reason.PAST_END, "", [DISK, op.Write(node="drive0", offset=MIB, length=1, fill=1)]),
    (Reason.PAST_END, "", [DISK, op.WriteZeroes(node="drive0", offset=MIB - 1, length=2)]),
    (Reason.PAST_END, "", [DISK, op.Discard(node="drive0", offset=MIB + 1, length=0)]),
    (
        Reason.PAST_END,
        "",
        [DISK, op.Read(node="drive0", offset=op.SIZE_LIMIT, length=op.SIZE_LIMIT)],
    ),
    (Reason.PAST_END, "", [DISK, compressed(MIB, 65536)]),
    (Reason.NOT_SUPPORTED, "", [disk("drive0", format="raw"), compressed(0, 65536)]),
    (Reason.NOT_ALIGNED, "", [DISK, compressed(512, 65536)]),
    (Reason.NOT_SECTOR_ALIGNED, "", [DISK, compressed(1, 65536)]),
    (Reason.ALREADY_ALLOCATED, "", [DISK, compressed(0, 65536), compressed(0, 65536)]),
    (Reason.SIZE_NOT_ALIGNED, "", [DISK, op.Resize(node="drive0", size=1000)]),
    (Reason.SIZE_TOO_LARGE, "", [DISK, op.Resize(node="drive0", size=1 << 62)]),
    (Reason.SIZE_TOO_LARGE, "", [DISK, op.Resize(node="drive0", size=op.SIZE_LIMIT - 511)]),
    (
        Reason.SIZE_TOO_LARGE,
        "",
        [disk("drive0", format="raw"), op.Resize(node="drive0", size=op.SIZE_LIMIT)],
    ),
    (
        Reason.GROW_UNSUPPORTED,
        "",
        [op.AddDisk(node="drive0", layers=OVERLAY), op.Resize(node="drive0", size=3 * MIB)],
    ),
    (
        Reason.BACKUP_BITMAP_NOT_FOUND,
        LONG,
        [DISK, image(), backup(sync="incremental", bitmap=LONG)],
    ),
    (
        Reason.BITMAP_MODE_USELESS,
        "top",
        [DISK, add(), image(), backup(sync="top", bitmap="b", bitmap_mode="never")],
    ),
    (
        Reason.BITMAP_MODE_NOT_ON_SUCCESS,
        "incremental",
        [DISK, add(), image(), backup(sync="incremental", bitmap="b", bitmap_mode="never")],
    ),
    (Reason.BITMAP_NEEDED, "bitmap", [DISK, image(), backup(sync="bitmap")]),
    (Reason.BITMAP_MODE_NEEDED, "", [DISK, add(), image(), backup(bitmap="b")]),
    (Reason.BITMAP_MODE_WITHOUT_BITMAP, "", [DISK, image(), backup(bitmap_mode="always")]),
    (
        Reason.SYNC_NONE_WITH_BITMAP,
        "none",
        [DISK, add(), image(), backup(sync="none", bitmap="b", bitmap_mode="always")],
    ),
    (Reason.BACKUP_SIZES_DIFFER, "", [DISK, image(size=512), backup()]),
    (Reason.COMPRESS_UNSUPPORTED, "", [DISK, image(format="raw"), backup(compress=True)]),
    (Reason.JOB_ID_INVALID, "", [DISK, image(), backup(job=None)]),
    (Reason.JOB_ID_INVALID, "0", [DISK, image(), backup(job="0")]),
    (
        Reason.JOB_ID_TAKEN,
        "job0",
        [DISK, image(), image("target1"), both(backup(), backup("target1"))],
    ),
    (Reason.NO_SUCH_FILE, "", [DISK, backup()]),
    (Reason.NO_SUCH_FILE, "target0", [DISK, to_file(mode="existing")]),
    (Reason.NO_SUCH_FILE, "target0", [op.RebaseImage(image="target0")]),
    (
        Reason.NO_SUCH_FILE,
        "target0",
        [op.CreateImage(image="target1", layer=op.Layer(size=MIB), backing="target0")],
    ),
    (Reason.IMAGE_REFUSED, "", [image(extended_l2=True, compat="0.10")]),
    (Reason.IMAGE_REFUSED, "", [image(extended_l2=True, cluster_size=4096)]),
    (Reason.IMAGE_REFUSED, "", [image(size=1 << 40, cluster_size=512)]),
    (Reason.IMAGE_REFUSED, "", [image(size=1 << 62)]),
    (
        Reason.IMAGE_REFUSED,
        "",
        [op.AddDisk(node="drive0", layers=(op.Layer(size=MIB),), detect_zeroes="unmap")],
    ),
    (Reason.NODE_BUSY, "target0", [DISK, image(), both(backup(), backup(job="job1"))]),
    (
        Reason.IMAGE_LOCKED,
        "",
        [DISK, image(), both(backup(), to_file(mode="existing", job="job1"))],
    ),
    (Reason.WRONG_FORMAT, "", [DISK, image(format="raw"), to_file(mode="existing")]),
    (
        Reason.BACKING_UNSUPPORTED,
        "",
        [
            image(),
            op.CreateImage(
                image="target1", layer=op.Layer(size=MIB, format="raw"), backing="target0"
            ),
        ],
    ),
    (Reason.BACKING_UNSUPPORTED, "", [image(format="raw"), op.RebaseImage(image="target0")]),
]

HELD = backup(speed=1, max_workers=1, max_chunk=65536, filter="filter0")
BESIDE = replace(HELD, target="target1", job="job1", filter="filter1")
PENDING = backup(auto_finalize=False)
OVER = replace(PENDING, node="drive1")
ENDLESS = backup(sync="none", compress=True)
FLIGHT = [DISK, image(), op.Write(node="drive0", offset=0, length=MIB, fill=1), HELD]
"""A job in flight."""

CASES += [
    (Reason.PERMISSION_DENIED, "drive0", [*FLIGHT, op.Resize(node="drive0", size=512)]),
    (Reason.PERMISSION_DENIED, "drive0", [*FLIGHT, compressed(0, 65536)]),
    (
        Reason.PERMISSION_DENIED,
        "filter1",
        [*FLIGHT, image("target1"), BESIDE, compressed(0, 65536, "filter1")],
    ),
    (
        Reason.DEVICE_IN_USE,
        "device0",
        [replace(DISK, drive="device0"), *FLIGHT[1:], op.Resize(node="device0", size=512)],
    ),
    (
        Reason.NODE_NAME_TAKEN,
        "filter0",
        [*FLIGHT, image("target1"), backup("target1", job="job1", filter="filter0")],
    ),
    (Reason.NODE_NAME_TAKEN, "target0", [*FLIGHT, backup(job="job1")]),
    (
        Reason.COPY_BEFORE_FAILED,
        "",
        [
            DISK,
            image(),
            op.Write(node="drive0", offset=0, length=MIB, fill=1),
            backup(compress=True),
            ENDLESS,
            op.Write(node="drive0", offset=0, length=1, fill=2),
        ],
    ),
    (Reason.IO_ERROR, "", [broken("read"), op.Read(node="drive0", offset=0, length=1)]),
    (Reason.IO_ERROR, "", [broken("write"), op.Write(node="drive0", offset=0, length=1, fill=1)]),
    (
        Reason.NO_SPACE,
        "",
        [broken("write_zeroes", "ENOSPC"), op.WriteZeroes(node="drive0", offset=0, length=1)],
    ),
    (
        Reason.NO_SPACE,
        "",
        [broken("discard", "ENOSPC"), op.Discard(node="drive0", offset=0, length=512)],
    ),
    (
        Reason.SIZE_NOT_WRITTEN,
        "",
        [broken("resize", "ENOSPC"), op.Resize(node="drive0", size=2 * MIB)],
    ),
    (Reason.CHUNK_TOO_SMALL, "65536", [DISK, image(), backup(max_chunk=4096)]),
    (Reason.WORKERS_OUT_OF_RANGE, "", [DISK, image(), backup(max_workers=0)]),
    (Reason.JOB_NOT_FOUND, "", [op.JobPause(job="job0")]),
    (Reason.BLOCK_JOB_NOT_FOUND, "job0", [op.JobSetSpeed(job="job0")]),
    (Reason.BLOCK_JOB_NOT_FOUND, "job0", [op.JobDismiss(job="job0", block=True)]),
    (
        Reason.VERB_REFUSED,
        "'pending' cannot accept command verb 'pause'",
        [DISK, image(), PENDING, op.JobPause(job="job0")],
    ),
    (
        Reason.VERB_REFUSED,
        "'running' cannot accept command verb 'complete'",
        [*FLIGHT, op.JobComplete(job="job0", block=True)],
    ),
    (Reason.ALREADY_PAUSED, "", [*FLIGHT, op.JobPause(job="job0"), op.JobPause(job="job0")]),
    (Reason.NOT_PAUSED, "", [*FLIGHT, op.JobResume(job="job0", block=True)]),
    (
        Reason.CANCEL_PAUSED,
        "job0",
        [*FLIGHT, op.JobPause(job="job0"), op.JobCancel(job="job0", block=True)],
    ),
]

RESTS: dict[op.Operation, dict[str, str]] = {
    HELD: {"job0": "running"},
    ENDLESS: {"job0": "running"},
    BESIDE: {"job0": "running", "job1": "running"},
    PENDING: {"job0": "pending"},
    OVER: {"job0": "pending"},
}
"""Where the jobs come to rest that stay in flight."""

SHARED = op.ExportAdd(
    export="export0", node="drive0", bitmaps=(op.ExportedBitmap(name="b"),), writable=True
)


def export(name: str = "", **more: Any) -> op.ExportAdd:
    bitmaps = (op.ExportedBitmap(name=name),) if name else ()
    usual: dict[str, Any] = {"export": "export1", "node": "drive0", "bitmaps": bitmaps}
    return op.ExportAdd(**(usual | more))


def ask(offset: int = 0, length: int = 1, bitmap: str = "b") -> op.ReadDirtyExtents:
    return op.ReadDirtyExtents(export="export0", bitmap=bitmap, offset=offset, length=length)


SECOND = op.ExportAdd(export="export1", node="drive0", name="export0")
CASES += [
    (Reason.EXPORT_ID_INVALID, "", [DISK, export(export="")]),
    (Reason.EXPORT_ID_TAKEN, "export0", [DISK, add(), SHARED, export(export="export0")]),
    (Reason.EXPORT_NAME_TAKEN, "export0", [DISK, add(), SHARED, SECOND]),
    (Reason.EXPORT_NODE_NOT_FOUND, "drive1", [export(node="drive1")]),
    (Reason.EXPORT_BITMAP_NOT_FOUND, ODD, [DISK, export(ODD, writable=True)]),
    (Reason.EXPORT_READ_ONLY, LONG, [DISK, add(LONG), export(LONG)]),
    (Reason.EXPORT_NOT_FOUND, "export0", [op.ExportDel(export="export0")]),
    (Reason.EXPORT_IN_USE, "export0", [DISK, add(), SHARED, ask(), op.ExportDel(export="export0")]),
    (Reason.BITMAP_BUSY, "b", [DISK, add(), SHARED, CLEAR]),
    (Reason.BITMAP_BUSY, "b", [DISK, add(), SHARED, export("b", writable=True)]),
    (Reason.PERMISSION_DENIED, "drive0", [DISK, add(), SHARED, op.Resize(node="drive0", size=512)]),
    (Reason.PERMISSION_DENIED, "drive0", [*FLIGHT, export(writable=True)]),
    (Reason.NO_SUCH_EXPORT, "export0", [ask()]),
    (Reason.NO_SUCH_CONTEXT, ODD, [DISK, add(), SHARED, ask(bitmap=ODD)]),
    (Reason.EMPTY_RANGE, "", [DISK, add(), SHARED, ask(length=0)]),
    (Reason.PAST_END, "", [DISK, add(), SHARED, ask(MIB)]),
]


def offline(kind: Literal["add", "clear"], **more: Any) -> op.ChangeBitmap:
    return op.ChangeBitmap(node="drive0", name="b", actions=(op.OfflineAction(kind=kind),), **more)


RAW = op.AddDisk(node="drive0", layers=(op.Layer(size=MIB, format="raw"),))
OLD = op.AddDisk(node="drive0", layers=(op.Layer(size=MIB, compat="0.10"),))
HUGE = op.AddDisk(node="drive0", layers=(op.Layer(size=8 << 40),))
CLOSED = [DISK, op.CloseDisk(node="drive0")]
FROZEN = [*CLOSED, op.OpenDisk(node="drive0", read_only=True)]
STORED = [DISK, add(persistent=True), *FROZEN[1:]]
LOST = [
    *(DISK, add(persistent=True), op.CloseDisk(node="drive0"), op.OpenDisk(node="drive0")),
    *(op.Restart(how="kill"), op.OpenDisk(node="drive0")),
]
SNAPSHOT = op.BlockdevSnapshot(node="drive0", overlay="drive1")
ABOVE = [DISK, op.AddDisk(node="drive1", layers=(op.Layer(size=MIB),)), SNAPSHOT]
FAILS_LATE = converted(bitmaps=True)
PAIR = [
    *(op.AddDisk(node=f"drive{n}", layers=(op.Layer(size=MIB),)) for n in (1, 2)),
    op.BlockdevSnapshot(node="drive1", overlay="drive2"),
]
OTHER_RAW = op.AddDisk(node="drive2", layers=(op.Layer(size=MIB, format="raw"),))
HIDDEN = [
    *(
        DISK,
        add(persistent=True),
        op.CloseDisk(node="drive0"),
        op.OpenDisk(node="drive0"),
        add("c"),
    ),
    op.Migrate(
        disks=(op.Opening(node="drive0"),),
        mapping=(
            op.Renaming(node="drive0", name="b", to="a"),
            op.Renaming(node="drive0", name="c", to="b"),
        ),
    ),
    op.BitmapRemove(node="drive0", name="b"),
]
CASES += [
    (Reason.BITMAP_EXISTS, "b", [DISK, add(), add(persistent=True)]),
    (Reason.BITMAP_READ_ONLY, "b", [*STORED, CLEAR]),
    (Reason.BITMAP_INCONSISTENT, "b", [*LOST, CLEAR]),
    (Reason.BITMAP_INCONSISTENT, "b", [*LOST, op.Resize(node="drive0", size=512)]),
    (Reason.PERSISTENCE_UNSUPPORTED, "drive0", [RAW, add(persistent=True)]),
    (Reason.PERSISTENT_IN_OLD_IMAGE, "", [OLD, add(persistent=True)]),
    (Reason.PERSISTENT_NAME_TOO_LONG, "", [DISK, add("x" * 1024, persistent=True)]),
    (Reason.PERSISTENT_TOO_LARGE, "", [HUGE, add(persistent=True, granularity=512)]),
    (
        Reason.MIGRATED_NAME_TOO_LONG,
        LONG,
        [DISK, add(LONG), op.Migrate(disks=(op.Opening(node="drive0"),))],
    ),
    (
        Reason.BITMAP_BUSY,
        "b",
        [DISK, add(disabled=True), SHARED, op.Migrate(disks=(op.Opening(node="drive0"),))],
    ),
    (Reason.BITMAP_NOT_LOADED, "", [*HIDDEN, op.Resize(node="drive0", size=512)]),
    (Reason.NODE_IN_USE, "drive0", [*ABOVE, op.CloseDisk(node="drive0")]),
    (Reason.NODE_IN_USE, "drive0", [*ABOVE, SNAPSHOT]),
    (
        Reason.OVERLAY_HAS_BACKING,
        "",
        [*ABOVE, OTHER_RAW, op.BlockdevSnapshot(node="drive2", overlay="drive1")],
    ),
    (
        Reason.OVERLAY_UNSUPPORTED,
        "",
        [*ABOVE, OTHER_RAW, op.BlockdevSnapshot(node="drive1", overlay="drive2")],
    ),
    (
        Reason.ROOT_NOT_FOUND,
        "drive1",
        [DISK, op.BlockCommit(job="job0", node="drive1", base="drive0")],
    ),
    (Reason.DEVICE_NOT_FOUND, "drive1", [DISK, op.BlockStream(job="job0", node="drive1")]),
    (
        Reason.MIRRORED_INTO_ITSELF,
        "",
        [DISK, op.BlockdevMirror(job="job0", node="drive0", target="drive0", filter="filter0")],
    ),
    (Reason.DEVICE_NOT_FOUND, "drive1", [DISK, SNAPSHOT]),
    (Reason.JOB_ID_TAKEN, "job0", [*FLIGHT, *PAIR, commit_above("job0", "filter1")]),
    (Reason.NODE_NAME_TAKEN, "filter0", [*FLIGHT, *PAIR, commit_above("job1", "filter0")]),
    (Reason.NO_NODE_TO_CLOSE, "drive0", [op.CloseDisk(node="drive0")]),
    (Reason.NO_NODE_TO_CLOSE, "device0", [op.CloseDisk(node="device0")]),
    (Reason.NO_NODE_TO_CLOSE, "drive0", [op.ReopenDisk(node="drive0")]),
    (Reason.NODE_IN_USE, "drive0", [DISK, add(), SHARED, op.CloseDisk(node="drive0")]),
    (Reason.NODE_IN_USE, "drive0", [*FLIGHT, op.CloseDisk(node="drive0")]),
    (
        Reason.NODE_IN_USE,
        "device0",
        [replace(DISK, drive="device0"), *FLIGHT[1:], op.CloseDisk(node="device0")],
    ),
    (Reason.NODE_NAME_TAKEN, "drive0", [DISK, op.OpenDisk(node="drive0")]),
    (Reason.NODE_NAME_TAKEN, "drive0", [DISK, op.OpenDisk(node="drive0", drive="device0")]),
    (
        Reason.DRIVE_NAME_TAKEN,
        "device0",
        [replace(DISK, drive="device0"), op.OpenDisk(node="drive0", drive="device0")],
    ),
    (Reason.NO_SUCH_FILE, "", [op.OpenDisk(node="drive0")]),
    (Reason.NO_SUCH_FILE, "", [op.OpenDisk(node="drive0", drive="device0")]),
    (Reason.WRONG_FORMAT, "", [RAW, op.CloseDisk(node="drive0"), op.OpenDisk(node="drive0")]),
    (
        Reason.READ_ONLY,
        "",
        [*FROZEN, op.Write(node="drive0", offset=0, length=1, fill=1)],
    ),
    (Reason.READ_ONLY, "", [*FROZEN, compressed(0, 65536)]),
    (Reason.READ_ONLY, "", [*ABOVE, compressed(0, 65536)]),
    (
        Reason.PERMISSION_DENIED,
        "drive0",
        [*ABOVE, image(), OVER, compressed(0, 65536)],
    ),
    (Reason.SIZE_NOT_POSITIVE, "", [*CLOSED, op.ResizeImage(node="drive0", size=0)]),
    (Reason.SIZE_NOT_ALIGNED, "", [*CLOSED, op.ResizeImage(node="drive0", size=1)]),
    (Reason.IMAGE_LOCKED, "", [DISK, offline("add")]),
    (Reason.BITMAP_NOT_FOUND, "b", [*CLOSED, offline("clear")]),
    (Reason.PERSISTENCE_UNSUPPORTED, "", [RAW, CLOSED[1], offline("add", format="raw")]),
    (Reason.PERSISTENT_IN_OLD_IMAGE, "", [OLD, CLOSED[1], offline("add")]),
    (Reason.WRONG_FORMAT, "", [RAW, CLOSED[1], offline("add")]),
    (Reason.NO_SUCH_FILE, "", [offline("add")]),
    (Reason.BITMAP_INCONSISTENT, "b", [*LOST[:-1], op.ResizeImage(node="drive0", size=512)]),
    (Reason.BITMAP_INCONSISTENT, "b", [*LOST[:-1], FAILS_LATE]),
    (Reason.SOURCE_WITHOUT_BITMAPS, "", [RAW, CLOSED[1], converted("raw", bitmaps=True)]),
    (Reason.SOURCE_WITHOUT_BITMAPS, "", [OLD, CLOSED[1], converted(bitmaps=True)]),
    (Reason.WRONG_FORMAT, "", [RAW, CLOSED[1], converted()]),
    (Reason.NO_SUCH_FILE, "", [converted()]),
    (Reason.NO_BACKING_FILE, "", [*CLOSED, op.CommitImage(node="drive0")]),
    (Reason.NO_BACKING_FILE, "", [RAW, CLOSED[1], op.CommitImage(node="drive0", format="raw")]),
    (Reason.IMAGE_LOCKED, "", [DISK, op.CommitImage(node="drive0")]),
    (Reason.NO_SUCH_FILE, "", [op.CompareImages(node="drive0", other="drive1")]),
    (
        Reason.IMAGES_DIFFER,
        "",
        [
            DISK,
            op.Write(node="drive0", offset=0, length=1, fill=1),
            CLOSED[1],
            op.AddDisk(node="drive1", layers=(op.Layer(size=MIB),)),
            op.CloseDisk(node="drive1"),
            op.CompareImages(node="drive0", other="drive1"),
        ],
    ),
    (Reason.EXPORT_NOT_WRITABLE, "", [*FROZEN, export(writable=True)]),
]

REFUSALS = set(Reason) - {Reason.JOB_CANCELLED}
"""The others tell why a job ended."""

AMBIGUOUS = {
    Reason.ALREADY_ALLOCATED: {Reason.PAST_END},
    Reason.EMPTY_RANGE: {Reason.PAST_END},
    Reason.READ_ONLY: {Reason.PAST_END, Reason.READ_ONLY},
    Reason.EXPORT_NODE_NOT_FOUND: {Reason.RESIZE_NOT_FOUND},
    Reason.DEVICE_IN_USE: {Reason.DEVICE_IN_USE, Reason.NODE_BUSY},
    Reason.COPY_BEFORE_FAILED: {Reason.PAST_END, Reason.COPY_BEFORE_FAILED},
    Reason.IO_ERROR: {Reason.PAST_END, Reason.COPY_BEFORE_FAILED},
}
"""A reason whose text is also that of one that is tried before."""


@pytest.fixture(scope="module", params=["nbd", "hmp"])
def driver(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    folder: Path = tmp_path_factory.mktemp("qemu")
    transport: Literal["nbd", "hmp"] = request.param
    with Driver(binaries, folder, transport=transport) as made:
        yield made


def test_the_table_has_every_reason() -> None:
    assert set(TABLE) == REFUSALS
    assert all(TABLE.values())


def test_every_reason_is_provoked() -> None:
    assert {reason for reason, _, _ in CASES} == REFUSALS


def is_tuned(operation: op.Operation) -> bool:
    actions = operation.actions if isinstance(operation, op.Transaction) else (operation,)
    return any(isinstance(each, op.Backup) and each.tuned for each in actions)


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{i}-{reason}" for i, (reason, _, _) in enumerate(CASES)]
)
def test_qemu_says_it_like_this(driver: Driver, case: Case) -> None:
    reason, subject, operations = case
    if not all(map(driver.can_perform, operations)):
        pytest.skip("this QEMU has no such command")
    if not driver.features.blockdev_backup_x_perf and any(map(is_tuned, operations)):
        pytest.skip("this QEMU knows no x-perf")
    if operations[-1] == FAILS_LATE and not driver.features.skip_broken_bitmaps:
        pytest.skip("qemu-img of this QEMU finds that out when it has done half of it")
    driver.reset()
    *before, last = operations
    launched = [each for each in before if isinstance(each, op.Restart | op.Migrate)]
    launches = driver.launches + len(launched)
    for each in before:
        assert driver.perform(each, rests=RESTS.get(each)).refused is None
    refused = driver.perform(last).refused
    assert refused is not None
    assert matches(Refusal(reason, subject), refused, driver.features), refused
    assert classify(refused, driver.features) in AMBIGUOUS.get(reason, {reason})
    if subject:
        other = Refusal(reason, subject + "?")
        nameless = refused.text == "Duplicate node name"  # 5.2
        assert nameless or not matches(other, refused, driver.features)
    assert driver.launches == launches


def test_a_subject_is_text_and_no_pattern(driver: Driver) -> None:
    refused = Refused("qmp", "GenericError", "Dirty bitmap 'xy' not found")
    assert not matches(Refusal(Reason.BITMAP_NOT_FOUND, "x."), refused, driver.features)


def test_channel_class_and_feature_count(driver: Driver) -> None:
    said = Refused("qmp", "GenericError", "is busy")
    row = Row("qmp", "GenericError", "busy")
    assert row.matches(said, driver.features, "")
    assert not replace(row, needs=lambda _: False).matches(said, driver.features, "")
    assert not row.matches(Refused("guest", "GenericError", "is busy"), driver.features, "")
    assert not row.matches(Refused("qmp", "DeviceNotFound", "is busy"), driver.features, "")
