"""What must hold after an operation: the model's answer, before QEMU is asked.

An :class:`Expectation` is plain data. It is exact: where it names a reason, that reason must
come; where it gives contents, every byte must agree.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Literal, Protocol

from qbprop_model.data import Bytes
from qbprop_model.ranges import Ranges


class Reason(StrEnum):
    """Why QEMU must refuse. How each reads in a reply stands in ``qbprop.qemu.reasons``.

    The section of the semantics that holds the rule is given behind each.
    """

    NODE_NOT_FOUND = auto()  # 3: any bitmap command but add
    DEVICE_NOT_FOUND = auto()  # 3: add; 6.1: backup
    RESIZE_NOT_FOUND = auto()  # 5.1: block_resize of an unknown node or drive
    GUEST_NOT_FOUND = auto()  # 10: guest I/O on an empty slot
    BITMAP_EXISTS = auto()  # 3
    BITMAP_NAME_EMPTY = auto()  # 3
    BITMAP_NAME_TOO_LONG = auto()  # 3
    BAD_GRANULARITY = auto()  # 1.1, 3
    GRANULARITY_OUT_OF_RANGE = auto()  # 1.1: does not fit 32 bits
    BITMAP_NOT_FOUND = auto()  # 3
    BITMAP_BUSY = auto()  # 3, 3.2
    BITMAP_READ_ONLY = auto()  # 3, 8.4
    BITMAP_INCONSISTENT = auto()  # 3, 8.3
    BITMAP_NOT_LOADED = auto()  # 8.10: the file has one that the disk has not
    BITMAP_SIZES_DIFFER = auto()  # 3
    PERSISTENCE_UNSUPPORTED = auto()  # 3: raw images, and filters
    PERSISTENT_IN_OLD_IMAGE = auto()  # 3: qcow2 version 2
    PERSISTENT_NAME_TOO_LONG = auto()  # 3
    PERSISTENT_TOO_LARGE = auto()  # 3, 8.7
    MIGRATED_NAME_TOO_LONG = auto()  # 8.10
    ABORTED = auto()  # 3.2
    GROUPED_UNSUPPORTED = auto()  # 3.2
    PAST_END = auto()  # 1.2: guest I/O across or past the end
    NOT_SUPPORTED = auto()  # 1.2: compressed write on raw
    NOT_SECTOR_ALIGNED = auto()  # qemu-io's own limit on compressed writes
    NOT_ALIGNED = auto()  # 1.2: compressed write off the cluster grid
    ALREADY_ALLOCATED = auto()  # 1.2: compressed write onto allocated clusters
    SIZE_NOT_ALIGNED = auto()  # 5.1
    SIZE_TOO_LARGE = auto()  # 5.1
    SIZE_NOT_POSITIVE = auto()  # qemu-img resize alone
    SIZE_NOT_WRITTEN = auto()  # 7: a fault below qcow2
    GROW_UNSUPPORTED = auto()  # 5.3: qcow2 v2 over a longer backing file
    BACKUP_BITMAP_NOT_FOUND = auto()  # 6.1
    BITMAP_MODE_USELESS = auto()  # 6.1: full or top with never
    BITMAP_MODE_NOT_ON_SUCCESS = auto()  # 6.1: incremental with another mode
    BITMAP_NEEDED = auto()  # 6.1: bitmap, incremental without a bitmap
    BITMAP_MODE_NEEDED = auto()  # 6.1
    BITMAP_MODE_WITHOUT_BITMAP = auto()  # 6.1
    SYNC_NONE_WITH_BITMAP = auto()  # 6.1
    BACKUP_SIZES_DIFFER = auto()  # 6.1
    COMPRESS_UNSUPPORTED = auto()  # 6.1
    JOB_ID_INVALID = auto()  # 6.1
    JOB_ID_TAKEN = auto()  # 6.1
    NO_SUCH_FILE = auto()  # a target that was never created
    IMAGE_REFUSED = auto()  # 5.3: topologies that qemu-img or QEMU refuses
    NO_NODE_TO_CLOSE = auto()  # blockdev-del, drive_del, blockdev-reopen
    NODE_IN_USE = auto()  # blockdev-del beside a job, an export or a drive; drive_del beside a job
    READ_ONLY = auto()  # guests' writes to a disk that is read-only
    OVERLAY_HAS_BACKING = auto()  # 9: blockdev-snapshot
    OVERLAY_UNSUPPORTED = auto()  # 9: an overlay of a format without backing files
    ROOT_NOT_FOUND = auto()  # 9: block-commit
    MIRRORED_INTO_ITSELF = auto()  # 9: blockdev-mirror
    NODE_BUSY = auto()  # 6.1: source or target already in a job
    PERMISSION_DENIED = auto()  # 5.1, 10.1: what a job's filter does not share
    DEVICE_IN_USE = auto()  # 5.1: resize by the drive's name while a job runs
    DRIVE_NAME_TAKEN = auto()  # drive_add
    NODE_NAME_TAKEN = auto()  # 6.1: another node has the name of the filter or target
    CHUNK_TOO_SMALL = auto()  # 6.1: max-chunk below the job cluster
    WORKERS_OUT_OF_RANGE = auto()  # 6.1: max-workers 0
    IO_ERROR = auto()  # 7: EIO of a fault
    NO_SPACE = auto()  # 7: ENOSPC of a fault
    COPY_BEFORE_FAILED = auto()  # 6.5: a guest's write whose copy the target refused
    JOB_NOT_FOUND = auto()  # 6.4: job-*
    BLOCK_JOB_NOT_FOUND = auto()  # 6.4: block-job-*
    VERB_REFUSED = auto()  # 6.4: a state that does not take the command
    ALREADY_PAUSED = auto()  # 6.4
    NOT_PAUSED = auto()  # 6.4
    CANCEL_PAUSED = auto()  # 6.4: block-job-cancel without force
    JOB_CANCELLED = auto()  # 6.4: the error of a job that was cancelled
    IMAGE_LOCKED = auto()  # 11: an image open elsewhere
    WRONG_FORMAT = auto()  # drive-backup mode existing with another format than the file's
    BACKING_UNSUPPORTED = auto()  # raw images have no backing file
    NO_BACKING_FILE = auto()  # qemu-img commit
    SOURCE_WITHOUT_BITMAPS = auto()  # qemu-img convert --bitmaps of what cannot have any
    IMAGES_DIFFER = auto()  # qemu-img compare
    EXPORT_ID_INVALID = auto()  # 2.2
    EXPORT_ID_TAKEN = auto()  # 2.2
    EXPORT_NAME_TAKEN = auto()  # 2.2
    EXPORT_NODE_NOT_FOUND = auto()  # 2.2: a drive's name is none either
    EXPORT_BITMAP_NOT_FOUND = auto()  # 2.2: neither on the node nor below it
    EXPORT_READ_ONLY = auto()  # 2.2: an enabled bitmap, and guests must not write
    EXPORT_NOT_WRITABLE = auto()  # a writable export of a disk that is read-only
    EXPORT_NOT_FOUND = auto()  # 2.2: block-export-del
    EXPORT_IN_USE = auto()  # 2.2: block-export-del in mode safe beside a client
    NO_SUCH_EXPORT = auto()  # 2.2: what the server tells a client
    NO_SUCH_CONTEXT = auto()  # 2.2: the export has no such bitmap
    EMPTY_RANGE = auto()  # 2.2: block status of nothing


@dataclass(frozen=True)
class Refusal:
    """A reason, and the name (bitmap, node, job, …) that the reply must contain, or "".

    ``action`` is the name of the transaction's action that is refused, "" elsewhere, and
    ``position`` its place in the list, from 0.
    """

    reason: Reason
    subject: str = ""
    action: str = ""
    position: int = 0


@dataclass(frozen=True)
class BitmapState:
    """What a query shows of a named bitmap. ``count`` in bytes (popcount × granularity)."""

    granularity: int
    count: int
    recording: bool = True
    busy: bool = False
    persistent: bool = False
    inconsistent: bool = False


Kind = Literal["backup", "commit", "stream", "mirror"]
"""The ``type`` of a job."""


@dataclass(frozen=True)
class JobEnd:
    """How a job that was started must end. ``length`` (``len``) and ``offset`` in bytes.

    ``error`` is a reason for a job that must fail or is cancelled; ``length`` and ``offset``
    are then None where progress at that moment is open. ``aborted``: its transaction was
    rolled back. ``speed`` is the one that was set last, in bytes a second.
    ``kind`` is its ``type``.
    """

    length: int | None
    offset: int | None
    error: Reason | None = None
    aborted: bool = False
    speed: int = 0
    kind: Kind = "backup"


@dataclass(frozen=True)
class JobState:
    """What ``query-jobs`` shows of a job. ``length`` and ``offset`` in bytes, None where open."""

    status: str
    length: int | None
    offset: int | None
    error: Reason | None = None
    kind: Kind = "backup"


STOPPED = ("ERROR read stop", "ERROR write stop")
"""Among a job's words: an error of its disk or its target at which it stops (6.5)."""

FLOOD = "FLOOD"
"""Among a job's words: it meets the same error for ever and ignores it (6.5)."""

READY_NOISE = "~ready"
"""As NOISE, of a job that is ready: pairs of ``standby`` and ``ready``."""

FOLLOWS = "FOLLOWS"
"""Among a job's words, and told by no event: it copies what a guest has written meanwhile."""

NOISE = "~"
"""Among a job's words: pairs of ``paused`` and ``running``, any number of them (6.4)."""


@dataclass(frozen=True, order=True)
class Anonymous:
    """A bitmap without a name (semantics 4). ``node`` is "#" where QEMU named the node itself.

    ``count`` in bytes (popcount × granularity).
    """

    node: str
    granularity: int
    count: int
    recording: bool


class Contents(Protocol):
    """Guest-visible bytes of a node or image, of any size."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def render(self, offset: int, length: int) -> Bytes:
        """The expected bytes; ``offset + length`` may not exceed ``size``."""

    def written(self) -> list[tuple[int, int]]:
        """Byte ranges ``(start, end)`` outside which every byte is zero, ascending."""

    def origin(self, offset: int) -> int | None:
        """The number of the step that last determined the byte at ``offset``, if any."""


@dataclass(frozen=True)
class Torn:
    """What a write that failed may have left of the bytes of a read.

    Of each of ``parts``, ranges within the read, either nothing was done or all: it then
    reads as in ``written``, which is as long as the read.
    """

    written: Bytes
    parts: Ranges


@dataclass(frozen=True)
class Expectation:
    """What must hold after one operation.

    ``data``: the bytes a read returns, but for those that are ``torn``. ``bitmaps``: every
    named bitmap of every node, by node name. ``digests``: (node, bitmap) → SHA-256 as in
    semantics 2.1, for each bitmap whose bits changed, unless the number of dirty ones tells
    all. ``jobs``: the jobs that ended, by id. ``contents``: files (by image name) whose every
    byte is to be compared now.

    ``extents``: the dirty byte ranges ``(start, end)`` that a client is told, ascending, as long
    as they can be. ``allocated``: the byte ranges that a disk's own qcow2 layer has, by disk,
    where that is to be compared now.

    ``alive``: the jobs that there are. ``words``: by job, what its events tell, in order: its
    status, or one of those of :mod:`qbprop_model.effects.jobs`. ``anonymous``: all bitmaps
    without a name. ``opened``: the targets that are open as nodes. ``complaints``: the errors of
    flushes that failed as nodes were closed; QEMU may tell of each on its standard error.
    """

    refusal: Refusal | None = None
    data: Bytes | None = None
    torn: Torn | None = None
    extents: Ranges | None = None
    bitmaps: Mapping[str, Mapping[str, BitmapState]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[tuple[str, str], str] = field(default_factory=dict)
    jobs: Mapping[str, JobEnd] = field(default_factory=dict)
    contents: Mapping[str, Contents] = field(default_factory=dict)
    allocated: Mapping[str, Ranges] = field(default_factory=dict)
    alive: Mapping[str, JobState] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    anonymous: tuple[Anonymous, ...] = ()
    opened: tuple[str, ...] = ()
    complaints: tuple[Reason, ...] = ()


def digest(words: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(words).hexdigest()
