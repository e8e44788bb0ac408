"""Bitmaps in NBD exports: made, read by a client while guests write, and deleted."""

from collections.abc import Iterator

from hypothesis import strategies as st

from qbprop.machine.bitmaps import BY_NAME
from qbprop.machine.draws import SECTOR, Draft, byte_range, named, pick, present, seldom, sited
from qbprop.machine.guest import few
from qbprop_model.bitmap import Bitmap
from qbprop_model.exports import Export
from qbprop_model.operations import (
    BAD_BITMAPS,
    BAD_EXPORTS,
    BITMAPS,
    DRIVES,
    EXPORTS,
    FILTERS,
    NODES,
    BitmapAdd,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    JobCancel,
    Operation,
    ReadDirtyExtents,
    Resize,
)
from qbprop_model.state import State
from qbprop_model.world import World

ASKED_LIMIT = 64 << 30
"""Most bytes that a client asks about at once: each 4 GiB are a request."""


def exports(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """An export is made, or one that exists is used; clients read; mostly it is deleted again."""
    draft = Draft(world)
    scratch = draft.world
    filters = [name for name in FILTERS if name in scratch.nodes]
    if filters and seldom(draw, 4):
        draft.add(BitmapAdd(node=pick(draw, filters), name=BITMAPS[0]))
    if not scratch.exports or (len(scratch.exports) < len(EXPORTS) and seldom(draw, 2)):
        draft.add(export_add(draw, scratch))
    for _ in range(pick(draw, (1, 2, 3))):
        draft.add(*few(draw, scratch))
        draft.add(*readings(draw, scratch))
    if scratch.exports and seldom(draw, 3):
        draft.add(forbidden(draw, scratch))
    held = {node for each in scratch.exports.values() for node, _ in each.bitmaps}
    jobs = [job_id for job_id, job in scratch.jobs.items() if job.active and job.filter in held]
    if jobs and seldom(draw, 3):
        draft.add(JobCancel(job=pick(draw, jobs)))
    if scratch.exports and not seldom(draw, 5):
        draft.add(export_del(draw, scratch))
    return tuple(draft.operations)


def one_step(draw: st.DrawFn, world: World) -> Operation:
    """An export is made, read or deleted."""
    if not world.exports or seldom(draw, 4):
        return export_add(draw, world)
    asked = list(readings(draw, world))
    return asked[-1] if asked and not seldom(draw, 3) else export_del(draw, world)


def export_add(draw: st.DrawFn, world: World) -> ExportAdd:
    """An export with bitmaps, mostly of the node itself; beside a job mostly of its filter."""
    slot = next((name for name in EXPORTS if name not in world.exports), EXPORTS[0])
    able = sited(world) or present(world)
    busy = [name for name in able if any(each in FILTERS for each in world.filters(name))]
    disk = pick(draw, busy if busy and not seldom(draw, 3) else able)
    filters = [name for name in world.filters(disk) if name in FILTERS]
    node = filters[0] if filters and not seldom(draw, 3) else disk
    writable = node == (*world.filters(disk), disk)[0] and not seldom(draw, 4)
    found: dict[str, Bitmap] = {}
    for where in reversed(world.downward(node)):
        found |= world.nodes[where].bitmaps
    strict = not writable and not seldom(draw, 3)
    near = [
        ExportedBitmap(name=name)
        for name, bitmap in sorted(found.items())
        if not (bitmap.busy or (strict and bitmap.recording))
    ]
    far = list(elsewhere(draw, world, node))
    wanted = [pick(draw, near) for _ in range(pick(draw, (1, 2, 1, 3)) if near else 0)]
    if far and (not near or seldom(draw, 4)):
        wanted.append(pick(draw, far))
    return ExportAdd(export=slot, node=node, bitmaps=tuple(wanted), writable=writable)


def elsewhere(draw: st.DrawFn, world: World, node: str) -> Iterator[ExportedBitmap]:
    """Bitmaps by the names of their nodes: that of the export too, where only it has bitmaps."""
    others = [name for name in sited(world) if name != node] or sited(world)
    for where in others:
        for name, bitmap in sorted(world.nodes[where].bitmaps.items()):
            if not bitmap.busy:
                yield ExportedBitmap(name=name, node=named(draw, world, where))


def readings(draw: st.DrawFn, world: World) -> Iterator[ReadDirtyExtents]:
    """A client asks for a range of one bitmap, or for all of it."""
    able = [(key, each) for key, each in sorted(world.exports.items()) if contexts(each)]
    if not able:
        return
    name, export = pick(draw, able)
    bitmap = pick(draw, contexts(export))
    node = world.nodes[export.node]
    if seldom(draw, 2):
        yield from whole(world, name, bitmap)
        return
    offset, length = byte_range(draw, world, node)
    length = max(length, 0 if offset == world.size(node) else 1)
    yield ReadDirtyExtents(export=name, bitmap=bitmap, offset=offset, length=length)


def contexts(export: Export) -> list[str]:
    """The bitmaps that a client can ask for; of two of the same name it cannot."""
    names = {name for _, name in export.bitmaps}
    return sorted(name for name in names if len(export.named(name)) == 1 and not export.orphans)


def whole(world: State, name: str, bitmap: str) -> Iterator[ReadDirtyExtents]:
    """All of an export; of a huge one its two ends."""
    size = world.size(world.nodes[world.exports[name].node])
    for offset in sorted({0, max(0, size - ASKED_LIMIT)} if size else ()):
        length = min(size - offset, ASKED_LIMIT)
        yield ReadDirtyExtents(export=name, bitmap=bitmap, offset=offset, length=length)


def export_del(draw: st.DrawFn, world: State) -> ExportDel:
    """A deletion, in a mode that the clients allow for, or seldom in the other."""
    name = pick(draw, sorted(world.exports))
    hard = world.exports[name].connected != seldom(draw, 6)
    return ExportDel(export=name, mode="hard" if hard else "safe")


def forbidden(draw: st.DrawFn, world: World) -> Operation:
    """What an export does not let happen: to disks, to its bitmaps, beside its clients."""
    name = pick(draw, sorted(world.exports))
    export = world.exports[name]
    match pick(draw, ("resize", "bitmap", "export", "safe")):
        case "bitmap" if export.bitmaps:
            node, bitmap = pick(draw, export.bitmaps)
            return pick(draw, BY_NAME)(node=node, name=bitmap)
        case "export" if export.bitmaps:
            node, bitmap = pick(draw, export.bitmaps)
            wanted = ExportedBitmap(name=bitmap, node=pick(draw, (None, node)))
            other = next((each for each in EXPORTS if each not in world.exports), name)
            return ExportAdd(export=other, node=export.node, bitmaps=(wanted,), writable=True)
        case "safe" if export.connected:
            return ExportDel(export=name)
    sites = {export.node, *(node for node, _ in export.bitmaps if node in NODES)}
    site = pick(draw, sorted(sites))
    size = world.size(world.nodes[site]) // SECTOR * SECTOR
    return Resize(node=site, size=size + pick(draw, (SECTOR, 0)))


def refused_export(draw: st.DrawFn, world: World) -> Operation:
    """An export that cannot be made, is not there, or is not asked in the right way."""
    there = sorted(world.exports)
    free = [name for name in EXPORTS if name not in world.exports]
    slot = pick(draw, free or there)
    node = pick(draw, sited(world) or present(world))
    bitmaps = sorted(world.nodes[node].bitmaps)
    busy = [name for name in bitmaps if world.nodes[node].bitmaps[name].busy]
    recording = [name for name in bitmaps if world.nodes[node].bitmaps[name].recording]
    near: str | None
    match pick(draw, ("bitmap", "node", "id", "busy", "read-only", "gone", "question", "name")):
        case "busy" if busy:
            near = named(draw, world, node) if seldom(draw, 2) else None
            wanted = ExportedBitmap(name=pick(draw, busy), node=near)
            return ExportAdd(export=slot, node=node, bitmaps=(wanted,), writable=True)
        case "read-only" if recording:
            wanted = ExportedBitmap(name=pick(draw, recording))
            return ExportAdd(export=slot, node=node, bitmaps=(wanted,))
        case "node":
            absent = [name for name in (*DRIVES, *NODES) if name not in world.nodes]
            return ExportAdd(export=slot, node=pick(draw, absent))
        case "id":
            return ExportAdd(export=pick(draw, (*there, *BAD_EXPORTS)), node=node)
        case "name" if there and free:
            return ExportAdd(export=slot, node=node, name=pick(draw, there))
        case "gone" if free:
            if seldom(draw, 2):
                return ExportDel(export=slot)
            return ReadDirtyExtents(export=slot, bitmap=BITMAPS[0], offset=0, length=1)
        case "question" if there:
            return refused_question(draw, world, pick(draw, there))
    missing = [name for name in BITMAPS if name not in bitmaps] or BAD_BITMAPS
    near = pick(draw, (None, node))
    wanted = ExportedBitmap(name=pick(draw, missing), node=near)
    good = (ExportedBitmap(name=name) for name in bitmaps[: pick(draw, (0, 1, 2))])
    return ExportAdd(export=slot, node=node, bitmaps=(*good, wanted), writable=True)


def refused_question(draw: st.DrawFn, world: World, name: str) -> ReadDirtyExtents:
    """A question past the end, about nothing, or about a bitmap that is not exported."""
    export = world.exports[name]
    size = world.size(world.nodes[export.node])
    if seldom(draw, 3) or not export.bitmaps:
        bitmap = pick(draw, [each for each in BITMAPS if not export.named(each)])
        return ReadDirtyExtents(export=name, bitmap=bitmap, offset=0, length=min(size, SECTOR))
    _, bitmap = pick(draw, export.bitmaps)
    places = ((size, 1), (0, 0), (size + 1, SECTOR), (max(0, size - 1), 2), (0, size + 1))
    offset, length = pick(draw, places)
    return ReadDirtyExtents(export=name, bitmap=bitmap, offset=offset, length=length)


def closing(world: World) -> Iterator[Operation]:
    """At the end of an example: every exported bitmap is read; those of filters let go of."""
    for name, export in sorted(world.exports.items()):
        for bitmap in contexts(export):
            yield from whole(world, name, bitmap)
        if any(node in FILTERS for node, _ in export.bitmaps):
            yield ExportDel(export=name, mode="hard")
