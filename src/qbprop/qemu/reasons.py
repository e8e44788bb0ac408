"""How each reason of refusal reads in QEMU's replies: the one table of its texts.

A refusal is recognised by who gave it, the error's class, and a pattern over that part of the
text which does not change from version to version (semantics 3, 5.1, 6.1, 14; and the
section "Error texts" of the notes on versions). The class alone tells nothing: nearly every
error of QMP is a ``GenericError``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from qbprop.qemu.features import Features
from qbprop.qemu.observation import Refused
from qbprop_model.expectation import Reason, Refusal

_ANY = "\0"
"""Stands for the subject until it is known; it occurs in no pattern and no name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way in which a reason is told.

    ``pattern`` is searched in the text; NUL in it stands for the refusal's subject. ``needs``
    tells from a QEMU's features whether its replies read like this.
    """

    channel: str
    error_class: str
    pattern: str
    needs: Callable[[Features], bool] = lambda _features: True

    def matches(self, refused: Refused, features: Features, subject: str) -> bool:
        """Whether ``refused`` reads like this, of ``subject``, or of anything if that is ""."""
        return (
            refused.channel == self.channel
            and refused.error_class == self.error_class
            and self.needs(features)
            and _compiled(self.pattern, subject).search(refused.text) is not None
        )


def _qmp(pattern: str) -> Row:
    return Row("qmp", "GenericError", pattern)


def _hmp(pattern: str) -> Row:
    return Row("qmp", "HMP", f"^(Error: )?{pattern}")


def _program(pattern: str) -> Row:
    return Row("program", "1", pattern)


def _guest(error_class: str, pattern: str) -> Row:
    return Row("guest", error_class, pattern)


_NO_FILE = rf"Could not open '[^']*{_ANY}[^']*': No such file or directory"
_LOCKED = r'Failed to get (shared )?"(write|resize|consistent read)" lock'

FAILED_FLUSH = r"Failed flush for '[^']+' during close: (.+)"
"""What QEMU complains of that closes a node all the same; the group is the error."""

TABLE: Mapping[Reason, tuple[Row, ...]] = {
    Reason.MIGRATED_NAME_TOO_LONG: (
        _qmp(rf"^Cannot migrate bitmap '{_ANY}' on node '.*': Name is longer than 255 bytes$"),
    ),
    Reason.NODE_NOT_FOUND: (_qmp(rf"^Node '{_ANY}' not found$"),),
    Reason.RESIZE_NOT_FOUND: (
        _qmp(rf"^Cannot find device='?{_ANY}'? nor node[-_]name=(''|)$"),
        _qmp(rf"^Cannot find device=(''|) nor node[-_]name='?{_ANY}'?$"),
    ),
    Reason.DEVICE_NOT_FOUND: (
        _qmp(rf"^Cannot find device='?{_ANY}'? nor node[-_]name='?{_ANY}'?$"),
    ),
    Reason.GUEST_NOT_FOUND: (
        _guest("ENOENT", rf"^no disk is called '{_ANY}'$"),
        _guest("qemu-io", rf"^Error: Cannot find device='?{_ANY}'? nor node[-_]name=''$"),
        _guest("qemu-io", rf"^Error: Cannot find device=(''|) nor node[-_]name='?{_ANY}'?$"),
    ),
    Reason.EXPORT_ID_INVALID: (_qmp(r"^Invalid block export id$"),),
    Reason.EXPORT_ID_TAKEN: (_qmp(rf"^Block export id '{_ANY}' is already in use$"),),
    Reason.EXPORT_NAME_TAKEN: (_qmp(rf"^NBD server already has export named '{_ANY}'$"),),
    Reason.EXPORT_NODE_NOT_FOUND: (
        _qmp(rf"^Cannot find device='?'? nor node[-_]name='?{_ANY}'?$"),
    ),
    Reason.EXPORT_BITMAP_NOT_FOUND: (_qmp(rf"^Bitmap '{_ANY}' is not found$"),),
    Reason.EXPORT_READ_ONLY: (
        _qmp(rf"^Enabled bitmap '{_ANY}' incompatible with readonly export$"),
    ),
    Reason.EXPORT_NOT_WRITABLE: (
        _qmp(r"^Cannot export read-only node as writable$"),
        _qmp(r"^Block node is read-only$"),
    ),
    Reason.EXPORT_NOT_FOUND: (_qmp(rf"^Export '{_ANY}' is not found$"),),
    Reason.EXPORT_IN_USE: (_qmp(rf"^export '{_ANY}' still in use"),),
    Reason.NO_SUCH_EXPORT: (_guest("ENOENT", rf"server has no export named '{_ANY}'"),),
    Reason.NO_SUCH_CONTEXT: (_guest("ENOENT", rf"^export '[^']*' has no bitmap '{_ANY}'$"),),
    Reason.BITMAP_EXISTS: (_qmp(rf"^Bitmap already exists: {_ANY}$"),),
    Reason.BITMAP_NAME_EMPTY: (_qmp(r"^Bitmap name cannot be empty"),),
    Reason.BITMAP_NAME_TOO_LONG: (_qmp(r"^Bitmap name too long"),),
    Reason.BAD_GRANULARITY: (_qmp(r"^Granularity must be power of 2 and at least 512"),),
    Reason.GRANULARITY_OUT_OF_RANGE: (_qmp(r"^Parameter 'granularity' expects uint32"),),
    Reason.BITMAP_NOT_FOUND: (_qmp(rf"^Dirty bitmap '{_ANY}' not found$"),),
    Reason.BITMAP_BUSY: (
        _qmp(rf"^Bitmap '{_ANY}' is currently in use by another operation and cannot be used"),
    ),
    Reason.BITMAP_READ_ONLY: (
        _qmp(rf"^Bitmap '{_ANY}' is readonly and cannot be modified"),
        _qmp(rf"^Cannot remove persistent bitmap '{_ANY}': no write access to node "),
    ),
    Reason.BITMAP_INCONSISTENT: (
        _qmp(rf"^Bitmap '{_ANY}' is inconsistent and cannot be used"),
        _program(rf"Cannot copy inconsistent bitmap '{_ANY}'"),
    ),
    Reason.BITMAP_NOT_LOADED: (
        _qmp(r"^Cannot resize qcow2 with persistent bitmaps that were not loaded into memory$"),
    ),
    Reason.PERSISTENCE_UNSUPPORTED: (_qmp(rf"^Can't store persistent bitmaps to {_ANY}"),),
    Reason.PERSISTENT_IN_OLD_IMAGE: (
        _qmp(r"^Can't make bitmap .* Cannot store dirty bitmaps in qcow2 v2 files"),
    ),
    Reason.PERSISTENT_NAME_TOO_LONG: (_qmp(r"^Can't make bitmap .* Name length exceeds maximum"),),
    Reason.PERSISTENT_TOO_LARGE: (
        _qmp(r"^Can't make bitmap .* Too much space will be occupied by the bitmap"),
    ),
    Reason.NO_NODE_TO_CLOSE: (
        _qmp(rf"^Failed to find node with node[-_]name='?{_ANY}'?$"),
        _qmp(rf"^Cannot find node {_ANY}$"),
        _hmp(rf"Device '{_ANY}' not found$"),
    ),
    Reason.BITMAP_SIZES_DIFFER: (_qmp(r"^Bitmaps are (of different sizes|incompatible)"),),
    Reason.ABORTED: (_qmp(r"^Transaction aborted using Abort action"),),
    Reason.GROUPED_UNSUPPORTED: (
        _qmp(
            r"^Action '[a-z-]+' does not support [Tt]ransaction property "
            r"completion-mode = grouped$"
        ),
    ),
    Reason.PAST_END: (
        _guest("EINVAL", r"^nbd_\w+: [a-z-]+: command failed: Invalid argument$"),
        _guest("EIO", r"^(read|write|discard) failed: "),
        _guest("qemu-io", r"^Parsing error: argument too large"),
    ),
    Reason.EMPTY_RANGE: (
        _guest("EINVAL", r"^nbd_\w+: [a-z-]+: command failed: Invalid argument$"),
    ),
    Reason.NOT_SUPPORTED: (_guest("ENOTSUP", r"^write failed: "),),
    Reason.NOT_SECTOR_ALIGNED: (
        _guest("qemu-io", r" is not a sector-aligned value for '(offset|count)'"),
    ),
    Reason.NOT_ALIGNED: (_guest("EINVAL", r"^write failed: "),),
    Reason.ALREADY_ALLOCATED: (_guest("EIO", r"^write failed: "),),
    Reason.SIZE_NOT_POSITIVE: (_program(r"New image size must be positive$"),),
    Reason.SIZE_NOT_ALIGNED: (_qmp(r"^The new size must be a multiple of 512"),),
    Reason.SIZE_TOO_LARGE: (
        Row(
            "qmp",
            "GenericError",
            r"^The new size must be a multiple of 512",
            # QEMUs that lack this look at the alignment first.
            lambda features: not features.blockdev_backup_x_perf,
        ),
        _qmp(r"File too large$"),
        _qmp(r"exceeds maximum"),
    ),
    Reason.GROW_UNSUPPORTED: (_qmp(r"^Failed to zero out new clusters: Operation not supported"),),
    Reason.BACKUP_BITMAP_NOT_FOUND: (_qmp(rf"^Bitmap '{_ANY}' could not be found$"),),
    Reason.BITMAP_MODE_USELESS: (
        _qmp(
            r"^Bitmap sync mode 'never' has no meaningful effect when combined "
            rf"with sync mode '{_ANY}'$"
        ),
    ),
    Reason.BITMAP_MODE_NOT_ON_SUCCESS: (
        _qmp(rf"^Bitmap sync mode must be 'on-success' when using sync mode '{_ANY}'$"),
    ),
    Reason.BITMAP_NEEDED: (_qmp(rf"^must provide a valid bitmap name for '{_ANY}' sync mode$"),),
    Reason.BITMAP_MODE_NEEDED: (_qmp(r"^Bitmap sync mode must be given when providing a bitmap"),),
    Reason.BITMAP_MODE_WITHOUT_BITMAP: (
        _qmp(r"^Cannot specify bitmap sync mode without a bitmap"),
    ),
    Reason.SYNC_NONE_WITH_BITMAP: (
        _qmp(rf"^sync mode '{_ANY}' does not produce meaningful bitmap outputs"),
    ),
    Reason.BACKUP_SIZES_DIFFER: (_qmp(r"^Source and target image have different sizes"),),
    Reason.COMPRESS_UNSUPPORTED: (_qmp(r"^Compression is not supported for this drive"),),
    Reason.JOB_ID_INVALID: (_qmp(rf"^Invalid job ID '{_ANY}'"),),
    Reason.JOB_ID_TAKEN: (_qmp(rf"^Job ID '{_ANY}' already in use"),),
    Reason.NO_SUCH_FILE: (
        *(_qmp(_NO_FILE), _program(_NO_FILE), _hmp(_NO_FILE)),
        Row("program", "2", _NO_FILE),  # of qemu-img compare, whose 1 says that images differ
    ),
    Reason.IMAGE_REFUSED: (
        _qmp(r"^setting detect-zeroes to unmap is not allowed without setting discard"),
        _hmp(r"setting detect-zeroes to unmap is not allowed without setting discard"),
        _program(r"Extended L2 entries are only supported with "),
        _program(r"The image size is too large for file format"),
        _program(r"Could not resize (image|file): "),
    ),
    Reason.OVERLAY_HAS_BACKING: (_qmp(r"^The overlay already has a backing image$"),),
    Reason.OVERLAY_UNSUPPORTED: (_qmp(r"^The overlay does not support backing images$"),),
    Reason.ROOT_NOT_FOUND: (Row("qmp", "DeviceNotFound", rf"^Device '{_ANY}' not found$"),),
    Reason.NODE_BUSY: (_qmp(rf"^Node '{_ANY}' is busy: block device is in use by block job"),),
    Reason.MIRRORED_INTO_ITSELF: (_qmp(r"^Can't mirror node into itself$"),),
    Reason.NODE_IN_USE: (
        _qmp(rf"^Node '{_ANY}' is busy: "),
        _qmp(rf"^(Node|Block device) {_ANY} is (in use|not owned by the monitor)$"),
        _hmp(rf"Node '{_ANY}' is busy: "),
    ),
    Reason.PERMISSION_DENIED: (
        _qmp(rf"^Permission conflict on node '{_ANY}'"),
        _guest("qemu-io", rf"^Permission conflict on node '{_ANY}'"),
        _qmp(rf"^Conflicts with use by .* which does not allow '[^']*' on {_ANY}$"),
        _guest("qemu-io", rf"^Conflicts with use by .* which does not allow '[^']*' on {_ANY}$"),
    ),
    Reason.DEVICE_IN_USE: (
        _qmp(rf"^Device '({_ANY}|\(null\))' is in use$"),
        _qmp(rf"^Node '{_ANY}' is busy: (block device is in use by block job|node is used as)"),
    ),
    Reason.DRIVE_NAME_TAKEN: (_hmp(rf"Duplicate ID '{_ANY}' for drive$"),),
    Reason.NODE_NAME_TAKEN: (
        _hmp(rf"Duplicate nodes with node-name='{_ANY}'$"),
        _qmp(rf"Duplicate nodes with node-name='{_ANY}'$"),
        _hmp(r"^Duplicate node name$"),
        _qmp(r"^Duplicate node name$"),
    ),
    Reason.CHUNK_TOO_SMALL: (
        _qmp(rf"^Required max-chunk \(\d+\) is less than backup cluster size \({_ANY}\)$"),
    ),
    Reason.WORKERS_OUT_OF_RANGE: (_qmp(r"^max-workers must be between 1 and "),),
    Reason.COPY_BEFORE_FAILED: (
        _guest("EIO", r"^nbd_\w+: [a-z-]+: command failed: Input/output error$"),
        _guest("EIO", r"^write failed: "),
    ),
    Reason.SIZE_NOT_WRITTEN: (_qmp(r"^Failed to update the image size: "),),
    Reason.IO_ERROR: (
        _guest("EIO", r"^nbd_\w+: [a-z-]+: command failed: Input/output error$"),
        _guest("EIO", r"^(read|write|discard) failed: "),
    ),
    Reason.NO_SPACE: (
        _guest("ENOSPC", r"^nbd_\w+: [a-z-]+: command failed: No space left on device$"),
        _guest("ENOSPC", r"^(read|write|discard) failed: "),
    ),
    Reason.READ_ONLY: (
        _guest("EINVAL", r"^nbd_\w+: [a-z-]+: command failed: Invalid argument$"),
        _guest("EPERM", r"^nbd_\w+: [a-z-]+: command failed: Operation not permitted$"),
        _guest("qemu-io", r"^Block node is read-only"),
    ),
    Reason.JOB_NOT_FOUND: (_qmp(r"^Job not found$"),),
    Reason.BLOCK_JOB_NOT_FOUND: (
        Row("qmp", "DeviceNotActive", rf"^Block job '{_ANY}' not found$"),
        _qmp(rf"^Block job '{_ANY}' not found$"),
    ),
    Reason.VERB_REFUSED: (_qmp(rf"^Job '[^']*' in state {_ANY}$"),),
    Reason.ALREADY_PAUSED: (_qmp(r"^Job is already paused$"),),
    Reason.NOT_PAUSED: (_qmp(r"^Can't resume a job that was not paused$"),),
    Reason.CANCEL_PAUSED: (_qmp(rf"^The block job for device '{_ANY}' is currently paused$"),),
    Reason.IMAGE_LOCKED: (_qmp(_LOCKED), _program(_LOCKED)),
    Reason.WRONG_FORMAT: (
        _qmp(r"^Image is not in qcow2 format$"),
        _hmp(r"Image is not in qcow2 format$"),
        _program(r"Image is not in qcow2 format$"),
    ),
    Reason.BACKING_UNSUPPORTED: (
        _program(r"Backing file not supported for file format 'raw'$"),
        _qmp(r"^Backing file not supported for file format 'raw'$"),
        _qmp(r"^Driver 'raw' of node '[^']*' does not support backing files$"),
        _program(r"Could not change the backing file to '[^']*': Operation not supported$"),
    ),
    Reason.NO_BACKING_FILE: (_program(r"Image does not have a backing file$"),),
    Reason.SOURCE_WITHOUT_BITMAPS: (_program(r"Source lacks bitmap support$"),),
    Reason.IMAGES_DIFFER: (_program(r"Content mismatch at offset \d+!$"),),
}
"""Every reason of a refusal, in the order in which `classify` tries them."""


def matches(refusal: Refusal, refused: Refused, features: Features) -> bool:
    """Whether the reply ``refused`` gives the predicted reason, and of the predicted subject."""
    refused = _within_qemu_img(refused)
    rows = TABLE[refusal.reason]
    return any(row.matches(refused, features, refusal.subject) for row in rows)


_COMMAND = re.compile(
    r"^qemu-img: (Operation \w+ on bitmap .*? failed: |(?=Bitmap |The new size |Failed to zero))",
    re.DOTALL,
)
"""What stands before the reply to a command of QMP that ``qemu-img`` has performed."""


def _within_qemu_img(refused: Refused) -> Refused:
    """The reply to a command within ``qemu-img`` as the monitor would have told it."""
    if refused.channel != "program" or not _COMMAND.search(refused.text):
        return refused
    return Refused("qmp", "GenericError", _COMMAND.sub("", refused.text))


def classify(refused: Refused, features: Features) -> Reason | None:
    """The first reason that a reply may give, of whatever subject; None if it is none of them.

    Some replies fit more than one reason: a failed compressed write says "Input/output error"
    whether it passes the end or meets an allocated cluster.
    """
    for reason in TABLE:
        if matches(Refusal(reason), refused, features):
            return reason
    return None


@lru_cache(maxsize=1000)
def _compiled(pattern: str, subject: str) -> re.Pattern[str]:
    """The pattern for one subject; "" stands for any, of any characters."""
    return re.compile(pattern.replace(_ANY, re.escape(subject) if subject else ".*"), re.DOTALL)
