"""Backup jobs, started and run to their end (semantics 6)."""

from dataclasses import replace

from qbprop_model.effects.dispatch import effect
from qbprop_model.expectation import JobEnd, Reason
from qbprop_model.image import Alloc, Image, Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    TARGETS,
    Backup,
    BlockdevBackup,
    DriveBackup,
    InvalidOperationError,
    OpenOutcomeError,
)
from qbprop_model.state import Node, Outcome, State

COPY_LIMIT = 1 << 30
"""Most bytes that a backup may copy for the model to follow it cluster by cluster."""


@effect.register
def _(op: DriveBackup, world: State) -> Outcome:
    start_backup(op, world)
    return finish_jobs(world)


@effect.register
def _(op: BlockdevBackup, world: State) -> Outcome:
    open_target(op, world)
    start_backup(op, world)
    return finish_jobs(world)


def open_target(op: BlockdevBackup, world: State) -> None:
    """``blockdev-add`` of the target, before the backup's command is sent."""
    if op.target not in TARGETS:
        raise InvalidOperationError(f"there is no target {op.target}")
    if op.target not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    lock_target(op.target, world)
    world.opened |= {op.target}


def lock_target(target: str, world: State, *, anew: bool = False) -> None:
    """Opening an image locks it and its backing files; making it ``anew`` it alone (11).

    A raw node locks its file only as far as a job needs it, so that two writers of one raw
    file may meet; what they make of it is open.
    """
    writable = {node.image for node in world.nodes.values()} | world.opened
    writable |= {job.target for job in world.jobs.values()}
    chain = [target] if anew else world.chain_names(target)
    read = {name for image in writable for name in world.chain_names(image)[1:]}
    clashes = ({target} & (read | writable)) | writable.intersection(chain[1:])
    if any(world.images[name].format == "raw" for name in clashes):
        raise OpenOutcomeError("two users of one raw file")
    if clashes:
        raise Refused(Reason.IMAGE_LOCKED)


def start_backup(op: Backup, world: State) -> None:
    """Start a job, or refuse in the order in which QEMU looks (semantics 6.1)."""
    rules = world.rules
    name, node = world.resolve(op.node, Reason.DEVICE_NOT_FOUND)
    sync = op.sync
    if isinstance(op, DriveBackup):
        if node.filters is not None:
            raise Refused(Reason.NODE_BUSY, op.node)
        if sync == "top" and world.images[node.image].backing is None:
            sync = "full"
        prepare_file(op, node, world)
    found = node.bitmaps.get(op.bitmap) if op.bitmap is not None else None
    rules.check_modes(replace(op, sync=sync), found)
    target = world.images[op.target]
    if op.compress and target.format == "raw":
        raise Refused(Reason.COMPRESS_UNSUPPORTED)
    if node.filters is not None:
        raise Refused(Reason.NODE_BUSY, op.node)
    if any(job.target == op.target for job in world.jobs.values()):
        raise Refused(Reason.NODE_BUSY, op.target)
    if target.size != world.size(node):
        raise Refused(Reason.BACKUP_SIZES_DIFFER)
    if sync == "none":
        raise InvalidOperationError("a backup with sync none does not end by itself")
    job_id = choose_id(op, name, world)
    source = world.chain(node.image)
    cluster = rules.job_cluster(target)
    copy = rules.copy_set(sync, cluster, source, found)
    if sum(end - start for start, end in copy) > COPY_LIMIT:
        raise InvalidOperationError(f"a backup of more than {COPY_LIMIT} bytes is not followed")
    world.jobs[job_id] = Job(
        node=name,
        target=op.target,
        cluster=cluster,
        copy=copy,
        source=source,
        point_in_time=rules.view(source),
        bitmap=op.bitmap,
        bitmap_mode=op.bitmap_mode or "on-success",
        compress=op.compress,
        detects_zeroes=isinstance(op, DriveBackup),
    )
    if found is not None and op.bitmap is not None:
        world.put_bitmap(name, op.bitmap, rules.freeze(found))
    if node.drive is not None and world.roots[node.drive] == name:
        world.nodes[f"{name} filter"] = Node(node.image, node.drive, filters=name)
        world.roots[node.drive] = f"{name} filter"


def prepare_file(op: DriveBackup, node: Node, world: State) -> None:
    """``drive-backup`` creates or opens its target before it looks at anything else (6.1)."""
    if op.target not in TARGETS:
        raise InvalidOperationError(f"there is no target {op.target}")
    if op.mode == "absolute-paths":
        if op.target in world.images:
            lock_target(op.target, world, anew=True)
        if op.sync == "none":
            raise InvalidOperationError("the target would be backed by the disk itself")
        source = world.images[node.image]
        backing = source.backing if op.sync == "top" else None
        world.put_image(op.target, world.rules.create(
            format=op.format, size=source.size, backing=backing
        ))  # fmt: skip
    image = world.images.get(op.target)
    if image is None:
        raise Refused(Reason.NO_SUCH_FILE)
    if op.format == "raw" and image.format != "raw":
        raise InvalidOperationError("a qcow2 file read as raw has no stated size")
    lock_target(op.target, world)
    if op.format != image.format:
        raise Refused(Reason.WRONG_FORMAT)
    if op.sync == "none" and image.format == "raw":
        raise Refused(Reason.BACKING_UNSUPPORTED)


def choose_id(op: Backup, node: str, world: State) -> str:
    """The job's id; by default the name of the drive that the node is the root of (6.1)."""
    job_id = op.job
    if job_id is None:
        drive = world.nodes[node].drive
        if drive is None or world.roots[drive] != node:
            raise Refused(Reason.JOB_ID_INVALID)
        job_id = drive
    if job_id in world.jobs:
        raise Refused(Reason.JOB_ID_TAKEN, job_id)
    return job_id


def finish_jobs(world: State, *, grouped: bool = False) -> Outcome:
    """Every job runs to its end; none is held, so guests see only the end (6.3)."""
    ends = {job_id: finish(job, world) for job_id, job in world.jobs.items()}
    if grouped and len(ends) > 1 and any(end.error is not None for end in ends.values()):
        raise OpenOutcomeError("what the other jobs of a failed group have copied by then")
    contents = tuple(job.target for job in world.jobs.values())
    world.jobs = {}
    world.opened = frozenset()
    for name in [name for name, node in world.nodes.items() if node.filters is not None]:
        node = world.nodes.pop(name)
        if node.drive is not None and node.filters is not None:
            world.roots[node.drive] = node.filters
    return Outcome(jobs=ends, contents=contents)


def finish(job: Job, world: State) -> JobEnd:
    """One job's end: its target, its bitmap, its progress."""
    length = sum(end - start for start, end in job.copy)
    end = JobEnd(length=length, offset=length)
    try:
        world.images[job.target] = world.rules.transfer(job, world.chain(job.target))
        if length >= job.point_in_time.size:
            world.vague -= {job.target}
    except Refused as refused:
        if job.bitmap is not None and job.bitmap_mode == "always":
            raise OpenOutcomeError("what a failing job has copied by then") from None
        world.images[job.target] = blur(world.images[job.target])
        world.vague |= {job.target}
        end = JobEnd(length=None, offset=None, error=refused.refusal.reason)
    if job.bitmap is not None:
        bitmap = world.nodes[job.node].bitmaps[job.bitmap]
        thawed = world.rules.thaw(bitmap, job.bitmap_mode, failed=end.error is not None)
        world.put_bitmap(job.node, job.bitmap, thawed)
    return end


def blur(image: Image) -> Image:
    """Of a target whose job failed each cluster is old or new."""
    capacity = image.alloc.size
    return replace(image, alloc=image.alloc.assign(0, capacity, Alloc.DATA_OR_ZERO))
