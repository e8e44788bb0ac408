"""Disks that become each other's backing files, and the jobs that undo that (semantics 9)."""

from dataclasses import replace

from qbprop_model.effects.backups import COPY_LIMIT, check_filter
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.opening import reopen
from qbprop_model.expectation import NOISE, READY_NOISE, JobEnd, Kind, Reason
from qbprop_model.image import Chain, Image, Refused
from qbprop_model.mirrors import Mirror
from qbprop_model.operations import (
    JOBS,
    BlockCommit,
    BlockdevMirror,
    BlockdevSnapshot,
    BlockStream,
    InvalidOperationError,
    OpenOutcomeError,
)
from qbprop_model.ranges import Ranges, minus, total
from qbprop_model.state import Node, Outcome, State

PIECES_LIMIT = 1 << 13
"""Most pieces that a job may copy for the model to follow it one by one."""

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
    name, node = _head(op, world, Reason.ROOT_NOT_FOUND)
    base, depth = _below(op.base, node, world)
    above = 0 if op.top is None else _below(op.top, node, world)[1]
    if above >= depth:
        raise InvalidOperationError("a layer that is not above its base")
    names = world.chain_names(node.image)
    between = {world.nodes[name].image for name in op.between if name in world.nodes}
    if between != set(names[above + 1 : depth]) or len(op.between) != len(between):
        raise InvalidOperationError("not the disks between the two")
    check_plain(world, name, *op.between, *filter(None, (op.top,)), op.base)
    if any(world.nodes[each].image != names[depth - 1] for each in world.overlays(op.base)):
        raise InvalidOperationError("a base that another disk stands on")
    world.check_unused(base.image)
    layers, below = world.chain(node.image)[above:depth], world.chain(base.image)
    if op.top is None:
        _commit_all(op, world, layers, below)
    else:
        _commit_below(op, world, names[above - 1], layers)
    return Outcome()


def _below(disk: str, node: Node, world: State) -> tuple[Node, int]:
    """A disk in the chain of another one, and how many layers are above its image."""
    found, names = world.nodes.get(disk), world.chain_names(node.image)
    if found is None or found.image not in names[1:]:
        raise InvalidOperationError(f"{disk} is no disk below")
    return found, names.index(found.image)


def _commit_all(op: BlockCommit, world: State, layers: Chain, below: Chain) -> None:
    """The disk on top is committed, while guests write to it, until it is told to complete."""
    ranges = to_commit(world, layers, below)
    if op.filter is not None:
        check_filter(op.filter, world)
    check_id(op, world)
    reopen(world, op.base, read_only=False)
    below = commit(world, op.base, layers, ranges)
    length = total(ranges)
    world.tell(op.job, "created", "running", NOISE, "ready", "READY", READY_NOISE)
    if op.filter is None:
        world.ends[op.job] = JobEnd(length, length, kind="commit")
        world.tell(op.job, "waiting", "pending", "COMPLETED", "concluded", "null")
        return
    world.nodes[op.base] = replace(world.nodes[op.base], unflushed=True)
    world.put_filter(op.filter, op.node)
    chunk = world.rules.commit_cluster(below[0])
    mirror = Mirror(op.node, op.base, op.filter, chunk, kind="commit", between=op.between)
    if world.traits.commit_skips_zeroes:
        unsure = world.rules.perhaps_zeroed(layers, below, ranges)
        mirror = replace(mirror, zeroes=(), unsure=unsure)
    world.mirrors[op.job] = replace(mirror, length=length)


def to_commit(world: State, layers: Chain, below: Chain) -> Ranges:
    """What a commit of some layers is going to copy, if that can be followed."""
    chunk = world.rules.commit_cluster(below[0])
    check_bits(layers[0].size, chunk)
    ranges = world.rules.committed(layers, below[0])
    check_limit(total(ranges), chunk, piece(below[0]))
    return ranges


def commit(world: State, base: str, layers: Chain, ranges: Ranges) -> Chain:
    """Ranges of some layers go into a base that is writable; what there was, as long as they."""
    grow(world, base, layers[0].size)
    node = world.nodes[base]
    below, written = world.chain(node.image), ranges
    if world.traits.commit_skips_zeroes and node.detect_zeroes != "unmap":
        for zeroes in world.rules.redundant(layers, below, ranges):
            written = minus(written, *zeroes)
    _write(world, base, layers, written)
    return below


def _commit_below(op: BlockCommit, world: State, overlay: str, layers: Chain) -> None:
    """A layer that nobody writes to is committed; what is above then stands on the base."""
    length = layers[0].size
    ranges = world.rules.committed_below(layers)
    check_limit(total(ranges), piece(world.images[world.nodes[op.base].image]))
    check_id(op, world)
    reopen(world, op.base, read_only=False)
    grow(world, op.base, length)
    _write(world, op.base, layers, ranges)
    key = world.nodes[op.base].image
    bare = world.rules.uncovered(world.images[overlay].size, layers[0], world.chain(key))
    check_limit(total(bare), piece(world.images[key]))
    world.images[key] = world.rules.cover(world.chain(key), bare)
    touch(world, op.base, bare)
    reopen(world, op.base, read_only=True)
    stand_on(world, overlay, op.base)
    _runs_through(world, op.job, length, "commit")


def _runs_through(world: State, job: str, length: int, kind: Kind) -> None:
    """A job comes to its end by itself."""
    world.ends[job] = JobEnd(length, length, kind=kind)
    moving = ("created", "running", NOISE, "waiting", "pending")
    world.tell(job, *moving, "COMPLETED", "concluded", "null")


def _write(world: State, name: str, layers: Chain, ranges: Ranges) -> None:
    """A commit writes ranges of some layers to its base."""
    base = world.nodes[name]
    detects, below = base.detect_zeroes != "off", world.chain(base.image)
    world.images[base.image] = world.rules.commit(layers, below, ranges, detects_zeroes=detects)
    touch(world, name, ranges)


def stand_on(world: State, image: str, base: str) -> None:
    """An image gets a disk for its backing file, also in its header."""
    below = world.nodes[base].image
    world.images[image] = replace(world.images[image], backing=below)
    world.mounted[image] = below


@effect.register
def _(op: BlockStream, world: State) -> Outcome:
    top, node = _head(op, world, Reason.DEVICE_NOT_FOUND)
    check_plain(world, top)
    check_id(op, world)
    chain = world.chain(node.image)
    length = chain[0].size if len(chain) > 1 else 0
    depth = None if op.base is None else _below(op.base, node, world)[1]
    if depth == 1:
        raise InvalidOperationError("nothing is between the two")
    copied = total(world.rules.owned(chain[1:depth], length))
    if depth is not None:
        copied += total(world.rules.uncovered(chain[0].size, chain[1], chain[depth:]))
    check_limit(copied, piece(chain[0]))
    if op.base is not None:
        world.images[node.image] = world.rules.stream(chain, depth)
        stand_on(world, node.image, op.base)
    elif len(chain) > 1:
        take_all(world, top)
    _runs_through(world, op.job, length, "stream")
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


def piece(image: Image) -> int:
    """Bytes that an image gets at once; a raw one gets what there is."""
    return COPY_LIMIT if image.format == "raw" else image.unit


def check_limit(copied: int, *units: int) -> None:
    """No job may copy more than can be followed, in pieces of the smallest unit."""
    limit = min(COPY_LIMIT, PIECES_LIMIT * min(units))
    if copied > limit:
        raise InvalidOperationError(f"more than {limit} bytes are not followed")


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
