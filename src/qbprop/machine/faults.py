"""Injected errors: on which disks and targets, and what runs into them."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from qbprop.machine import guest
from qbprop.machine.backups import create_image
from qbprop.machine.bitmaps import bitmap_add, bitmap_command, merge
from qbprop.machine.draws import (
    JOB_CLUSTER,
    LENGTH_LIMIT,
    SECTOR,
    SMALL,
    Draft,
    below,
    byte_range,
    data,
    free_jobs,
    idle,
    named,
    pick,
    present,
    seldom,
)
from qbprop.machine.guest import read_around
from qbprop.machine.topology import FAULTY, add_disk, empty_slots, faults
from qbprop_model.operations import (
    BitmapClear,
    BitmapMode,
    BlockdevBackup,
    Discard,
    Fault,
    Flush,
    HoldWrite,
    JobCancel,
    JobResume,
    OnError,
    Operation,
    Read,
    ReleaseWrite,
    Write,
    WriteZeroes,
)
from qbprop_model.state import State
from qbprop_model.world import World

ACTIONS: tuple[OnError, ...] = ("stop", "ignore", "report", "enospc", "stop")


def runs_into(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """Requests of a guest that meet a fault of its disk, or end right before it."""
    name = pick(draw, [name for name in present(world) if world.faults.get(name)])
    found: list[Operation] = []
    for _ in range(pick(draw, (2, 3, 1, 5))):
        found += request(draw, world, name, pick(draw, world.faults[name]))
    return tuple(found)


def held_write(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A write held in flight, what others do meanwhile, and its release.

    The bitmaps of its disk are cleared, merged and so on; other requests go elsewhere. Where no
    disk can hold one, there is a new one.
    """
    draft = Draft(world)
    scratch = draft.world
    if not holding(scratch):
        draft.add(replace(add_disk(draw, scratch), faults=()))
    if not holding(scratch):
        return tuple(draft.operations)
    name = pick(draw, holding(scratch))
    node = scratch.nodes[name]
    offset, length = byte_range(draw, scratch, node)
    ref = named(draw, scratch, name)
    draft.add(HoldWrite(node=ref, offset=offset, length=length, **data(draw)))
    for _ in range(pick(draw, (2, 1, 3, 4))):
        bitmaps = sorted(scratch.nodes[name].bitmaps)
        kind = below(draw, 8)
        if kind < 3 and bitmaps:
            draft.add(BitmapClear(node=name, name=pick(draw, bitmaps)))
        elif kind < 5:
            draft.add(guest.request(draw, scratch))
        elif kind < 6:
            draft.add(merge(draw, scratch))
        elif kind < 7:
            draft.add(read_around(scratch, ref, offset, length))
        else:
            draft.add(bitmap_command(draw, scratch))
    return (*draft.operations, ReleaseWrite(node=ref), read_around(scratch, ref, offset, length))


def torn_write(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A write that fails midway, what is seen of it, and mostly the same write again."""
    draft = Draft(world)
    scratch = draft.world
    name = pick(draw, tearing(world))
    ref, image = named(draw, world, name), world.images[world.nodes[name].image]
    if name not in world.torn:
        passing = world.faults[world.nodes[name].image][0].after
        tables = image.size // image.table_size
        if 0 < passing <= tables and not seldom(draw, 4):
            before = min(pick(draw, (SECTOR, image.cluster_size, 3 * image.cluster_size, 1)), 65536)
            edge = (1 + below(draw, tables - passing + 1)) * image.table_size
            beyond = pick(draw, (image.cluster_size, SECTOR, 5 * image.cluster_size, 1))
            offset = edge - before
            length = before + (passing - 1) * image.table_size + beyond
        else:
            for _ in range(passing):
                cluster = below(draw, max(1, min(image.size, SMALL) // image.cluster_size))
                draft.add(Write(node=ref, offset=cluster * image.cluster_size, length=1, stamp=0))
            offset, length = byte_range(draw, world, world.nodes[name])
        length = min(length, image.size - offset)
        draft.add(Write(node=ref, offset=offset, length=length, **data(draw)))
    failed = scratch.torn.get(name)
    if failed is None:
        return tuple(draft.operations)
    draft.add(read_around(scratch, ref, failed.offset, failed.length))
    for _ in range(pick(draw, (1, 0, 2))):
        draft.add(bitmap_command(draw, scratch) if seldom(draw, 2) else merge(draw, scratch))
    if not seldom(draw, 8):
        again = Write(node=ref, offset=failed.offset, length=failed.length, **data(draw))
        draft.add(again, read_around(scratch, ref, failed.offset, failed.length))
    return tuple(draft.operations)


def tearing(world: State) -> list[str]:
    """The disks on which a write may fail midway, or has."""

    def fails(name: str) -> bool:
        faults = world.faults.get(world.nodes[name].image, ())
        return any(fault.request == "write_aio" for fault in faults)

    return [name for name in idle(world) if name in world.torn or fails(name)]


def holding(world: State) -> list[str]:
    """The disks at which a write can be held."""
    if world.traits.graph_waits:
        return []
    taken = {*world.backed_up, *world.held}
    return [name for name in present(world) if name in world.faults and name not in taken]


def can_hold(world: World) -> bool:
    """Whether there is a disk at which a write can be held, or may be one beside a job."""
    able = world.traits.human_monitor_command and not world.traits.graph_waits
    beside = bool(world.backed_up) and bool(empty_slots(world))
    return able and (beside or bool(holding(world)))


def request(draw: st.DrawFn, world: World, name: str, fault: Fault) -> tuple[Operation, ...]:
    """A request near the fault's byte, mostly of its kind; not every one holds it."""
    node, ref = world.nodes[name], named(draw, world, name)
    start = max(0, fault.offset - pick(draw, (0, SECTOR, JOB_CLUSTER, -1, -100, LENGTH_LIMIT // 2)))
    end = fault.offset + pick(draw, (1, SECTOR, JOB_CLUSTER, JOB_CLUSTER, 0))
    start, end = min(start, world.size(node)), min(end, world.size(node))
    place: dict[str, Any] = {"node": ref, "offset": start, "length": max(0, end - start)}
    write = Write(**place | data(draw))
    match pick(draw, FAULTY) if seldom(draw, 4) else fault.request:
        case "read":
            return (write, Read(**place)) if seldom(draw, 3) else (Read(**place),)
        case "write":
            return (write, Read(**place)) if seldom(draw, 3) else (write,)
        case "write_zeroes":
            zeroes = WriteZeroes(**place, unmap=seldom(draw, 2))
            return (zeroes,) if seldom(draw, 2) else (write, zeroes, Read(**place))
        case "discard":
            return (Discard(**place),)
        case "block_status":
            return (WriteZeroes(**place), Read(**place))
        case _:
            flush = Flush(node=ref)
            return (flush, write, flush) if seldom(draw, 2) else (write, flush)


def struck(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A backup with a bitmap that meets errors of its disk or its target, and what follows.

    That is a resumption or the end where it has stopped, and the next backup.
    """
    draft = Draft(world)
    scratch = draft.world
    spare = idle(world)
    failing = [name for name in spare if scratch.unreadable(name)]
    if not failing and empty_slots(world) and seldom(draw, 2):
        disk = add_disk(draw, world)
        size = disk.layers[0].size
        draft.add(replace(disk, faults=faults(draw, size, ("read",)), drive=None))
        spare = failing = [disk.node] if disk.node in scratch.nodes else []
    name = pick(draw, failing or spare or present(world))
    node, size = scratch.nodes[name], scratch.size(scratch.nodes[name])
    draft.add(create_image(draw, scratch, size))
    target = draft.operations[-1].image  # type: ignore[attr-defined]
    if not node.bitmaps:
        draft.add(bitmap_add(draw, scratch, name))
    below_target: tuple[Fault, ...] = ()
    if not failing or seldom(draw, 3):
        below_target = faults(draw, size, ("write", "write", "write_zeroes"))
    reads = [each for each in scratch.faults.get(name, ()) if each.request == "read"]
    for fault in (*reads, *below_target):
        start = max(0, fault.offset // JOB_CLUSTER - below(draw, 2)) * JOB_CLUSTER
        length = min(pick(draw, (JOB_CLUSTER, 3 * JOB_CLUSTER, SECTOR)), size - start)
        if length > 0 and seldom(draw, 4):
            draft.add(WriteZeroes(node=name, offset=start, length=length, unmap=True))
        elif length > 0:
            draft.add(Write(node=name, offset=start, length=length, **data(draw)))
    bitmaps = sorted(scratch.nodes[name].bitmaps)
    image = scratch.images.get(target)
    ids = free_jobs(scratch)
    if not bitmaps or image is None or not ids:
        return tuple(draft.operations)
    modes: tuple[BitmapMode, ...] = ("on-success", "always", "never")
    scans = scratch.blind(name) is not None and seldom(draw, 2)
    backup = BlockdevBackup(
        node=name,
        target=target,
        job=ids[0],
        sync="top" if scans else "bitmap",
        bitmap=pick(draw, bitmaps),
        bitmap_mode=pick(draw, modes[:2] if scans else modes),
        max_workers=1,
        max_chunk=scratch.rules.job_cluster(image),
        speed=1 if seldom(draw, 4) else 0,
        auto_dismiss=not seldom(draw, 4),
        on_source_error=pick(draw, ACTIONS),
        on_target_error=pick(draw, ACTIONS),
        faults=below_target,
    )
    draft.add(backup)
    for _ in range(pick(draw, (1, 2, 3))):
        job = scratch.jobs.get(ids[0])
        if job is None:
            break
        if job.faulty:
            cls = pick(draw, (JobResume, JobResume, JobCancel))
            draft.add(cls(job=ids[0]))
        elif job.active and job.left:
            start = job.left[0][0]
            length = min(pick(draw, (SECTOR, JOB_CLUSTER)), size - start)
            draft.add(Write(node=name, offset=start, length=length, **data(draw)))
    again = replace(backup, sync="bitmap", speed=0, auto_dismiss=True, faults=())
    if ids[0] not in scratch.jobs:
        draft.add(again)
    return tuple(draft.operations)
