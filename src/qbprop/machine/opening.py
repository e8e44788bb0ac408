"""Disks closed, opened and reopened, and QEMU ended: what of bitmaps and data survives."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeVar

from hypothesis import strategies as st

from qbprop.machine.bitmaps import BY_NAME, bitmap_command, merge
from qbprop.machine.draws import (
    SECTOR,
    SMALL,
    Draft,
    below,
    byte_range,
    data,
    granularities,
    idle,
    named,
    pick,
    present,
    seldom,
    sited,
)
from qbprop.machine.guest import few, new_size
from qbprop.machine.topology import DISCARDS, add_disk, detects, empty_slots
from qbprop_model.operations import (
    BITMAPS,
    DRIVES,
    NODES,
    BitmapAdd,
    BitmapMerge,
    BitmapRemove,
    ChangeBitmap,
    CloseDisk,
    CommitImage,
    CompareImages,
    ConvertImage,
    ExportDel,
    Flush,
    MergeSource,
    Migrate,
    OfflineAction,
    OpenDisk,
    Opening,
    Operation,
    Renaming,
    ReopenDisk,
    ResizeImage,
    Restart,
    Write,
)
from qbprop_model.state import Node, State
from qbprop_model.world import World

Disk = TypeVar("Disk", bound=Opening)

KINDS = ("close", "restart", "reopen", "migrate", "close", "reopen", "restart")
CROSSING = ("restart", "restart", "migrate", "close", "restart", "reopen")
BESIDE_JOBS = ("close", "reopen", "restart", "reopen", "close")
"""Ways to close disks; only a restart and a migration cross to another QEMU."""

OFFLINE: tuple[Literal["merge", "clear", "enable", "disable", "remove"], ...] = (
    *("merge", "disable", "enable"),
    *("clear", "merge", "remove"),
)
HOW: tuple[Literal["quit", "terminate", "kill"], ...] = ("quit", "kill", "kill", "terminate")


def close_disk(draw: st.DrawFn, world: State) -> CloseDisk:
    """A disk is closed, as it was opened; seldom by its other name, which is refused.

    Beside jobs it is mostly one that they do not use.
    """
    spare = idle(world) if world.backed_up and not seldom(draw, 3) else []
    name = pick(draw, spare or present(world))
    drive = world.nodes[name].drive
    return CloseDisk(node=name if drive is None or seldom(draw, 20) else drive)


def open_disk(
    draw: st.DrawFn, world: State, name: str, *, read_only: bool | None = None
) -> OpenDisk:
    """A disk that is closed is opened, one in four times read-only."""
    return opening(OpenDisk, draw, world, name, read_only=read_only)


def opening(
    cls: type[Disk], draw: st.DrawFn, world: State, name: str, *, read_only: bool | None
) -> Disk:
    """How a disk is opened whose images exist."""
    discard = pick(draw, DISCARDS)
    as_drive = world.traits.human_monitor_command and seldom(draw, 3)
    return cls(
        node=name,
        format=world.images[f"{name}.0"].format,
        drive=DRIVES[NODES.index(name)] if as_drive else None,
        discard=discard,
        detect_zeroes=pick(draw, detects(discard)),
        read_only=seldom(draw, 4) if read_only is None else read_only,
    )


def reopenable(world: State) -> list[str]:
    """The disks of one layer, with no one but guests to use them."""
    return [
        name
        for name in idle(world)
        if world.nodes[name].drive is None
        and world.images[f"{name}.0"].backing is None
        and name not in {*world.faults, *world.exported}
    ]


def reopen_disk(draw: st.DrawFn, world: State) -> ReopenDisk:
    """A disk becomes read-only, or writable again; seldom it stays as it is."""
    name = pick(draw, reopenable(world))
    node = world.nodes[name]
    discard = pick(draw, DISCARDS)
    return ReopenDisk(
        node=name,
        format=world.images[node.image].format,
        discard=discard,
        detect_zeroes=pick(draw, detects(discard)),
        read_only=node.read_only == seldom(draw, 6),
    )


def openings(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A disk is closed and opened, or reopened, and its bitmaps used; or QEMU is restarted.

    What has become read-only is mostly made writable again.
    """
    draft = Draft(world)
    scratch = draft.world
    for _ in range(pick(draw, (1, 1, 2) if len(scratch.qemus) == 1 else (2, 3, 4))):
        if not scratch.nodes:
            break
        draft.add(*few(draw, scratch), *last_bits(draw, scratch))
        if scratch.backed_up and not idle(scratch) and empty_slots(scratch):
            draft.add(add_disk(draw, scratch))
        kinds = KINDS if len(scratch.qemus) == 1 else CROSSING
        if _stuck(scratch):
            kinds = (*kinds, "migrate")
        kind = pick(draw, BESIDE_JOBS if scratch.backed_up else kinds)
        if kind == "restart":
            _restart(draw, draft)
        elif kind == "migrate" and _may_migrate(scratch):
            _migrate(draw, draft)
        elif kind == "reopen" and reopenable(scratch):
            draft.add(reopen_disk(draw, scratch))
        else:
            draft.add(close_disk(draw, scratch))
        for name in scratch.closed:
            if scratch.jobs or seldom(draw, 3):
                draft.add(offline(draw, scratch, name))
            if seldom(draw, 3):
                draft.add(*copied(draw, scratch, name))
            if not scratch.nodes or not seldom(draw, 8):
                draft.add(open_disk(draw, scratch, name))
        uses = pick(draw, (3, 1, 5) if kind in ("restart", "migrate") else (1, 0, 2, 4))
        for _ in range(uses if scratch.nodes else 0):
            draft.add(*_use(draw, scratch))
    for name in present(scratch):
        if scratch.nodes[name].read_only and not seldom(draw, 4):
            again(draw, draft, name)
    return tuple(draft.operations)


def last_bits(draw: st.DrawFn, world: World) -> Iterator[Operation]:
    """Writes to the ends of disks with persistent bitmaps, so that their last bits are stored."""
    for name in present(world):
        node = world.nodes[name]
        stored = any(bitmap.persistent for bitmap in node.bitmaps.values())
        if stored and not node.read_only and seldom(draw, 3):
            length = min(SECTOR, world.size(node))
            yield Write(node=name, offset=world.size(node) - length, length=length, **data(draw))


def offline(draw: st.DrawFn, world: World, name: str) -> Operation:
    """``qemu-img`` changes the image of a disk that is closed: mostly a bitmap of it."""
    image = world.images[f"{name}.0"]
    if seldom(draw, 2 if world.backed_up else 4):
        node = Node(image=f"{name}.0", bitmaps=image.stored)
        return ResizeImage(node=name, size=new_size(draw, world, node), format=image.format)
    there = sorted(image.stored)
    bitmap = pick(draw, (*there, *there, *BITMAPS[:3]))
    others = [
        each
        for each in world.closed
        if each != name
        and world.images[f"{each}.0"].stored
        and (world.images[f"{each}.0"].size == image.size or seldom(draw, 4))
    ]
    source = pick(draw, others) if others and not seldom(draw, 4) else None
    from_where = there if source is None else sorted(world.images[f"{source}.0"].stored)
    mergeable = from_where or there or list(BITMAPS[:1])
    actions = [] if bitmap in there and not seldom(draw, 8) else [OfflineAction(kind="add")]
    if source is not None:
        actions.append(OfflineAction(kind="merge", source=pick(draw, mergeable)))
    for _ in range(pick(draw, (1, 2, 3)) if there or seldom(draw, 2) else 0):
        kind = pick(draw, OFFLINE)
        merged = pick(draw, mergeable) if kind == "merge" else None
        actions.append(OfflineAction(kind=kind, source=merged))
    actions = actions or [OfflineAction(kind="add")]
    adds = any(action.kind == "add" for action in actions)
    merges = any(action.kind == "merge" for action in actions)
    return ChangeBitmap(
        node=name,
        name=bitmap,
        actions=tuple(actions),
        format=image.format,
        granularity=pick(draw, (None, *granularities(image.size))) if adds else None,
        source=source if merges else None,
    )


def copied(draw: st.DrawFn, world: World, name: str) -> tuple[Operation, ...]:
    """``qemu-img`` copies a disk that is closed: into its backing file, or into a new image."""
    image, others = world.images[f"{name}.0"], [each for each in world.closed if each != name]
    if others and seldom(draw, 4):
        return (CompareImages(node=name, other=pick(draw, others)),)
    if image.backing is not None and image.size <= SMALL and not seldom(draw, 4):
        return (CommitImage(node=name, format=image.format, keep=seldom(draw, 4)),)
    empty = empty_slots(world)
    if not empty or image.size > SMALL:
        return ()
    into = NODES[empty[0]]
    bitmaps = bool(image.stored) or seldom(draw, 4)
    converted = ConvertImage(
        node=name,
        into=into,
        format=image.format,
        cluster_size=pick(draw, (65536, 4096, 512, 1 << 21)),
        bitmaps=bitmaps,
        skip_broken=bitmaps and seldom(draw, 2),
    )
    return (converted, CompareImages(node=name, other=into), OpenDisk(node=into))


def again(draw: st.DrawFn, draft: Draft, name: str) -> None:
    """A disk is closed, and opened for writing; or it is made writable."""
    world = draft.world
    node = world.nodes[name]
    if node.read_only and seldom(draw, 2):
        image = world.images[node.image]
        draft.add(ReopenDisk(node=name, format=image.format, read_only=False))
    else:
        draft.add(CloseDisk(node=node.drive or name))
    if name in world.closed:
        draft.add(open_disk(draw, world, name, read_only=False))


def _use(draw: st.DrawFn, world: World) -> Iterator[Operation]:
    """A bitmap is used; mostly one that is read-only or inconsistent, where there is one."""
    special = [
        (node, name)
        for node in sited(world)
        for name, bitmap in sorted(world.nodes[node].bitmaps.items())
        if bitmap.read_only or bitmap.inconsistent
    ]
    if not special or seldom(draw, 4):
        yield pick(draw, (bitmap_command, merge))(draw, world)
        return
    node, name = pick(draw, special)
    kind = pick(draw, (*BY_NAME, None, None))
    if kind is not None:
        yield kind(node=named(draw, world, node), name=name)
        return
    taken = world.nodes[node].bitmaps
    target = pick(draw, (*(each for each in BITMAPS if each not in taken), name))
    if target not in taken:
        yield BitmapAdd(node=node, name=target)
    yield BitmapMerge(node=node, target=target, sources=(MergeSource(name=name),))


def _restart(draw: st.DrawFn, draft: Draft) -> None:
    """QEMU ends; a kill is mostly preceded by what it must not lose, and what it must.

    What guests have written is flushed, and disks whose bitmaps are not on disk yet are closed
    and opened.
    """
    how = pick(draw, HOW)
    if how == "kill":
        world = draft.world
        for name in present(world):
            fresh = [b for b in world.nodes[name].bitmaps.values() if b.persistent]
            if fresh and not world.images[f"{name}.0"].stored and not seldom(draw, 3):
                offset, length = byte_range(draw, world, world.nodes[name])
                draft.add(Write(node=name, offset=offset, length=length, **data(draw)))
                again(draw, draft, name)
        stored = [
            (name, bitmap)
            for name in present(world)
            for bitmap in sorted(world.images[f"{name}.0"].stored)
        ]
        if stored and seldom(draw, 3):
            name, bitmap = pick(draw, stored)
            draft.add(BitmapRemove(node=name, name=bitmap))
        draft.add(*(Flush(node=name) for name in present(world) if world.nodes[name].unflushed))
    draft.add(Restart(how=how, qemu=_next_qemu(draw, draft.world)))


def _next_qemu(draw: st.DrawFn, world: World) -> int:
    """The number of the QEMU that comes next; mostly another one, where there are several."""
    count = len(world.qemus)
    another = world.engines[0].qemu + (0 if seldom(draw, 8) else 1 + below(draw, count - 1))
    return another % count


def _may_migrate(world: World) -> bool:
    """Whether what a migration leads to is known, once jobs and exports have ended."""
    return world.traits.migrate and not (world.held or world.faults or world.torn)


def _migrate(draw: st.DrawFn, draft: Draft) -> None:
    """All disks go to a new QEMU, mostly with their bitmaps; exports mostly end before."""
    world = draft.world
    if not seldom(draw, 3):
        draft.add(*(ExportDel(export=export, mode="hard") for export in sorted(world.exports)))
    stuck = _stuck(world)
    mapped = world.engines[0].mapped or seldom(draw, 3) or bool(stuck and seldom(draw, 2))
    bitmaps = not seldom(draw, 6)
    if bitmaps and seldom(draw, 6):
        draft.add(BitmapAdd(node=pick(draw, present(world)), name=BITMAPS[-1]))
    mapping = _mapping(draw, world, stuck) if bitmaps and mapped else None
    disks, all_drives = [], seldom(draw, 3)
    for name in present(world):
        node = world.nodes[name]
        disk = opening(Opening, draw, world, name, read_only=node.read_only)
        as_drive = all_drives or (mapping is None and node.drive is not None) or seldom(draw, 20)
        drive = DRIVES[NODES.index(name)] if as_drive else None
        disks.append(replace(disk, drive=drive))
    draft.add(
        Migrate(disks=tuple(disks), bitmaps=bitmaps, mapping=mapping, qemu=_next_qemu(draw, world))
    )


def _stuck(world: World) -> frozenset[str]:
    """The disks with bitmaps that cannot go along."""
    bitmaps = world.named_bitmaps().items()
    return frozenset(
        node for (node, _), each in bitmaps if world.rules.obstacle(each, "change") is not None
    )


def _mapping(draw: st.DrawFn, world: World, stuck: frozenset[str]) -> tuple[Renaming, ...]:
    """Bitmaps that go along, under other names or their own; seldom of a disk that is stuck."""
    mapping = []
    for name in present(world):
        if name in stuck and not seldom(draw, 3):
            continue
        bitmaps = sorted(world.nodes[name].bitmaps)
        goes = [bitmap for bitmap in bitmaps if not seldom(draw, 6)]
        free = [name for name in BITMAPS if name in goes or name not in bitmaps]
        for bitmap in goes:
            to = bitmap if bitmap in free and not seldom(draw, 2) else pick(draw, free)
            free.remove(to)
            mapping.append(Renaming(node=name, name=bitmap, to=to))
    return tuple(mapping)


def once_more(world: World) -> Iterator[Operation]:
    """At the end of an example: disks with persistent bitmaps are closed and opened again."""
    for name in present(world):
        node = world.nodes[name]
        if any(bitmap.persistent for bitmap in node.bitmaps.values()):
            yield CloseDisk(node=node.drive or name)
            yield OpenDisk(node=name, format=world.images[node.image].format, read_only=True)
