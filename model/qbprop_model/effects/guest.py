"""Guest I/O and resizing (semantics 1.2, 5)."""

from dataclasses import replace
from itertools import pairwise

from qbprop_model.bitmap import ceil_div
from qbprop_model.data import SECTOR, all_zero
from qbprop_model.disk.geometry import outward
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.faults import strike
from qbprop_model.effects.jobs import copy_before
from qbprop_model.effects.mirrors import follow
from qbprop_model.expectation import Reason, Refusal, Torn
from qbprop_model.faults import REASONS
from qbprop_model.image import Cell, Chain, Image, Refused
from qbprop_model.operations import (
    Discard,
    Fault,
    Flush,
    InvalidOperationError,
    OpenOutcomeError,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.operations import Request as RequestKind
from qbprop_model.ranges import Ranges, within
from qbprop_model.state import Node, Outcome, State

Request = Read | Write | WriteCompressed | WriteZeroes | Discard


def _disk(reference: str, world: State) -> tuple[str, Node]:
    """The disk that a guest means: jobs put their filters between the two (10.2)."""
    name, node = world.resolve(reference, Reason.GUEST_NOT_FOUND)
    return (name, node) if node.filters is None else (node.filters, world.nodes[node.filters])


def _reached(op: Request, world: State) -> tuple[str, Node, Chain]:
    """The disk that a request gets to; past its end nothing gets there (1.2)."""
    name, node = _disk(op.node, world)
    if node.read_only and not isinstance(op, Read):
        raise Refused(Reason.READ_ONLY)
    if op.offset + op.length > world.size(node):
        raise Refused(Reason.PAST_END)
    chain = world.chain(node.image)
    if name in world.torn and not isinstance(op, Read):
        _check_apart(op, world.torn[name], chain[0])
    return name, node, chain


def _check_apart(op: Request, torn: Write, image: Image) -> None:
    """What changes bytes that are open has an open outcome itself, but for the same write again."""
    again = op.offset <= torn.offset and torn.offset + torn.length <= op.offset + op.length
    if _meet(op, torn, image) and not (isinstance(op, Write) and again):
        raise OpenOutcomeError("a change of bytes that are open")


def _meet(op: Request, torn: Write, image: Image) -> bool:
    """Whether a request gets to a cluster of a write that failed midway."""
    start, end = outward(image.cluster_size, torn.offset, torn.offset + torn.length)
    return op.offset < end and start < op.offset + op.length


def _touch(world: State, name: str, op: Request) -> None:
    """Set the bits of a node for the whole range."""
    node = world.nodes[name]
    bitmaps = {
        key: world.rules.touch(bitmap, op.offset, op.length) for key, bitmap in node.bitmaps.items()
    }
    world.nodes[name] = replace(node, bitmaps=bitmaps)


def detected(op: Write | WriteCompressed, node: Node) -> bool:
    """Whether the node turns a write into zeroing (``detect-zeroes``): its bytes decide."""
    return node.detect_zeroes != "off" and all_zero(op.data, op.offset, op.length)


def _copied_before(op: Request, name: str, world: State) -> Refusal | None:
    """Let the jobs of a disk copy first; the error that the guest gets if that fails (1.2)."""
    try:
        copy_before(world, name, op.offset, op.length)
    except Refused as refused:
        for each in world.filters(name):
            _touch(world, each, op)
        return refused.refusal
    return None


def _failed(world: State, name: str, kind: RequestKind, op: Request) -> Refusal | None:
    """The error of a fault of the disk; it has set the bits of what would write (1.2, 7.2)."""
    reason = strike(world, name, kind, op.offset, op.length)
    if reason is None:
        return None
    if kind != "read":
        _store(world, name, None, op)
    return Refusal(reason)


def _fails_below(world: State, name: str, op: Request) -> Refusal | None:
    """The error of a layer's file, if one of the writes meets it that a write of data takes.

    Those before it may be done, in any order (7).
    """
    key = world.nodes[name].image
    image = world.images[key]
    fault = _fault_below(world, name)
    if fault is None or not op.length:
        return None
    if not isinstance(op, Write) or detected(op, world.nodes[name]):
        raise OpenOutcomeError("whether data is written")
    least, most = world.rules.data_writes(image, op.offset, op.length)
    if most <= fault.after and least == most:
        world.faults[key] = (replace(fault, after=fault.after - most),)
        return None
    if least <= fault.after or world.filters(name):
        raise OpenOutcomeError("whether a write fails, or what a job makes of it")
    world.faults[key] = ()
    world.torn[name] = op
    world.vague |= {key}
    _store(world, name, None, op)
    return Refusal(REASONS[fault.errno])


def _fault_below(world: State, name: str) -> Fault | None:
    """The fault of a layer's file that a write of data will meet."""
    faults = world.faults.get(world.nodes[name].image, ())
    return next((each for each in faults if each.request == "write_aio"), None)


def _store(world: State, name: str, image: Image | None, op: Request) -> None:
    """Put the written image back; set bits of the disk and of all filters above it."""
    if image is not None:
        world.images[world.nodes[name].image] = image
    world.nodes[name] = replace(world.nodes[name], unflushed=True)
    for each in (*world.filters(name), name):
        _touch(world, each, op)
    follow(world, name, op.offset, op.length, zeroes=isinstance(op, WriteZeroes))


@effect.register
def _(op: Read, world: State) -> Outcome:
    if op.node in world.opened:
        chain = world.chain(op.node)
        if op.offset + op.length > chain[0].size:
            raise Refused(Reason.PAST_END)
        if world.contents(op.node) is None:
            raise OpenOutcomeError("the bytes of the target are open")
    else:
        name, _, chain = _reached(op, world)
        if failed := _failed(world, name, "read", op):
            return Outcome(refusal=failed)
        if name in world.torn:
            return _read_torn(op, world.torn[name], chain, world)
    return Outcome(data=world.rules.view_range(chain, op.offset, op.length))


def _read_torn(op: Read, failed: Write, chain: Chain, world: State) -> Outcome:
    """What a disk reads as on which a write has failed midway."""
    rules, start, end = world.rules, op.offset, op.offset + op.length
    written = rules.write(chain, failed.offset, failed.length, Cell(failed.data, world.step))
    met = within(rules.torn(chain[0], failed.offset, failed.length), start, end)
    return Outcome(
        data=rules.view_range(chain, start, op.length),
        torn=Torn(
            rules.view_range((written, *chain[1:]), start, op.length),
            tuple((s - start, e - start) for s, e in met),
        ),
    )


@effect.register
def _(op: Flush, world: State) -> Outcome:
    if op.node in world.opened:
        raise InvalidOperationError("guests only read targets")
    name, node = _disk(op.node, world)
    if node.unflushed and (reason := strike(world, name, "flush")):
        return Outcome(refusal=Refusal(reason))
    world.nodes[name] = replace(node, unflushed=False)
    return Outcome()


@effect.register
def _(op: Write, world: State) -> Outcome:
    name, node, chain = _reached(op, world)
    zeroes = detected(op, node)
    unmap = node.detect_zeroes == "unmap" and _passes_unmap(world, name)
    if failed := _copied_before(op, name, world):
        return Outcome(refusal=failed)
    if failed := _failed(world, name, "write_zeroes" if zeroes else "write", op):
        return Outcome(refusal=failed)
    if failed := _fails_below(world, name, op):
        return Outcome(refusal=failed)
    if zeroes:
        image = world.rules.write_zeroes(chain, op.offset, op.length, world.step, unmap=unmap)
    else:
        if name in world.torn and _meet(op, world.torn[name], chain[0]):
            del world.torn[name]
            world.vague -= {node.image}
        cell = Cell(op.data, world.step)
        image = world.rules.write(chain, op.offset, op.length, cell)
    _store(world, name, image, op)
    return Outcome()


@effect.register
def _(op: WriteCompressed, world: State) -> Outcome:
    world.check_monitor()
    reached, entered = world.resolve(op.node, Reason.GUEST_NOT_FOUND)
    if _unshared(world, reached):
        raise Refused(Reason.PERMISSION_DENIED, reached)
    if entered.read_only:
        raise Refused(Reason.READ_ONLY)
    if op.offset % SECTOR or op.length % SECTOR:
        raise Refused(Reason.NOT_SECTOR_ALIGNED)
    name, node, chain = _reached(op, world)
    if entered.filters is not None:
        _touch(world, reached, op)
        return Outcome(refusal=Refusal(Reason.NOT_SUPPORTED))
    rules, step = world.rules, world.step
    _fails_below(world, name, op)
    zeroes = detected(op, node)
    if zeroes and (failed := _failed(world, name, "write_zeroes", op)):
        return Outcome(refusal=failed)
    if name in world.faults and not zeroes:
        _store(world, name, None, op)
        return Outcome(refusal=Refusal(Reason.NOT_SUPPORTED))
    try:
        if zeroes:
            unmap = node.detect_zeroes == "unmap" and _passes_unmap(world, name)
            image = rules.write_zeroes(chain, op.offset, op.length, step, unmap=unmap)
        else:
            image = rules.write_compressed(chain, op.offset, op.length, Cell(op.data, step))
    except Refused as refused:
        _store(world, name, None, op)
        return Outcome(refusal=refused.refusal)
    _store(world, name, image, op)
    return Outcome()


def _unshared(world: State, name: str) -> bool:
    """Whether a backup's filter, anywhere above a node, lets nobody else write to it (10.1).

    That of a mirror lets others write.
    """
    disk = world.nodes[name].filters or name
    own = world.filters(disk)
    over = own if name == disk else own[: own.index(name)]
    return bool(over) or any(map(world.filters, {*world.above(disk)} - world.mirrored))


def _passes_unmap(world: State, name: str) -> bool:
    """Whether a wish to unmap gets to the format: a filter needs ``discard=unmap`` for that."""
    discard = world.nodes[name].discard
    if world.traits.unmap_needs_discard:
        return discard and not world.filters(name)
    return discard or not (world.filters(name) or name in world.faults)


@effect.register
def _(op: WriteZeroes, world: State) -> Outcome:
    name, _, chain = _reached(op, world)
    if not op.length:
        return Outcome()
    unmap = op.unmap and _passes_unmap(world, name)  # before the copy ends a job, and its filter
    if failed := _copied_before(op, name, world):
        return Outcome(refusal=failed)
    if failed := _failed(world, name, "write_zeroes", op):
        return Outcome(refusal=failed)
    _fails_below(world, name, op)
    image = world.rules.write_zeroes(chain, op.offset, op.length, world.step, unmap=unmap)
    _store(world, name, image, op)
    return Outcome()


@effect.register
def _(op: Discard, world: State) -> Outcome:
    name, node, chain = _reached(op, world)
    if not op.length and not world.traits.empty_discards_count:
        return Outcome()
    if not node.discard or world.filters(name):
        return Outcome()
    if op.length and _fault_below(world, name) is not None:
        raise OpenOutcomeError("how many writes of data the clusters take that a discard leaves")
    image, failed = chain[0], None
    for start, end in _discarded(op, image, world):
        if reason := strike(world, name, "discard", start, end - start):
            failed = Refusal(reason)
            break
        image = world.rules.discard((image, *chain[1:]), start, end - start, world.step)
    _store(world, name, image, op)
    return Outcome(refusal=failed)


def _discarded(op: Discard, image: Image, world: State) -> Ranges:
    """The parts in which a discard gets to a disk: what is no whole cluster comes by itself."""
    start, end = op.offset, op.offset + op.length
    whole = image.format == "raw" or not world.traits.discards_split
    cluster = 1 if whole else image.cluster_size
    first = min(ceil_div(start, cluster) * cluster, end)
    last = max(end // cluster * cluster, first)
    return tuple(part for part in pairwise((start, first, last, end)) if part[0] < part[1])


@effect.register
def _(op: Resize, world: State) -> Outcome:
    name, node = world.resolve(op.node, Reason.RESIZE_NOT_FOUND)
    if node.filters is not None:
        raise Refused(Reason.DEVICE_IN_USE, op.node if op.node == node.drive else "")
    if world.overlays(name):
        raise InvalidOperationError("a disk below another keeps its size")
    jobs = [job for job in world.jobs.values() if job.active and job.node == name]
    if jobs and jobs[-1].backs_target:  # the filter of a later job comes between
        raise Refused(Reason.DEVICE_IN_USE, name)
    exports = (each for each in world.exports.values() if each.node == name)
    if world.filters(name) or not all(map(world.rules.lets_resize, exports)):
        raise Refused(Reason.PERMISSION_DENIED, name)
    if node.read_only:
        raise InvalidOperationError("a disk that is read-only keeps its size")
    inconsistent = [key for key, bitmap in node.bitmaps.items() if bitmap.inconsistent]
    busy = [key for key, bitmap in node.bitmaps.items() if bitmap.busy]
    unloaded = world.unloaded(node)
    stored = world.images[node.image].stored.keys()
    chain = world.chain(node.image)
    faults = world.faults.get(node.image)
    try:
        image = world.rules.resize(chain, op.size, world.step)
    except Refused as refused:
        if refused.refusal.reason is Reason.GROW_UNSUPPORTED and faults:
            raise OpenOutcomeError("which of two errors a resize meets first") from None
        known = refused.refusal.reason is Reason.SIZE_NOT_ALIGNED
        if (inconsistent or unloaded or not stored.isdisjoint(busy)) and not known:
            raise OpenOutcomeError("whether a bitmap or its size stops a resize") from None
        raise
    if faults and not world.rules.writes_size_alone(chain, op.size):
        raise OpenOutcomeError("what a resize has done before it fails, or whether it does")
    if sum(map(bool, (busy, inconsistent, unloaded))) > 1:
        raise OpenOutcomeError("which bitmap stops a resize")
    if busy:
        # The export of another node has them; which one QEMU names is open.
        raise Refused(Reason.BITMAP_BUSY, busy[0] if len(busy) == 1 else "")
    if unloaded:
        raise Refused(Reason.BITMAP_NOT_LOADED)
    if inconsistent:
        raise Refused(Reason.BITMAP_INCONSISTENT, inconsistent[0] if len(inconsistent) == 1 else "")
    if any(
        bitmap.persistent and not world.rules.fits_image(image.size, bitmap.granularity)
        for bitmap in node.bitmaps.values()
    ):
        raise OpenOutcomeError("a bitmap that grows too large to be stored")
    if name in world.torn:
        raise OpenOutcomeError("a resize of bytes that are open")
    if faults and faults[0].request == "resize":
        strike(world, node.image, "resize")
        return Outcome(refusal=Refusal(Reason.SIZE_NOT_WRITTEN))
    world.images[node.image] = image
    bitmaps = {
        key: world.rules.resize_bitmap(bitmap, image.size) for key, bitmap in node.bitmaps.items()
    }
    world.nodes[name] = replace(node, bitmaps=bitmaps, unflushed=True)
    return Outcome()
