"""Disks that become each other's backing files: snapshots, commits and streams; and mirrors."""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from qbprop.machine.bitmaps import BY_NAME, bitmap_add, bitmap_command, merge
from qbprop.machine.draws import (
    JOB_CLUSTER,
    LENGTH_LIMIT,
    SECTOR,
    Draft,
    below,
    free_filters,
    free_jobs,
    pick,
    plain,
    present,
    seldom,
)
from qbprop.machine.guest import looked_at
from qbprop.machine.mirrors import follow, mirror
from qbprop.machine.opening import again, open_disk
from qbprop.machine.topology import add_disk, empty_slots
from qbprop.machine.transactions import transaction
from qbprop_model.operations import (
    JOBS,
    BlockCommit,
    BlockdevSnapshot,
    BlockStream,
    CloseDisk,
    Flush,
    Layer,
    Operation,
    Read,
    Restart,
    Transaction,
    Write,
)
from qbprop_model.world import World

ENDS = ("stream", "commit", "commit", "stream", "commit", "close", "commit", "kill")
"""What becomes of an overlay."""

PLACES = 16
"""In how many places at the start of a disk its layers may differ."""


def fit(world: World) -> list[str]:
    """The disks that could be put above others."""
    return [
        name
        for name in plain(world)
        if not world.nodes[name].read_only
        and world.below(world.nodes[name].image) is None
        and world.images[world.nodes[name].image].format == "qcow2"
    ]


def stacked(world: World) -> list[str]:
    """The disks that snapshots have put above others, and which are on top."""
    return [
        name
        for name in plain(world)
        if world.nodes[name].image in world.mounted and not world.nodes[name].read_only
    ]


def possible(world: World) -> bool:
    """Whether there is a disk to put another one above, or one that is above another."""
    count = len(plain(world))
    return count > 1 or (count == 1 and bool(stacked(world) or empty_slots(world) or world.closed))


def graphs(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A disk gets an overlay, which is written to; overlays are committed, streamed, closed.

    Or it is mirrored into another disk.
    """
    draft = Draft(world)
    for _ in range(pick(draw, (4, 2, 6))):
        tops = stacked(draft.world)
        kinds = ("deeper", "end", "deeper", "mirror") if tops else ("another", "mirror")
        match pick(draw, kinds):
            case "end":
                _end(draw, draft, pick(draw, tops))
            case "deeper":
                _snapshot(draw, draft, pick(draw, tops))
                _end(draw, draft, pick(draw, stacked(draft.world) or tops))
            case "mirror" if plain(draft.world):
                mirror(draw, draft)
            case _ if plain(draft.world):
                _snapshot(draw, draft, pick(draw, plain(draft.world)))
    return tuple(draft.operations)


def _snapshot(draw: st.DrawFn, draft: Draft, node: str) -> None:
    """A disk gets an overlay, mostly a new one of about its size; both have bitmaps.

    Where no disk is left it is one that was closed.
    """
    world = draft.world
    others = [name for name in fit(world) if name != node]
    if empty_slots(world) and (not others or not seldom(draw, 3)):
        disk = replace(add_disk(draw, world), drive=None, faults=None)
        top = disk.layers[0]
        if top.format == "raw" and not seldom(draw, 8):
            top = Layer(size=top.size)
        draft.add(replace(disk, layers=(top,)))
        others = [disk.node]
    elif not others and world.closed:
        name = pick(draw, world.closed)
        draft.add(replace(open_disk(draw, world, name, read_only=False), drive=None))
        others = [each for each in fit(world) if each == name]
    if not others:
        return
    overlay = pick(draw, others)
    for name in (node, overlay):
        if name in world.nodes and (not world.nodes[name].bitmaps or seldom(draw, 3)):
            draft.add(bitmap_add(draw, world, name))
    draft.add(*_requests(draw, world, node))
    draft.add(_covering(draw, world, BlockdevSnapshot(node=node, overlay=overlay)))
    draft.add(*_requests(draw, world, overlay), *_requests(draw, world, overlay))
    if seldom(draw, 3):
        draft.add(pick(draw, (bitmap_command, merge))(draw, world))


def _covering(draw: st.DrawFn, world: World, snapshot: BlockdevSnapshot) -> Operation:
    """A snapshot, or a transaction that holds it, perhaps beside a change of what it freezes."""
    kind = pick(draw, ("alone", "transaction", "alone", "change"))
    if kind == "alone":
        return snapshot
    bitmaps = world.nodes[snapshot.node].bitmaps if snapshot.node in world.nodes else {}
    kept = sorted(name for name, bitmap in bitmaps.items() if bitmap.persistent)
    if kind == "transaction" or not kept:
        return transaction(draw, world, snapshot)
    change = pick(draw, BY_NAME)(node=snapshot.node, name=pick(draw, kept))
    actions = (change, snapshot) if seldom(draw, 4) else (snapshot, change)
    return Transaction(actions=actions)


def _end(draw: st.DrawFn, draft: Draft, top: str) -> None:
    """An overlay is written to once more, and then it is one no more."""
    world = draft.world
    draft.add(*_requests(draw, world, top))
    layers = world.chain_names(world.nodes[top].image)[1:]
    disks = {world.nodes[name].image: name for name in present(world)}
    bases = [disks[image] for image in layers if image in disks]
    job = pick(draw, JOBS if seldom(draw, 12) else free_jobs(world) or JOBS)
    ends = ENDS if len(layers) < 2 else ("stream", *ENDS, "stream")
    match pick(draw, ends) if world.settled_below(top) else "close":
        case "commit" if len(bases) > 1 and not seldom(draw, 3):
            above, base = bases[0], bases[-1]
            between = tuple(bases[1:-1])
            draft.add(BlockCommit(job=job, node=top, top=above, base=base, between=between))
            _leave(draw, draft, top, above)
        case "stream" if len(bases) > 1 and not seldom(draw, 3):
            draft.add(BlockStream(job=job, node=top, base=bases[-1]))
            _leave(draw, draft, top, bases[0])
        case "commit" if bases:
            base = pick(draw, (bases[-1], *bases))
            between = tuple(bases[: bases.index(base)])
            filters = free_filters(world)
            over = pick(draw, filters) if filters and seldom(draw, 2) else None
            draft.add(BlockCommit(job=job, node=top, base=base, between=between, filter=over))
            if over is not None and job in world.mirrors:
                follow(draw, draft, job, over)
            draft.add(*_whole(world, base), *_requests(draw, world, base))
            if not seldom(draw, 3):
                draft.add(CloseDisk(node=top))
        case "stream":
            draft.add(BlockStream(job=job, node=top), *_whole(world, top))
            if seldom(draw, 4):
                _kill(draw, draft)
            draft.add(*_requests(draw, world, top))
        case "kill":
            _kill(draw, draft)
        case _:
            draft.add(CloseDisk(node=top))
    for name in plain(world):
        if world.nodes[name].read_only and not seldom(draw, 3):
            again(draw, draft, name)


def _leave(draw: st.DrawFn, draft: Draft, top: str, gone: str) -> None:
    """A disk is looked at that stands on another one now; what was between is mostly closed."""
    draft.add(*_whole(draft.world, top), *_requests(draw, draft.world, top))
    if not seldom(draw, 4):
        draft.add(CloseDisk(node=gone))


def _kill(draw: st.DrawFn, draft: Draft) -> None:
    """QEMU is killed when all is flushed that guests wrote, and what it had is opened again."""
    world, everything = draft.world, seldom(draw, 2)
    for name in present(world):
        if everything or world.nodes[name].unflushed:
            draft.add(Flush(node=name))
    draft.add(Restart(how="kill"))
    for name in world.closed:
        draft.add(open_disk(draw, world, name, read_only=False))


def _requests(draw: st.DrawFn, world: World, name: str) -> tuple[Operation, ...]:
    """Up to three requests to one disk, or a write to one place: what is below shows around it."""
    size = world.size(world.nodes[name]) if name in world.nodes else 0
    if size == 0:
        return ()
    if not seldom(draw, 3):
        offset = JOB_CLUSTER * below(draw, min(-(-size // JOB_CLUSTER), PLACES))
        length = min(pick(draw, (JOB_CLUSTER, SECTOR, 4096)), size - offset)
        return (Write(node=name, offset=offset, length=length, stamp=below(draw, 64)),)
    return looked_at(draw, world, pick(draw, (1, 2, 0, 3)), name)


def _whole(world: World, name: str) -> Iterator[Read]:
    """A read of the start of a disk, or all of it."""
    if name in world.nodes:
        size = world.size(world.nodes[name])
        yield Read(node=name, offset=0, length=min(size, LENGTH_LIMIT))
