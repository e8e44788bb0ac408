"""Disks that are mirrored into others while guests go on (semantics 9)."""

from dataclasses import replace

from hypothesis import strategies as st

from qbprop.machine.bitmaps import bitmap_add, bitmap_command, merge
from qbprop.machine.draws import (
    LENGTH_LIMIT,
    Draft,
    below,
    free_filters,
    free_jobs,
    pick,
    plain,
    seldom,
)
from qbprop.machine.guest import looked_at
from qbprop.machine.topology import add_disk, empty_slots, layers
from qbprop_model.operations import (
    BlockdevMirror,
    CopyMode,
    JobCancel,
    JobComplete,
    JobPause,
    JobResume,
    MirrorSync,
    Operation,
    Read,
)

COPY_MODES: tuple[CopyMode, ...] = ("background", "background", "write-blocking")
SYNCS: tuple[tuple[MirrorSync, ...], ...] = (
    ("full", "none", "full", "top"),
    ("full", "top", "full", "none"),
)
"""For disks that stand alone, and for those over another image."""


def mirror(draw: st.DrawFn, draft: Draft) -> None:
    """A disk is mirrored, mostly one over another image; guests write to it meanwhile."""
    world = draft.world
    backed = [name for name in plain(world) if world.below(world.nodes[name].image) is not None]
    node = pick(draw, backed if backed and not seldom(draw, 3) else plain(world))
    into = _target(draw, draft, node)
    jobs, filters = free_jobs(world), free_filters(world)
    above = pick(draw, filters) if filters else None
    if into is None or above is None or not jobs:
        return
    job = jobs[0]
    for name in (node, into):
        if not world.nodes[name].bitmaps or seldom(draw, 3):
            draft.add(bitmap_add(draw, world, name))
        draft.add(*looked_at(draw, world, pick(draw, (1, 0, 2)), name))
    mode = pick(draw, COPY_MODES)
    sync = pick(draw, SYNCS[node in backed])
    draft.add(
        BlockdevMirror(job=job, node=node, target=into, filter=above, sync=sync, copy_mode=mode)
    )
    if job not in world.mirrors:
        return
    follow(draw, draft, job, above)
    size = world.size(world.nodes[into])
    draft.add(Read(node=into, offset=0, length=min(size, LENGTH_LIMIT)))
    draft.add(*looked_at(draw, world, pick(draw, (1, 0, 2)), pick(draw, (into, node))))


def _target(draw: st.DrawFn, draft: Draft, node: str) -> str | None:
    """A disk of the same size, mostly a new one."""
    world = draft.world
    size = world.size(world.nodes[node])
    found = [
        name
        for name in plain(world)
        if name != node
        and world.size(world.nodes[name]) == size
        and not world.nodes[name].read_only
        and world.below(world.nodes[name].image) is None
    ]
    if empty_slots(world) and (not found or seldom(draw, 2)):
        top = layers(draw, size)
        if top.compat == "0.10":
            top = replace(top, compat="1.1")
        disk = replace(add_disk(draw, world), layers=(top,), drive=None, faults=None)
        draft.add(disk)
        return disk.node if disk.node in world.nodes else None
    return pick(draw, found) if found else None


def follow(draw: st.DrawFn, draft: Draft, job: str, above: str) -> None:
    """What happens while a job is ready, above whose filter guests are, and how it ends."""
    for _ in range(pick(draw, (1, 2, 3))):
        _beside(draw, draft, job, above)
    draft.add(*_ending(draw, job))


def _beside(draw: st.DrawFn, draft: Draft, job: str, above: str) -> None:
    """Guests write to the disk, every third time while the mirror is paused; bitmaps change."""
    world = draft.world
    paused = seldom(draw, 3)
    if paused:
        draft.add(JobPause(job=job, block=seldom(draw, 2)))
    draft.add(*looked_at(draw, world, pick(draw, (2, 1, 3)), above))
    if seldom(draw, 3):
        draft.add(pick(draw, (bitmap_command, merge))(draw, world))
    if paused:
        draft.add(JobResume(job=job, block=seldom(draw, 2)))


def _ending(draw: st.DrawFn, job: str) -> tuple[Operation, ...]:
    """What ends a mirror; seldom nothing does."""
    match below(draw, 8):
        case 0 | 1 | 2 | 3:
            return (JobComplete(job=job, block=seldom(draw, 2)),)
        case 4 | 5:
            return (JobCancel(job=job, block=True),)
        case 6:
            block = seldom(draw, 2)
            return (JobCancel(job=job, block=block, force=block),)
        case _:
            return ()
