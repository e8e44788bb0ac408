"""Disks that become each other's backing files, and the jobs that undo that (semantics 9)."""

from dataclasses import replace

from qbprop_model.effects.backups import COPY_LIMIT
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.opening import reopen
from qbprop_model.expectation import NOISE, READY_NOISE, JobEnd, Reason
from qbprop_model.image import Refused
from qbprop_model.operations import (
    JOBS,
    BlockCommit,
    BlockdevMirror,
    BlockdevSnapshot,
    BlockStream,
    InvalidOperationError,
    OpenOutcomeError,
)
from qbprop_model.ranges import minus, total
from qbprop_model.state import Node, Outcome, State

BITS_LIMIT = 1 << 28
"""Most units of a job: as many as the largest disk has, 64 KiB each."""


@effect.register
def _(op: BlockdevSnapshot, world: State) -> Outcome:
    start_snapshot(op, world)
    finish_snapshots(world)
    return Outcome()


def start_snapshot(op: BlockdevSnapshot, world: State) -> None:
    """The overlay is where it is to be; until the transaction commits the disk stays writable."""
    name, node = world.resolve(op.node, Reason.DEVICE_NOT_FOUND)
    check_plain(world, name)
    if world.overlays(name):
        raise Refused(Reason.NODE_IN_USE, name)
    top, overlay = world.resolve(op.overlay, Reason.DEVICE_NOT_FOUND)
    check_plain(world, top)
    if name == top or world.overlays(top) or overlay.read_only:
        raise InvalidOperationError("an overlay is another disk, writable, and has none itself")
    if world.below(overlay.image) is not None:
        raise Refused(Reason.OVERLAY_HAS_BACKING)
    if world.images[overlay.image].format != "qcow2":
        raise Refused(Reason.OVERLAY_UNSUPPORTED)
    world.mounted[overlay.image] = node.image
    world.covering = (*world.covering, name)


def finish_snapshots(world: State) -> None:
    """The commit: what has an overlay becomes read-only."""
    for name in world.covering:
        reopen(world, name, read_only=True)
    world.covering = ()


@effect.register
def _(op: BlockCommit, world: State) -> Outcome:
    top, overlay = _head(op, world, Reason.ROOT_NOT_FOUND)
    base = world.nodes.get(op.base)
    if base is None:
        raise InvalidOperationError("a base that is not there")
    names = world.chain_names(overlay.image)
    if base.image not in names[1:]:
        raise InvalidOperationError("a base that is no disk below")
    depth = names.index(base.image)
    between = {world.nodes[name].image for name in op.between if name in world.nodes}
    if between != set(names[1:depth]) or len(op.between) != len(between):
        raise InvalidOperationError("not the disks between the two")
    check_plain(world, top, op.base, *op.between)
    world.check_unused(base.image)
    layers, below = world.chain(overlay.image)[:depth], world.chain(base.image)
    check_bits(layers[0].size, world.rules.commit_cluster(below[0]))
    ranges = world.rules.committed(layers, below[0])
    check_limit(total(ranges))
    check_id(op, world)
    reopen(world, op.base, read_only=False)
    grow(world, op.base, layers[0].size)
    below = world.chain(base.image)
    written = ranges
    if world.traits.commit_skips_zeroes and base.detect_zeroes != "unmap":
        for zeroes in world.rules.redundant(layers, below, ranges):
            written = minus(written, *zeroes)
    detects = base.detect_zeroes != "off"
    image = world.rules.commit(layers, below, written, detects_zeroes=detects)
    world.images[base.image] = image
    touch(world, op.base, written)
    length = total(ranges)
    world.ends[op.job] = JobEnd(length, length, kind="commit")
    ready = ("created", "running", NOISE, "ready", "READY", READY_NOISE)
    world.tell(op.job, *ready, "waiting", "pending", "COMPLETED", "concluded", "null")
    return Outcome()


@effect.register
def _(op: BlockStream, world: State) -> Outcome:
    top, node = _head(op, world, Reason.DEVICE_NOT_FOUND)
    check_plain(world, top)
    check_id(op, world)
    chain = world.chain(node.image)
    length = 0
    if len(chain) > 1:
        length = chain[0].size
        check_limit(total(world.rules.owned(chain[1:], length)))
        take_all(world, top)
    world.ends[op.job] = JobEnd(length, length, kind="stream")
    moving = ("created", "running", NOISE, "waiting", "pending")
    world.tell(op.job, *moving, "COMPLETED", "concluded", "null")
    return Outcome()


def take_all(world: State, name: str) -> None:
    """A disk gets all that is below it, and stands alone from now on."""
    key = world.nodes[name].image
    world.images[key] = replace(world.rules.stream(world.chain(key)), backing=None)
    world.mounted.pop(key, None)


def _head(op: BlockCommit | BlockStream, world: State, missing: Reason) -> tuple[str, Node]:
    """The disk on top of a chain that a job is to work on, or why there is none."""
    check_job(op.job)
    name, node = world.resolve(op.node, missing)
    if world.overlays(name) or node.read_only:
        raise InvalidOperationError("a disk with an overlay, or one that is read-only")
    if not world.settled_below(name):
        raise OpenOutcomeError("a job on a disk whose backing file is written to")
    return name, node


def check_job(job: str) -> None:
    """The job's name must be one of its slots."""
    if job not in JOBS:
        raise InvalidOperationError(f"there is no job {job}")


def check_id(op: BlockCommit | BlockStream | BlockdevMirror, world: State) -> None:
    """The job's name must be free; QEMU looks last at that."""
    if op.job in world.job_ids:
        raise Refused(Reason.JOB_ID_TAKEN, op.job)


def check_plain(world: State, *names: str) -> None:
    """The disks must be nodes alone, which nothing but their guests uses."""
    for name in names:
        node = world.nodes[name]
        if node.filters is not None or world.filters(name) or name in world.exported:
            raise InvalidOperationError("a disk that a job or an export uses")
        if node.drive is not None:
            raise InvalidOperationError("a drive that would move along")
        if {name, node.image} & world.faults.keys() or name in world.torn:
            raise InvalidOperationError("a disk with faults")
        if world.vague.intersection(world.chain_names(node.image)):
            raise OpenOutcomeError("a chain of bytes that are open")
        if world.unloaded(node):
            raise OpenOutcomeError("a bitmap of the file that the disk has not")


def check_limit(copied: int) -> None:
    """No job may copy more than can be followed."""
    if copied > COPY_LIMIT:
        raise InvalidOperationError(f"more than {COPY_LIMIT} bytes are not followed")


def check_bits(size: int, unit: int) -> None:
    """The bitmap of what a job must copy may not be so large that QEMU is busy with it."""
    if size // unit > BITS_LIMIT:
        raise InvalidOperationError(f"more than {BITS_LIMIT} units are not waited for")


def grow(world: State, name: str, size: int) -> None:
    """A commit first makes its base as long as what is committed."""
    node = world.nodes[name]
    if world.size(node) >= size:
        return
    if any(bitmap.inconsistent or bitmap.busy for bitmap in node.bitmaps.values()):
        raise OpenOutcomeError("a commit into a disk that takes no new size")
    try:
        image = world.rules.resize(world.chain(node.image), size, world.step)
    except Refused:
        raise OpenOutcomeError("a commit into a disk that takes no new size") from None
    world.images[node.image] = image
    bitmaps = {key: world.rules.resize_bitmap(bitmap, size) for key, bitmap in node.bitmaps.items()}
    world.nodes[name] = replace(node, bitmaps=bitmaps)


def touch(world: State, name: str, ranges: tuple[tuple[int, int], ...]) -> None:
    """What a job writes to a disk sets bits there, as a guest's writes do."""
    node, rules = world.nodes[name], world.rules
    bitmaps = dict(node.bitmaps)
    for start, end in ranges:
        for key, bitmap in bitmaps.items():
            bitmaps[key] = rules.touch(bitmap, start, end - start)
    world.nodes[name] = replace(node, bitmaps=bitmaps)
