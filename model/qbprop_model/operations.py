"""The vocabulary: every operation, with its meaning and units. All sizes are in bytes.

An operation is the only language between the rooms of qbprop: the machine chooses it, the
model says what must follow, the driver performs it, a trace is a list of them. Objects live
in fixed slots with fixed names (:data:`NODES`, :data:`DRIVES`, :data:`BITMAPS`,
:data:`TARGETS`); an operation on an empty slot is legal and its refusal is predicted.
"""

from dataclasses import dataclass
from typing import Literal

from qbprop_model.data import Data, Fill, Stamp

NODES = ("drive0", "drive1", "drive2")
"""Node names of the disks."""

DRIVES = ("device0", "device1", "device2")
"""Drive names (BlockBackends) under which disk k may be attached as well."""

BITMAPS = ("bitmap0", "bitmap1", "bitmap2", "bitmap3", "odd name/%41", "ü\n'\"\\", "n" * 1023)
"""Bitmap names that QEMU accepts, the odd ones last."""

BAD_BITMAPS = ("", "x" * 1024)
"""Bitmap names that QEMU refuses: empty, and longer than 1023 bytes."""

TARGETS = ("target0", "target1", "target2", "target3")
"""Image files that backups are written to; a backing file has the smaller number."""

JOBS = ("job0", "job1", "job2")
"""Job ids."""

FILTERS = ("filter0", "filter1", "filter2")
"""Node names that jobs may give the filter that they put above their disk."""

EXPORTS = ("export0", "export1", "export2")
"""Ids of NBD exports, and the names that clients know them by."""

BAD_EXPORTS = ("", "0export")
"""Ids that QEMU refuses: empty, and not beginning with a letter."""

SIZE_LIMIT = 2**63 - 1
"""The largest number QMP accepts for a size or an offset."""

TIMES_LIMIT = 16
"""How often one fault comes at most, unless it comes for ever."""

DRIVE_FAULTS = 5
"""How often requests to a drive may fail in all: the human monitor's lines have 1023 bytes."""

CLUSTER_SIZES = tuple(1 << bits for bits in range(9, 22))
"""The cluster sizes of qcow2, 512 bytes to 2 MiB."""

Format = Literal["qcow2", "raw"]
Compat = Literal["1.1", "0.10"]
SyncMode = Literal["full", "top", "incremental", "bitmap", "none"]
MirrorSync = Literal["full", "top", "none"]
CopyMode = Literal["background", "write-blocking"]
BitmapMode = Literal["on-success", "never", "always"]
OnError = Literal["report", "ignore", "stop", "enospc"]
Request = Literal[
    "read",
    "write",
    "write_zeroes",
    "discard",
    "flush",
    "block_status",
    "resize",
    "write_aio",
]
BELOW: tuple[Request, ...] = ("resize", "write_aio")
"""The requests that fail below a qcow2 layer: of its file, not of its guest."""

Errno = Literal["EIO", "ENOSPC"]


class InvalidOperationError(ValueError):
    """A value that no operation of the vocabulary can have."""


class OpenOutcomeError(InvalidOperationError):
    """The operation makes sense, but what QEMU does with it is not determined."""


def _natural(what: str, value: int, limit: int = SIZE_LIMIT) -> None:
    if not 0 <= value <= limit:
        raise InvalidOperationError(f"{what} must lie between 0 and {limit}, not {value}")


def _cluster(size: int) -> None:
    if size not in CLUSTER_SIZES:
        raise InvalidOperationError(
            f"cluster_size must be a power of two from 512 to 2 MiB, not {size}"
        )


@dataclass(frozen=True, kw_only=True)
class _Sourced:
    """Data from exactly one of ``fill`` (a byte value) and ``stamp`` (a number)."""

    fill: int | None = None
    stamp: int | None = None

    def __post_init__(self) -> None:
        if (self.fill is None) == (self.stamp is None):
            raise InvalidOperationError("give exactly one of 'fill' and 'stamp'")
        _natural("fill", self.fill or 0, 255)
        _natural("stamp", self.stamp or 0, 2**32 - 1)

    @property
    def data(self) -> Data:
        """What is written, as a value that renders its bytes."""
        return Fill(self.fill) if self.fill is not None else Stamp(self.stamp or 0)


@dataclass(frozen=True, kw_only=True)
class Pattern(_Sourced):
    """Data that is in an image before QEMU opens it, written by ``qemu-io``."""

    offset: int
    length: int

    def __post_init__(self) -> None:
        _Sourced.__post_init__(self)
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One image of a disk's chain. The qcow2 options mean nothing for a raw image.

    ``size`` is the virtual size, a multiple of 512; ``compat`` "0.10" is qcow2 version 2, "1.1"
    version 3; ``cluster_size`` is a power of two, 512 to 2 MiB; ``data`` is written in order.
    """

    size: int
    format: Format = "qcow2"
    cluster_size: int = 65536
    compat: Compat = "1.1"
    extended_l2: bool = False
    data: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        _natural("size", self.size)
        _cluster(self.cluster_size)
        if self.size % 512:
            raise InvalidOperationError(f"size must be a multiple of 512, not {self.size}")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An error that a node has requests of one kind fail with: those over byte ``offset``.

    ``offset`` is a multiple of 512 and means nothing for a flush or a resize. The first
    ``times`` such requests fail, with 0 all of them.

    A "write_aio" is a write of data by a qcow2 layer, wherever it is in the file; a guest's
    write may take several. ``after`` of them pass, and the next one fails. A "block_status"
    is asked by whoever copies; it fails wherever it is asked for, and for good.
    """

    request: Request
    offset: int = 0
    errno: Errno = "EIO"
    times: int = 1
    after: int = 0

    def __post_init__(self) -> None:
        _natural("offset", self.offset)
        _natural("times", self.times, TIMES_LIMIT)
        _natural("after", self.after, TIMES_LIMIT)
        counted = self.request == "write_aio"
        if (counted and (self.times != 1 or self.offset)) or (self.after and not counted):
            raise InvalidOperationError(
                "a write_aio fails once, after so many; no other is counted"
            )
        if self.offset % 512:
            raise InvalidOperationError(f"offset must be a multiple of 512, not {self.offset}")
        if self.request == "block_status" and (self.times or self.offset):
            raise InvalidOperationError("block_status fails everywhere and for good")


def rules_of(faults: tuple[Fault, ...]) -> int:
    """How many rules of *blkdebug* faults are: one for each time or count, one for all times."""
    return sum(max(fault.times, 1) + fault.after for fault in faults)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step. ``engine`` is the number of the QEMU process it addresses."""

    engine: int = 0


# --- topology ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AddDisk(Operation):
    """Create the images of a chain, top layer first, and open it as node ``node``.

    With a ``drive`` name it is attached as a drive (HMP ``drive_add``), else with
    ``blockdev-add``. The slot must be empty. With ``faults`` (there may be none of them) node
    ``node`` is a *blkdebug* filter above the top layer, which has requests fail. Those of
    resizes stand alone: the filter is then below a qcow2 layer, whose file takes no new size.
    So does a single "write_aio" fault.
    """

    node: str
    layers: tuple[Layer, ...]
    drive: str | None = None
    discard: Literal["ignore", "unmap"] = "ignore"
    detect_zeroes: Literal["off", "on", "unmap"] = "off"
    faults: tuple[Fault, ...] | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvalidOperationError("a disk needs at least one layer")
        if self.drive is not None and rules_of(self.faults or ()) > DRIVE_FAULTS:
            raise InvalidOperationError(f"faults of a drive come {DRIVE_FAULTS} times at most")


@dataclass(frozen=True, kw_only=True)
class CloseDisk(Operation):
    """A disk is closed, its images stay: ``blockdev-del``, by its drive's name ``drive_del``."""

    node: str


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a disk whose images exist is opened: as node ``node``, and perhaps as a drive.

    ``format`` is that of the top layer. Otherwise as :class:`AddDisk`.
    """

    node: str
    format: Format = "qcow2"
    drive: str | None = None
    discard: Literal["ignore", "unmap"] = "ignore"
    detect_zeroes: Literal["off", "on", "unmap"] = "off"
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class OpenDisk(Operation, Opening):
    """Open the images of a disk that was closed."""


@dataclass(frozen=True, kw_only=True)
class ReopenDisk(Operation):
    """``blockdev-reopen`` of an open disk of one layer, read-only or writable.

    Options that are not given fall back to QEMU's defaults.
    """

    node: str
    format: Format = "qcow2"
    discard: Literal["ignore", "unmap"] = "ignore"
    detect_zeroes: Literal["off", "on", "unmap"] = "off"
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockdevSnapshot(Operation):
    """``blockdev-snapshot``: disk ``node`` becomes the backing file of disk ``overlay``.

    Both are open, by node names. What is above or below whom no file tells: it lasts until the
    overlay is closed.
    """

    node: str
    overlay: str


@dataclass(frozen=True, kw_only=True)
class BlockCommit(Operation):
    """``block-commit`` of disk ``node``, on top of a chain, into disk ``base`` below; completed.

    All by node names; ``between`` are the disks between the two, which guests leave meanwhile.
    The overlay stays where it is, above a base that guests write to.

    With ``filter`` it becomes ready and stays; guests reach the disk through that node, which the
    job puts above it, and the base follows what they write.

    With ``top``, a disk below ``node``, its data is committed instead, and that of those
    ``between`` it and the base; what is above it then stands on the base.
    """

    job: str
    node: str
    base: str
    between: tuple[str, ...] = ()
    top: str | None = None
    filter: str | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.filter is not None:
            raise InvalidOperationError("a commit below the top ends by itself and has no filter")


@dataclass(frozen=True, kw_only=True)
class BlockStream(Operation):
    """``block-stream`` into disk ``node``, by node name, of all that is below it, to the end.

    With ``base``, a disk below, only of what is above that; the disk then stands on it.
    """

    job: str
    node: str
    base: str | None = None


@dataclass(frozen=True, kw_only=True)
class BlockdevMirror(Operation):
    """``blockdev-mirror``: disk ``target`` becomes like disk ``node``, and follows it.

    It runs until it is ready, and stays. Meanwhile guests reach the disk through ``filter``, the
    node that the job puts above it. With sync none only what they write is copied.
    """

    job: str
    node: str
    target: str
    filter: str
    sync: MirrorSync = "full"
    copy_mode: CopyMode = "background"


@dataclass(frozen=True, kw_only=True)
class Restart(Operation):
    """QEMU ends, and another one is launched in which nothing is open.

    ``how``: the command ``quit``, the signal SIGTERM, or SIGKILL. ``qemu`` is the number of the
    QEMU that is launched, where there are several to cross between; an example begins with 0.
    """

    how: Literal["quit", "terminate", "kill"] = "quit"
    qemu: int = 0

    def __post_init__(self) -> None:
        _natural("qemu", self.qemu)


@dataclass(frozen=True, kw_only=True)
class Renaming:
    """Bitmap ``name`` of disk ``node`` is called ``to`` behind a migration."""

    node: str
    name: str
    to: str


@dataclass(frozen=True, kw_only=True)
class Migrate(Operation):
    """Live migration to a new QEMU, which opens ``disks`` on the same images; the old one ends.

    With ``bitmaps`` (the capability ``dirty-bitmaps``) all of them go along, or with a
    ``mapping`` (the parameter ``block-bitmap-mapping``) those that it names. ``qemu`` is the
    number of the new QEMU, as in :class:`Restart`.
    """

    disks: tuple[Opening, ...] = ()
    bitmaps: bool = True
    mapping: tuple[Renaming, ...] | None = None
    qemu: int = 0

    def __post_init__(self) -> None:
        _natural("qemu", self.qemu)
        if self.mapping is not None and not self.bitmaps:
            raise InvalidOperationError("'mapping' needs 'bitmaps'")


# --- guest I/O -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Read(Operation):
    """The guest reads ``length`` bytes at ``offset``; compared byte for byte."""

    node: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class Flush(Operation):
    """The guest flushes the disk's caches."""

    node: str


@dataclass(frozen=True, kw_only=True)
class Write(Operation, _Sourced):
    """The guest writes ``length`` bytes of data at ``offset``."""

    node: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _Sourced.__post_init__(self)
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class WriteCompressed(Operation, _Sourced):
    """A compressed write (``qemu-io write -c``); qcow2 alone can do it."""

    node: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _Sourced.__post_init__(self)
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class WriteZeroes(Operation):
    """The guest zeroes a range; with ``unmap`` the host may free the space."""

    node: str
    offset: int
    length: int
    unmap: bool = False

    def __post_init__(self) -> None:
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class Discard(Operation):
    """The guest discards (trims) a range."""

    node: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _natural("offset", self.offset)
        _natural("length", self.length)


@dataclass(frozen=True, kw_only=True)
class HoldWrite(Operation, _Sourced):
    """A guest's write that gets as far as the disk's *blkdebug* filter and is held there.

    Until it is released nothing is done that would wait for it for ever.
    """

    node: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _Sourced.__post_init__(self)
        _natural("offset", self.offset)
        _natural("length", self.length)

    @property
    def write(self) -> Write:
        """The write that comes of it."""
        return Write(
            engine=self.engine,
            node=self.node,
            offset=self.offset,
            length=self.length,
            fill=self.fill,
            stamp=self.stamp,
        )


@dataclass(frozen=True, kw_only=True)
class ReleaseWrite(Operation):
    """The write that is held at disk ``node`` goes on; its reply is the reply to this."""

    node: str


@dataclass(frozen=True, kw_only=True)
class Resize(Operation):
    """``block_resize`` to ``size`` bytes, by node name or drive name."""

    node: str
    size: int

    def __post_init__(self) -> None:
        _natural("size", self.size)


# --- bitmaps -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BitmapAdd(Operation):
    """``block-dirty-bitmap-add``. ``granularity`` None leaves the choice to QEMU.

    A ``persistent`` bitmap is stored in the image when that is closed.
    """

    node: str
    name: str
    granularity: int | None = None
    disabled: bool = False
    persistent: bool = False

    def __post_init__(self) -> None:
        _natural("granularity", self.granularity or 0)


@dataclass(frozen=True, kw_only=True)
class BitmapRemove(Operation):
    """``block-dirty-bitmap-remove``."""

    node: str
    name: str


@dataclass(frozen=True, kw_only=True)
class BitmapClear(Operation):
    """``block-dirty-bitmap-clear``."""

    node: str
    name: str


@dataclass(frozen=True, kw_only=True)
class BitmapEnable(Operation):
    """``block-dirty-bitmap-enable``."""

    node: str
    name: str


@dataclass(frozen=True, kw_only=True)
class BitmapDisable(Operation):
    """``block-dirty-bitmap-disable``."""

    node: str
    name: str


@dataclass(frozen=True, kw_only=True)
class MergeSource:
    """A bitmap to merge from; without ``node``, one of the target's own node."""

    name: str
    node: str | None = None


@dataclass(frozen=True, kw_only=True)
class BitmapMerge(Operation):
    """``block-dirty-bitmap-merge`` of ``sources`` into bitmap ``target`` of ``node``."""

    node: str
    target: str
    sources: tuple[MergeSource, ...] = ()


# --- image files (qemu-img) ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateImage(Operation):
    """``qemu-img create`` of a backup target; replaces what the slot held.

    ``backing`` is a target of a smaller number that exists, or None.
    """

    image: str
    layer: Layer
    backing: str | None = None


@dataclass(frozen=True, kw_only=True)
class RebaseImage(Operation):
    """``qemu-img rebase -u``: name another backing file (or none), touching no data."""

    image: str
    backing: str | None = None


@dataclass(frozen=True, kw_only=True)
class OfflineAction:
    """What ``qemu-img bitmap`` does with its bitmap; ``source`` is merged into it."""

    kind: Literal["add", "clear", "enable", "disable", "remove", "merge"]
    source: str | None = None

    def __post_init__(self) -> None:
        if (self.kind == "merge") == (self.source is None):
            raise InvalidOperationError("a merge has a source, no other action has one")


@dataclass(frozen=True, kw_only=True)
class ChangeBitmap(Operation):
    """``qemu-img bitmap`` on the image of a disk that is closed: actions on one bitmap, in order.

    What is merged comes from the image of disk ``source``, or from the same one. What an action
    has done stays when a later one is refused.
    """

    node: str
    name: str
    actions: tuple[OfflineAction, ...]
    format: Format = "qcow2"
    granularity: int | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        kinds = {action.kind for action in self.actions}
        if not kinds or (self.granularity is not None and "add" not in kinds):
            raise InvalidOperationError("at least one action, and a granularity only to add")
        if self.source is not None and "merge" not in kinds:
            raise InvalidOperationError("a source only for a merge")
        _natural("granularity", self.granularity or 0)


@dataclass(frozen=True, kw_only=True)
class ResizeImage(Operation):
    """``qemu-img resize --shrink`` to ``size`` bytes of the image of a disk that is closed."""

    node: str
    size: int
    format: Format = "qcow2"

    def __post_init__(self) -> None:
        _natural("size", self.size)


@dataclass(frozen=True, kw_only=True)
class CommitImage(Operation):
    """``qemu-img commit`` of the image of a disk that is closed into its backing file.

    It has nothing of its own afterwards, unless it is to ``keep`` that (``-d``).
    """

    node: str
    format: Format = "qcow2"
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class ConvertImage(Operation):
    """``qemu-img convert -S 0``: all that a disk shows becomes the qcow2 image of disk ``into``.

    The one is closed, the slot of the other was never used; its clusters have ``cluster_size``
    bytes. With ``bitmaps`` the stored ones go along, and fail it if they are inconsistent, unless
    it is to ``skip_broken`` ones.
    """

    node: str
    into: str
    format: Format = "qcow2"
    cluster_size: int = 65536
    bitmaps: bool = False
    skip_broken: bool = False

    def __post_init__(self) -> None:
        _cluster(self.cluster_size)
        if self.skip_broken and not self.bitmaps:
            raise InvalidOperationError("'skip_broken' needs 'bitmaps'")


@dataclass(frozen=True, kw_only=True)
class CompareImages(Operation):
    """``qemu-img compare`` of what two disks show that are closed; refused where they differ.

    What is longer must be zero behind the end of the other one.
    """

    node: str
    other: str


# --- backups -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _BackupJob(Operation):
    """What both backup commands have in common. By default the job runs to its end at once.

    ``job`` None leaves the id to QEMU: the drive's name, or an error where there is none.
    ``speed`` is in bytes a second, 0 without limit; with ``max_workers`` 1 and ``max_chunk``
    (bytes) of one job cluster, speed 1 copies one job cluster and then holds the job.
    ``filter`` names the node that the job puts above its disk.
    """

    node: str
    target: str
    sync: SyncMode
    job: str | None = "job0"
    bitmap: str | None = None
    bitmap_mode: BitmapMode | None = None
    compress: bool = False
    speed: int = 0
    max_workers: int | None = None
    max_chunk: int | None = None
    auto_finalize: bool = True
    auto_dismiss: bool = True
    filter: str | None = None
    on_source_error: OnError = "report"
    on_target_error: OnError = "report"

    def __post_init__(self) -> None:
        _natural("speed", self.speed)
        _natural("max_workers", self.max_workers or 0)
        _natural("max_chunk", self.max_chunk or 0)

    @property
    def tuned(self) -> bool:
        """Whether QEMU is told how the job shall copy (``x-perf``)."""
        return self.max_workers is not None or self.max_chunk is not None

    @property
    def lasting(self) -> bool:
        """Whether the job may be there when the operation is over."""
        patient = bool({"stop", "enospc"} & {self.on_source_error, self.on_target_error})
        kept = self.speed > 0 or not (self.auto_finalize and self.auto_dismiss)
        return kept or patient or self.sync == "none"


@dataclass(frozen=True, kw_only=True)
class DriveBackup(_BackupJob):
    """``drive-backup`` into file ``target``.

    ``mode`` "existing" writes into the file as it is; "absolute-paths" lets QEMU create it.
    """

    mode: Literal["existing", "absolute-paths"] = "absolute-paths"
    format: Format = "qcow2"


@dataclass(frozen=True, kw_only=True)
class BlockdevBackup(_BackupJob):
    """``blockdev-backup`` onto a node opened on file ``target``.

    The target node is opened before, under the target's name, and closed when the job has
    concluded; the file must exist. Meanwhile guests may read it. ``faults`` are those of the
    target's node, as in :class:`AddDisk`.
    """

    faults: tuple[Fault, ...] = ()


Backup = DriveBackup | BlockdevBackup


# --- jobs ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _JobCommand(Operation):
    """A command to job ``job``: ``job-*``, or with ``block`` the older ``block-job-*``."""

    job: str
    block: bool = False


@dataclass(frozen=True, kw_only=True)
class JobPause(_JobCommand):
    """``job-pause``: the job stops copying; guests' writes are still copied before."""


@dataclass(frozen=True, kw_only=True)
class JobResume(_JobCommand):
    """``job-resume``, of what was paused or has stopped at an error."""


@dataclass(frozen=True, kw_only=True)
class JobCancel(_JobCommand):
    """``job-cancel``; ``force`` belongs to ``block-job-cancel`` alone."""

    force: bool = False

    def __post_init__(self) -> None:
        if self.force and not self.block:
            raise InvalidOperationError("job-cancel has no argument force")


@dataclass(frozen=True, kw_only=True)
class JobComplete(_JobCommand):
    """``job-complete``, which no backup accepts."""


@dataclass(frozen=True, kw_only=True)
class JobFinalize(_JobCommand):
    """``job-finalize``, of a job that is pending, and with it of its whole group."""


@dataclass(frozen=True, kw_only=True)
class JobDismiss(_JobCommand):
    """``job-dismiss``: a job that has concluded is forgotten."""


@dataclass(frozen=True, kw_only=True)
class JobSetSpeed(Operation):
    """``block-job-set-speed``, in bytes a second; 0 lets a held job run to its end."""

    job: str
    speed: int = 0

    def __post_init__(self) -> None:
        _natural("speed", self.speed)


JobCommand = JobPause | JobResume | JobCancel | JobComplete | JobFinalize | JobDismiss | JobSetSpeed


# --- exports -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExportedBitmap:
    """A bitmap to be exported: of ``node``, else the first of this name from the export down."""

    name: str
    node: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportAdd(Operation):
    """``block-export-add`` of node ``node`` over NBD, with a metadata context for each bitmap.

    ``name`` is what clients would call it, by default its id ``export``; another one must be
    taken, and is refused.
    """

    export: str
    node: str
    bitmaps: tuple[ExportedBitmap, ...] = ()
    writable: bool = False
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportDel(Operation):
    """``block-export-del``: ``hard`` drops the clients that ``safe`` is refused for."""

    export: str
    mode: Literal["safe", "hard"] = "safe"


@dataclass(frozen=True, kw_only=True)
class ReadDirtyExtents(Operation):
    """A client asks which of ``length`` bytes at ``offset`` of an export are dirty in a bitmap.

    By block status in the context ``qemu:dirty-bitmap:BITMAP``; compared byte range by byte
    range. The client stays connected until the export is deleted.
    """

    export: str
    bitmap: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        _natural("offset", self.offset)
        _natural("length", self.length)


# --- transactions --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Abort(Operation):
    """The transaction action ``abort``: it always fails. Not an operation of its own."""


BitmapAction = BitmapAdd | BitmapRemove | BitmapClear | BitmapEnable | BitmapDisable | BitmapMerge
Action = BitmapAction | DriveBackup | BlockdevBackup | BlockdevSnapshot | Abort
"""What a transaction may hold."""


@dataclass(frozen=True, kw_only=True)
class Transaction(Operation):
    """``transaction``: all ``actions``, or none. ``grouped`` sets the completion mode."""

    actions: tuple[Action, ...] = ()
    grouped: bool = False


OPERATIONS: tuple[type[Operation], ...] = (
    AddDisk,
    CloseDisk,
    OpenDisk,
    ReopenDisk,
    BlockdevSnapshot,
    BlockCommit,
    BlockStream,
    BlockdevMirror,
    Restart,
    Migrate,
    Read,
    Flush,
    Write,
    WriteCompressed,
    WriteZeroes,
    Discard,
    HoldWrite,
    ReleaseWrite,
    Resize,
    BitmapAdd,
    BitmapRemove,
    BitmapClear,
    BitmapEnable,
    BitmapDisable,
    BitmapMerge,
    CreateImage,
    RebaseImage,
    ChangeBitmap,
    ResizeImage,
    CommitImage,
    ConvertImage,
    CompareImages,
    DriveBackup,
    BlockdevBackup,
    Transaction,
    JobSetSpeed,
    JobPause,
    JobResume,
    JobCancel,
    JobComplete,
    JobFinalize,
    JobDismiss,
    ExportAdd,
    ExportDel,
    ReadDirtyExtents,
)
"""Every operation that may stand in a trace by itself."""


def operation_name(operation: type[Operation] | Operation) -> str:
    """The snake_case name: ``op`` in a trace, the key in reports."""
    cls = operation if isinstance(operation, type) else type(operation)
    name = cls.__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
