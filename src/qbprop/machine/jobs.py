"""Jobs in flight: started so that they stay, commanded, and brought to their end."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from qbprop.machine.backups import backup, create_image, target
from qbprop.machine.bitmaps import bitmap_command, merge
from qbprop.machine.draws import (
    JOB_CLUSTER,
    LENGTH_LIMIT,
    SECTOR,
    SMALL,
    Draft,
    below,
    data,
    free_filters,
    free_jobs,
    named,
    pick,
    present,
    seldom,
)
from qbprop.machine.exports import one_step
from qbprop.machine.faults import struck
from qbprop.machine.guest import few, request
from qbprop.machine.opening import openings
from qbprop.machine.refusals import refused_chain, refused_snapshot
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    BITMAPS,
    FILTERS,
    JOBS,
    Backup,
    BitmapAdd,
    BlockdevBackup,
    Discard,
    DriveBackup,
    InvalidOperationError,
    JobCancel,
    JobCommand,
    JobComplete,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    OnError,
    Operation,
    Read,
    ReleaseWrite,
    Resize,
    Write,
    WriteZeroes,
)
from qbprop_model.state import State
from qbprop_model.world import World

VERBS: tuple[type[JobCommand], ...] = (
    JobPause,
    JobCancel,
    JobSetSpeed,
    JobResume,
    JobFinalize,
    JobDismiss,
    JobComplete,
)
ACTIONS: tuple[OnError, ...] = ("stop", "report", "stop", "enospc")
GOOD: dict[str, tuple[type[JobCommand], ...]] = {
    "running": (JobPause, JobSetSpeed, JobCancel, *[JobPause] * 3),
    "paused": (JobResume, JobSetSpeed, JobCancel, *[JobResume] * 4),
    "waiting": (JobCancel,),
    "pending": (JobFinalize, JobFinalize, JobCancel),
    "concluded": (JobDismiss,),
}
"""By status, the commands that a job takes."""


def active(world: State) -> list[str]:
    """The jobs that still have their disk and target."""
    return [job_id for job_id, job in world.jobs.items() if job.active]


def one_by_one(world: State, cluster: int) -> dict[str, Any]:
    """What makes a backup copy one job cluster (bytes) after the other."""
    if not world.traits.blockdev_backup_x_perf:
        return {}
    return {"max_workers": 1, "max_chunk": cluster}


def held(draw: st.DrawFn, world: State, chosen: Backup, beside: Collection[Backup] = ()) -> Backup:
    """A backup that stays in flight, in one of the ways that are deterministic (6.7)."""
    kind = pick(draw, ("limited", "limited", "pending", "endless", "limited", "failing"))
    names = free_filters(world)
    others = {each.job for each in beside}
    ids = [job_id for job_id in free_jobs(world) if job_id not in others]
    chosen = replace(
        chosen,
        job=ids[0] if ids else JOBS[0],
        filter=names[0] if names and not seldom(draw, 4) else None,
        auto_dismiss=not seldom(draw, 3),
        auto_finalize=kind != "pending" and not seldom(draw, 4),
    )
    image = world.images.get(chosen.target)
    if isinstance(chosen, DriveBackup) and chosen.mode == "absolute-paths":
        image = None
    cluster = JOB_CLUSTER if image is None else world.rules.job_cluster(image)
    serial = one_by_one(world, cluster)
    if kind == "pending":
        return chosen
    if kind == "failing" and image is not None and image.format == "qcow2":
        action = pick(draw, ACTIONS)
        return replace(chosen, compress=True, on_target_error=action, **serial)
    if kind == "endless" and chosen.target in world.images:
        if isinstance(chosen, DriveBackup):
            chosen = replace(chosen, mode="existing")
        return replace(chosen, sync="none", bitmap=None, bitmap_mode=None)
    if chosen.sync == "bitmap" and seldom(draw, 2):
        chosen = replace(chosen, bitmap_mode="always")
    return replace(chosen, speed=1, **serial)


def start(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A job that stays, behind writes that give it something to copy; then guests go on."""
    draft = Draft(world)
    scratch = draft.world
    draft.add(*few(draw, scratch))
    chosen = backup(draw, scratch)
    for _ in range(4):
        if scratch.roots.get(chosen.node, chosen.node) not in world.backed_up:
            break
        chosen = backup(draw, scratch)
    node = scratch.find(chosen.node)
    if node is not None and not seldom(draw, 4):
        size = scratch.size(node)
        for _ in range(2):
            clusters = max(1, -(-size // JOB_CLUSTER))
            offset = pick(draw, (below(draw, clusters), clusters - 1, 0)) * JOB_CLUSTER
            length = min(pick(draw, (SECTOR, JOB_CLUSTER + SECTOR)), size - offset)
            draft.add(Write(node=chosen.node, offset=offset, length=length, **data(draw)))
    draft.add(held(draw, scratch, chosen))
    beside = during(draw, scratch) if active(scratch) else ()
    return (*draft.operations, *beside)


def failing(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A job whose target holds a compressed cluster already, so that it fails there or stops."""
    name = pick(draw, present(world))
    size = world.size(world.nodes[name])
    create = create_image(draw, world, size)
    if create.layer.format == "raw" or size > SMALL:
        return start(draw, world)
    place = below(draw, max(1, -(-size // JOB_CLUSTER))) * JOB_CLUSTER
    length = min(JOB_CLUSTER, size - place)
    write = Write(node=name, offset=place, length=length, stamp=2 * below(draw, 8))
    common: dict[str, Any] = {"node": name, "target": create.image, "compress": True}
    first = BlockdevBackup(sync="full", **common)
    cluster = max(JOB_CLUSTER, create.layer.cluster_size)
    second = BlockdevBackup(
        sync="full",
        **one_by_one(world, cluster),
        on_target_error=pick(draw, ACTIONS),
        auto_dismiss=not seldom(draw, 3),
        **common,
    )
    draft = Draft(world)
    draft.add(create, write, first, write, second)
    if active(draft.world):
        draft.add(*during(draw, draft.world))
    return (*draft.operations, *commands(draw, draft.world))


def start_any(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A job that stays in flight, in any way."""
    if any(map(world.unreadable, present(world))) and seldom(draw, 2):
        return struck(draw, world)
    kind = below(draw, 9)
    return start(draw, world) if kind < 4 else (failing, struck)[kind > 5](draw, world)


def during(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """What guests and others do while a job is in flight; the last may be commands."""
    found: list[Operation] = [_beside(draw, world) for _ in range(pick(draw, (2, 1, 3, 5)))]
    if seldom(draw, 12):
        found += openings(draw, world)
    found += [command(draw, world) for _ in range(pick(draw, (0, 1, 2)))]
    return tuple(found)


def _beside(draw: st.DrawFn, world: World) -> Operation:
    job = world.jobs[pick(draw, active(world))]
    size = job.point_in_time.size
    if seldom(draw, 6) and job.on_node:
        offset = below(draw, size // SECTOR + 1) * SECTOR
        length = min(pick(draw, (JOB_CLUSTER, 1 << 20, SECTOR)), size - offset)
        return Read(node=job.target, offset=offset, length=length)
    kind = below(draw, 13)
    if kind == 11:
        return one_step(draw, world)
    if kind < 5:
        return _near(draw, world, job)
    if kind < 7:
        return request(draw, world)
    if kind < 9:
        return bitmap_command(draw, world) if kind == 7 else merge(draw, world)
    if kind == 9 and job.filter in FILTERS:
        return BitmapAdd(node=job.filter, name=pick(draw, BITMAPS[:3]), granularity=JOB_CLUSTER)
    if kind == 10:
        return target(draw, world)
    if seldom(draw, 4):
        return pick(draw, (refused_chain, refused_snapshot))(draw, world)
    grown = size + pick(draw, (SECTOR, 0, JOB_CLUSTER))
    return Resize(node=named(draw, world, job.node), size=grown)


def _near(draw: st.DrawFn, world: World, job: Job) -> Operation:
    """A request to the job's disk, by preference where the job has not been yet."""
    size, cluster = job.point_in_time.size, job.cluster
    ranges = job.left if not seldom(draw, 4) else job.copy
    start = 0
    if ranges:
        first, last = pick(draw, ranges[:8])
        if seldom(draw, 6):  # all of it, and perhaps the last of the job
            length = min(min(last, size) - first, LENGTH_LIMIT)
            return Write(node=job.node, offset=first, length=length, **data(draw))
        start = first + below(draw, (last - first) // cluster) * cluster
    offset = max(0, start + pick(draw, (0, 0, -SECTOR, SECTOR, cluster - SECTOR, 100)))
    offset = min(offset, size)
    lengths = (SECTOR, SECTOR, cluster, 1, 0, cluster + SECTOR, 3 * cluster, size)
    length = min(pick(draw, lengths), size - offset, LENGTH_LIMIT)
    node = named(draw, world, job.node)
    match pick(draw, ("write", "write", "zeroes", "discard", "read")):
        case "write":
            return Write(node=node, offset=offset, length=length, **data(draw))
        case "zeroes":
            return WriteZeroes(node=node, offset=offset, length=length, unmap=seldom(draw, 2))
        case "discard":
            return Discard(node=node, offset=offset, length=length)
        case _:
            return Read(node=node, offset=offset, length=length)


def command(draw: st.DrawFn, world: World, ids: Collection[str] = ()) -> JobCommand:
    """A command to a job, by default any; each state as often, however many jobs are in it."""
    if not ids and (not world.jobs or seldom(draw, 12)):
        return verb(draw, pick(draw, VERBS), pick(draw, JOBS))
    jobs = {job_id: world.jobs[job_id] for job_id in ids or sorted(world.jobs)}
    states = {job_id: (job.status, job.faulty) for job_id, job in jobs.items()}
    state = pick(draw, sorted(set(states.values())))
    job_id = pick(draw, [each for each, its in states.items() if its == state])
    good = GOOD[state[0]]
    refused = [cls for cls in VERBS if cls not in good]
    return verb(draw, pick(draw, refused if seldom(draw, 2) else good), job_id)


def verb(draw: st.DrawFn, cls: type[JobCommand], job_id: str) -> JobCommand:
    """A command of one kind, in one of its forms."""
    if cls is JobSetSpeed:
        return JobSetSpeed(job=job_id, speed=pick(draw, (0, 1)))
    block = seldom(draw, 2)
    if cls is JobCancel:
        return JobCancel(job=job_id, block=block, force=block and seldom(draw, 2))
    return cls(job=job_id, block=block)  # type: ignore[call-arg]


def commands(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A few commands; the later ones meet the jobs in the states that the first ones left."""
    draft = Draft(world)
    for _ in range(pick(draw, (3, 2, 5, 8))):
        draft.add(command(draw, draft.world))
    return tuple(draft.operations)


def endings(world: World, ids: Collection[str] = JOBS) -> Iterator[Operation]:
    """What brings held writes, mirrors and some jobs, by default all, to their end.

    That is the good one where there is one.

    Mode "always" shows what was left only where a job is cancelled.
    """
    scratch = world.copy()
    for node in tuple(scratch.held):
        scratch.apply(ReleaseWrite(node=node))
        yield ReleaseWrite(node=node)
    for job_id, mirror in tuple(scratch.mirrors.items()):
        paused = (JobResume(job=job_id),) if mirror.status == "standby" else ()
        for operation in (*paused, JobComplete(job=job_id)):
            try:
                scratch.apply(operation)
            except InvalidOperationError:  # what it copies when it goes on is open
                break
            yield operation
    while some := [job_id for job_id in scratch.jobs if job_id in ids]:
        job_id = min(some, key=lambda each: scratch.jobs[each].status == "waiting")
        job = scratch.jobs[job_id]
        before = _progress(scratch)
        for operation in (_ending(job_id, job), JobCancel(job=job_id), JobResume(job=job_id)):
            try:
                scratch.apply(operation)
            except InvalidOperationError:
                continue
            if _progress(scratch) != before:
                yield operation
                break
        else:
            return  # how it ends is open; then there is nothing to compare


def _progress(world: World) -> tuple[object, ...]:
    """What changes in a World whose jobs come nearer to their end."""
    jobs = [(job_id, job.status, job.left, job.speed) for job_id, job in world.jobs.items()]
    return jobs, world.faults.copy()


def _ending(job_id: str, job: Job) -> Operation:
    match job.status:
        case "concluded":
            return JobDismiss(job=job_id)
        case "pending":
            return JobFinalize(job=job_id)
        case "paused" if not job.faulty:
            return JobResume(job=job_id)
        case "running" if not job.endless and job.speed and job.bitmap_mode != "always":
            return JobSetSpeed(job=job_id)
        case _:
            return JobCancel(job=job_id)
