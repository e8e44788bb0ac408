"""Mirrors from their start to their end, and what goes on beside them (semantics 9)."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

from qbprop_model.disk.geometry import outward, units
from qbprop_model.effects.backups import COPY_LIMIT, check_filter
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.graphs import (
    check_bits,
    check_id,
    check_job,
    check_limit,
    check_plain,
    piece,
    touch,
)
from qbprop_model.effects.jobs import check_verb
from qbprop_model.effects.opening import reopen
from qbprop_model.expectation import FOLLOWS, NOISE, READY_NOISE, JobEnd, Reason
from qbprop_model.graphs import only_zeroes
from qbprop_model.image import Alloc, Image, Refused
from qbprop_model.mirrors import Mirror
from qbprop_model.operations import (
    BitmapAction,
    BlockdevMirror,
    Discard,
    Flush,
    InvalidOperationError,
    JobCancel,
    JobCommand,
    JobComplete,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    Migrate,
    OpenOutcomeError,
    Operation,
    Read,
    Restart,
    Transaction,
    Write,
    WriteZeroes,
)
from qbprop_model.ranges import Ranges, joined, minus, plus, total, within
from qbprop_model.state import Outcome, State


@effect.register
def _(op: BlockdevMirror, world: State) -> Outcome:
    name, node = world.resolve(op.node, Reason.DEVICE_NOT_FOUND)
    _check_on_top(world, name)
    into, target = world.resolve(op.target, Reason.DEVICE_NOT_FOUND)
    if name == into:
        raise Refused(Reason.MIRRORED_INTO_ITSELF)
    _check_on_top(world, into)
    check_job(op.job)
    check_filter(op.filter, world)
    check_id(op, world)
    _check_disks(world, name, into)
    rules, image, source = world.rules, world.images[target.image], world.chain(node.image)
    chunk = rules.mirror_chunk(image)
    # Some QEMUs then write even zeroes that are there, so that they take no space.
    punches = world.traits.commit_skips_zeroes and target.detect_zeroes == "unmap"
    check_bits(image.size, chunk)
    zeroes = _known_zeroes(op, image, world, punches=punches)
    ranges: Ranges = rules.mirrored(op.sync, source, chunk)
    if op.sync == "full" and not zeroes and image.size:
        whole = (0, image.size)
        if rules.zeroes_target(image, discard=target.discard) and not punches:
            check_limit(image.size, COPY_LIMIT)
            zeroed = rules.write_zeroes((image,), *whole, world.step, unmap=True)
            world.images[target.image] = zeroed
            touch(world, into, (whole,))
            zeroes = None if zeroes is None else (whole,)
        else:
            ranges = (whole,)
    check_limit(total(ranges), chunk, piece(image))
    world.nodes[into] = replace(world.nodes[into], unflushed=True)
    world.put_filter(op.filter, name)
    blocking = op.copy_mode == "write-blocking"
    world.mirrors[op.job] = Mirror(name, into, op.filter, chunk, blocking, zeroes=zeroes)
    _copy(world, op.job, ranges)
    world.tell(op.job, "created", "running", NOISE, "ready", "READY", READY_NOISE)
    return Outcome()


def _check_on_top(world: State, name: str) -> None:
    """A disk must be a node alone, and have none above it."""
    check_plain(world, name)
    if world.overlays(name):
        raise InvalidOperationError("a disk with an overlay")


def _check_disks(world: State, name: str, into: str) -> None:
    """Both must be writable and of one size; the target stands alone."""
    node, target = world.nodes[name], world.nodes[into]
    if node.read_only or target.read_only:
        raise InvalidOperationError("a disk that is read-only")
    if not world.settled_below(name):
        raise OpenOutcomeError("a mirror of a disk whose backing file is written to")
    if world.below(target.image) is not None or world.size(node) != world.size(target):
        raise InvalidOperationError("a target over another image, or of another size")
    if world.images[target.image].compat == "0.10":
        raise OpenOutcomeError("whether zeroes are written out or dropped")


def _known_zeroes(
    op: BlockdevMirror, image: Image, world: State, *, punches: bool
) -> Ranges | None:
    """What a mirror knows at its start of the zeroes of its target."""
    if not world.traits.commit_skips_zeroes or op.sync == "none":
        return None
    if punches or not only_zeroes(list(world.rules.visible((image,), 0, image.size))):
        return ()
    kinds = {kind for *_, kind in world.rules.status((image,), 0, image.size)}
    if Alloc.DATA_OR_ZERO in kinds or image.cluster_size > world.rules.mirror_chunk(image):
        raise OpenOutcomeError("whether a mirror sees that its target is nothing but zeroes")
    return () if Alloc.DATA in kinds or not image.size else ((0, image.size),)


# --- copying -------------------------------------------------------------------------------


def follow(world: State, node: str, offset: int, length: int, *, zeroes: bool) -> None:
    """A guest has written to a disk, which may be mirrored; ``zeroes``: by asking for them."""
    for job_id, mirror in tuple(world.mirrors.items()):
        if mirror.node == node:
            _written(world, job_id, offset, length, zeroes=zeroes)


def _written(world: State, job_id: str, offset: int, length: int, *, zeroes: bool) -> None:
    mirror = world.mirrors[job_id]
    if not length:
        raise OpenOutcomeError("what a mirror makes of a write of nothing")
    if mirror.blocking:
        _write_through(world, job_id, offset, length, zeroes=zeroes)
        return
    size = world.size(world.nodes[mirror.node])
    ranges = world.rules.followed(offset, length, mirror.chunk, size)
    if mirror.status == "ready":
        _copy(world, job_id, ranges)
        world.tell(job_id, FOLLOWS)
        return
    left = joined(sorted((*mirror.left, *ranges)))
    world.mirrors[job_id] = replace(mirror, left=left)


def _copy(world: State, job_id: str, ranges: Ranges) -> None:
    """The job copies chunks; zeroes that it knows the target to have it does not write."""
    mirror, rules = world.mirrors[job_id], world.rules
    target, source = world.nodes[mirror.target], world.chain(world.nodes[mirror.node].image)
    image, zeroes, unsure = world.images[target.image], mirror.zeroes, mirror.unsure
    written: list[tuple[int, int]] = []
    beside: tuple[int, bool] | None = None
    for s, e in units(mirror.chunk, ranges):
        kind = rules.chunk_kind(source, s, e, mirror.chunk)
        if kind is Alloc.ZERO and image.unit > mirror.chunk:
            kind = Alloc.DATA_OR_ZERO  # zeroes travel as whole clusters of the target
        if zeroes is not None:
            if kind is Alloc.DATA_OR_ZERO or (kind is Alloc.ZERO and within(unsure, s, e)):
                raise OpenOutcomeError("whether a mirror writes zeroes, or data that is zero")
            known = within(zeroes, s, e) == ((s, e),)
            if kind is Alloc.ZERO and beside == (s, not known):
                raise OpenOutcomeError(
                    "whether a mirror takes zeroes at once, of which it knows some"
                )
            if kind is Alloc.ZERO:
                beside = (e, known)
            if kind is Alloc.ZERO and known:
                continue
            zeroes = plus(zeroes, s, e) if kind is Alloc.ZERO else minus(zeroes, s, e)
            unsure = minus(unsure, s, e)
        image = _carried(world, mirror, image, (s, e), zeroes=kind is not Alloc.DATA)
        written.append((s, e))
    world.images[target.image] = image
    touch(world, mirror.target, joined(written))
    length = mirror.length + total(ranges)
    world.mirrors[job_id] = replace(mirror, zeroes=zeroes, unsure=unsure, length=length)


def _write_through(world: State, job_id: str, offset: int, length: int, *, zeroes: bool) -> None:
    """A guest's write goes to the target as well."""
    mirror, end = world.mirrors[job_id], offset + length
    target = world.nodes[mirror.target]
    known, unsure, skipped = mirror.zeroes, mirror.unsure, False
    if known is not None:
        size = world.images[target.image].size
        (around,) = within((outward(mirror.chunk, offset, end),), 0, size)
        if zeroes and around[1] % mirror.chunk:
            raise OpenOutcomeError("what a mirror knows of a last chunk that is shorter")
        skipped = zeroes and within(known, *around) == (around,)
        if zeroes and not skipped and within(unsure, *around):
            raise OpenOutcomeError("whether a mirror knows that its target is zero there")
        unsure = minus(unsure, *around)
        if zeroes:
            first, last = -(-offset // mirror.chunk), end // mirror.chunk
            known = plus(known, first * mirror.chunk, last * mirror.chunk)
        else:
            known = minus(known, *around)
    if not skipped:
        for written in world.rules.written_through(offset, length):
            image = world.images[target.image]
            world.images[target.image] = _carried(world, mirror, image, written, zeroes=zeroes)
            touch(world, mirror.target, (written,))
    length += mirror.length
    world.mirrors[job_id] = replace(mirror, zeroes=known, unsure=unsure, length=length)


def _carried(
    world: State, mirror: Mirror, image: Image, place: tuple[int, int], *, zeroes: bool
) -> Image:
    """The target with the bytes that the disk has at a place."""
    source = world.chain(world.nodes[mirror.node].image)
    target = world.nodes[mirror.target]
    cells = list(world.rules.visible(source, *place))
    zeroes = zeroes or (target.detect_zeroes != "off" and only_zeroes(cells))
    if zeroes and image.compat == "0.10":
        raise OpenOutcomeError("whether zeroes are written out or dropped")
    below = world.chain(target.image)[1:]
    return world.rules.carry((image, *below), cells, zeroes=zeroes)


# --- commands ------------------------------------------------------------------------------


def command_mirror(op: JobCommand, world: State) -> Outcome:
    """What a command does to a mirror."""
    mirror = world.mirrors[op.job]
    paused = mirror.status == "standby"
    match op:
        case JobSetSpeed(speed=speed):
            if speed:
                raise OpenOutcomeError("how far a mirror gets at some speed")
        case JobPause():
            if paused:
                raise Refused(Reason.ALREADY_PAUSED)
            if _sleeps(world, mirror):
                raise OpenOutcomeError("when a mirror that looks for nothing notices")
            _set_status(world, op.job, "standby")
        case JobResume():
            if not paused:
                raise Refused(Reason.NOT_PAUSED)
            _go_on(world, op.job)
        case JobCancel(force=force, block=block):
            if block and not force and paused:
                raise Refused(Reason.CANCEL_PAUSED, op.job)
            if mirror.left:
                raise OpenOutcomeError("what a mirror copies that is cancelled while it is paused")
            well = (block and not force) or _sleeps(world, mirror)
            return _complete(world, op.job) if well else _cancel(world, op.job)
        case JobComplete():
            if paused:
                raise OpenOutcomeError("a mirror that is to complete while it is paused")
            return _complete(world, op.job)
        case JobFinalize():
            check_verb(world, mirror.status, "finalize")
        case JobDismiss():
            check_verb(world, mirror.status, "dismiss")
    return Outcome()


def _sleeps(world: State, mirror: Mirror) -> bool:
    """Whether a mirror, of an empty disk on 5.2, looks for nothing and ends well at any cancel."""
    return not (world.size(world.nodes[mirror.node]) or world.traits.blockdev_backup_x_perf)


def _go_on(world: State, job_id: str) -> None:
    """A paused mirror copies what guests have written meanwhile."""
    left = world.mirrors[job_id].left
    _set_status(world, job_id, "ready")
    world.tell(job_id, READY_NOISE)
    world.mirrors[job_id] = replace(world.mirrors[job_id], left=())
    _copy(world, job_id, left)
    if left:
        world.tell(job_id, FOLLOWS)


def _complete(world: State, job_id: str) -> Outcome:
    """Both disks are alike, and the job ends; a cancel without force leaves guests where they are.

    Of disks that are nodes alone nothing moves; that of a commit stays above its base.
    """
    mirror = world.mirrors[job_id]
    world.ends[job_id] = JobEnd(mirror.length, mirror.length, kind=mirror.kind)
    world.tell(job_id, "waiting", "pending", "COMPLETED", "concluded", "null")
    return _end(world, job_id)


def _cancel(world: State, job_id: str) -> Outcome:
    """The target stays as it is; a base becomes read-only again."""
    mirror = world.mirrors[job_id]
    if mirror.status == "standby":
        world.tell(job_id, "ready", READY_NOISE)
    length = mirror.length
    world.ends[job_id] = JobEnd(length, length, Reason.JOB_CANCELLED, kind=mirror.kind)
    world.tell(job_id, "aborting", "CANCELLED", "concluded", "null")
    if mirror.kind == "commit" and world.traits.cancelled_commit_freezes:
        reopen(world, mirror.target, read_only=True)
    return _end(world, job_id)


def _end(world: State, job_id: str) -> Outcome:
    mirror = world.mirrors.pop(job_id)
    world.remove_filter(mirror.filter)
    return Outcome(contents=(mirror.node, mirror.target))


def _set_status(world: State, job_id: str, status: str) -> None:
    world.mirrors[job_id] = replace(world.mirrors[job_id], status=status)
    world.tell(job_id, status)


# --- beside a mirror -----------------------------------------------------------------------


def check_apart(op: Operation, world: State) -> None:
    """What may be done beside mirrors: guests use the filter, bitmaps and other disks are free.

    Raises InvalidOperationError for the rest: what else uses one of the disks.
    """
    taken = world.mirrored
    filters = {each.filter for each in world.mirrors.values()}
    match op:
        case Read() | Write() | WriteZeroes() | Discard() | Flush():
            if world.roots.get(op.node, op.node) in taken:
                raise InvalidOperationError("guests reach a mirrored disk through its filter")
        case Restart():
            return
        case Migrate():
            raise InvalidOperationError("a mirror keeps its disks from being handed over")
        case Transaction(actions=actions):
            for action in actions:
                check_apart(action, world)
        case _ if not isinstance(op, BitmapAction):
            if not (taken | filters).isdisjoint(_names(op)):
                raise InvalidOperationError("a disk that is mirrored")


def _names(value: object) -> Iterator[str]:
    """All that an operation names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _names(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _names(getattr(value, field.name))
