"""Where the steps of a campaign reached: sizes by clusters and words, merges, backups."""

from collections.abc import Iterator

from qbprop_model.bitmap import Bitmap
from qbprop_model.expectation import Expectation
from qbprop_model.operations import (
    FILTERS,
    Action,
    Backup,
    BitmapMerge,
    BlockCommit,
    BlockdevBackup,
    BlockdevMirror,
    BlockdevSnapshot,
    CloseDisk,
    Discard,
    DriveBackup,
    ExportAdd,
    Migrate,
    Operation,
    ReadDirtyExtents,
    ReopenDisk,
    Restart,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
    operation_name,
)
from qbprop_model.ranges import total
from qbprop_model.state import Node, State

WORD = 64
"""Bits of a bitmap's word."""


def reached(operation: Operation, expected: Expectation, state: State) -> Iterator[tuple[str, str]]:
    """What an operation that succeeded reached, as (heading, what); ``state`` is behind it."""
    match operation:
        case Write() | WriteZeroes() | Discard() | WriteCompressed():
            yield from _request(operation.offset, operation.length, state.find(operation.node))
        case Transaction():
            for action in operation.actions:
                yield from _action(action, expected, state)
        case ExportAdd():
            yield from _export(operation)
        case ReadDirtyExtents():
            yield "dirty extents", _share(operation, expected)
        case CloseDisk() | ReopenDisk() | BlockdevSnapshot() | BlockCommit():
            yield from _passed(operation, state)
            if isinstance(operation, BlockCommit) and operation.filter is not None:
                yield "mirrors", "commit"
        case BlockdevMirror(sync=sync, copy_mode=mode):
            yield "mirrors", sync if mode == "background" else f"{sync}, {mode}"
        case Restart() | Migrate():
            yield from _passed(operation, state)
        case BitmapMerge() | DriveBackup() | BlockdevBackup():
            yield from _action(operation, expected, state)


def _passed(operation: Operation, state: State) -> Iterator[tuple[str, str]]:
    """Which bitmaps went through the end of their node, or of its being writable."""
    verb = operation.how if isinstance(operation, Restart) else operation_name(operation)
    heading = f"bitmaps through {verb}"
    for bitmap in state.passed:
        yield heading, "dirty" if bitmap.bits.any() else "clean"
        for flag in ("persistent", "busy", "inconsistent", "read_only"):
            if getattr(bitmap, flag):
                yield heading, flag
        if not bitmap.recording:
            yield heading, "disabled"
    if len(state.qemus) > 1 and isinstance(operation, Restart | Migrate) and state.images:
        engine = state.engines[operation.engine]
        yield "crossings", f"{engine.before} to {engine.qemu}"


def _export(operation: ExportAdd) -> Iterator[tuple[str, str]]:
    yield "exports", "of filters" if operation.node in FILTERS else "of disks"
    yield "exports", "writable" if operation.writable else "read-only"
    if any(bitmap.node is not None for bitmap in operation.bitmaps):
        yield "exports", "with bitmaps named by node"


def _share(operation: ReadDirtyExtents, expected: Expectation) -> str:
    """How much of what a client asked about is dirty."""
    dirty = total(expected.extents or ())
    return "none" if not dirty else "all" if dirty == operation.length else "a part"


def _request(offset: int, length: int, node: Node | None) -> Iterator[tuple[str, str]]:
    """By the finest bitmap of the disk."""
    if node is None or not node.bitmaps:
        return
    finest: Bitmap = min(node.bitmaps.values(), key=lambda bitmap: bitmap.granularity)
    grain, bits, end = finest.granularity, len(finest.bits), offset + length
    if length == 0:
        yield "requests", "of nothing"
        return
    first, last = offset // grain, (end - 1) // grain
    whole = offset % grain == 0 and end % grain == 0
    yield "requests", "whole clusters" if whole else "clusters in part"
    if first // WORD != last // WORD:
        yield "requests", "across words"
    if last == bits - 1:
        yield "requests", "to the last cluster"


def _action(action: Action, expected: Expectation, state: State) -> Iterator[tuple[str, str]]:
    match action:
        case BitmapMerge():
            yield from _merge(action, state)
        case DriveBackup() | BlockdevBackup():
            mode = f"/{action.bitmap_mode}" if action.bitmap_mode else ""
            yield "backups", f"{action.sync}{mode}{', compressed' if action.compress else ''}"
            yield from _dirty_set(action, expected, state)


def _merge(merge: BitmapMerge, state: State) -> Iterator[tuple[str, str]]:
    target = state.find(merge.node)
    into = target.bitmaps.get(merge.target) if target else None
    for source in merge.sources:
        node = state.find(source.node or merge.node)
        bitmap = node.bitmaps.get(source.name) if node else None
        if bitmap is None or into is None:
            continue
        if node is not target:
            yield "merges", "from another disk"
        if bitmap.granularity == into.granularity:
            yield "merges", "same granularity"
        else:
            finer = bitmap.granularity < into.granularity
            yield "merges", "fine into coarse" if finer else "coarse into fine"


def _dirty_set(backup: Backup, expected: Expectation, state: State) -> Iterator[tuple[str, str]]:
    """What a backup from a bitmap had to copy."""
    end = expected.jobs.get(backup.job or backup.node)
    node = state.find(backup.node)
    if backup.bitmap is None or end is None or end.length is None or node is None:
        return
    if end.length == 0:
        yield "copied", "nothing"
    else:
        yield "copied", "all" if end.length >= state.size(node) else "a part"
