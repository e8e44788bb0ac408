"""Backups: what a start needs, and what it is refused for (semantics 6.1)."""

from dataclasses import replace

from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.jobs import start_jobs
from qbprop_model.expectation import Reason
from qbprop_model.image import Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    BELOW,
    FILTERS,
    TARGETS,
    Backup,
    BlockdevBackup,
    DriveBackup,
    InvalidOperationError,
    OpenOutcomeError,
)
from qbprop_model.ranges import total
from qbprop_model.state import Node, Outcome, State

COPY_LIMIT = 1 << 30
"""Most bytes that a job may copy for the model to follow it cluster by cluster."""


@effect.register
def _(op: DriveBackup, world: State) -> Outcome:
    start_jobs(world, [start_backup(op, world)])
    return Outcome()


@effect.register
def _(op: BlockdevBackup, world: State) -> Outcome:
    open_target(op, world)
    start_jobs(world, [start_backup(op, world)])
    return Outcome()


def open_target(op: BlockdevBackup, world: State) -> None:
    """``blockdev-add`` of the target, before the backup's command is sent."""
    if op.target not in TARGETS:
        raise InvalidOperationError(f"there is no target {op.target}")
    if op.target not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    if op.target in world.opened:
        raise Refused(Reason.NODE_NAME_TAKEN, op.target)
    lock_target(op.target, world)
    world.opened |= {op.target}
    if any(fault.request in BELOW for fault in op.faults):
        raise InvalidOperationError("the filter of a target is above its format")
    if op.faults:
        world.faults[op.target] = op.faults


def lock_target(target: str, world: State, *, alone: bool = False) -> None:
    """Opening an image locks it and its backing files (11).

    It ``alone``, when it is made anew, or when the disk is to stand below it in place of its
    own backing file (6.1, sync none).
    A raw node locks its file only as far as a job needs it, so that two writers of one raw
    file may meet; what they make of it is open.
    """
    writable = {node.image for node in world.nodes.values() if not node.read_only} | world.opened
    jobs = [job for job in world.jobs.values() if job.active]
    writable |= {job.target for job in jobs}
    over_disks = {job.target for job in jobs if job.backs_target}
    chain = [target] if alone else world.chain_names(target)
    read = {name for image in writable - over_disks for name in world.chain_names(image)[1:]}
    clashes = ({target} & (read | writable)) | writable.intersection(chain[1:])
    if any(world.images[name].format == "raw" for name in clashes):
        raise OpenOutcomeError("two users of one raw file")
    if clashes:
        raise Refused(Reason.IMAGE_LOCKED)


def check_tuning(op: Backup, world: State) -> None:
    """Let pass what can be said to this QEMU.

    :raises InvalidOperationError: it cannot be told how the job shall copy.
    """
    if op.tuned and not world.traits.blockdev_backup_x_perf:
        raise InvalidOperationError("this QEMU knows no x-perf")


def start_backup(op: Backup, world: State) -> str:
    """Make a job, or refuse in the order in which QEMU looks (semantics 6.1); its id."""
    rules = world.rules
    check_tuning(op, world)
    name, node = world.resolve(op.node, Reason.DEVICE_NOT_FOUND)
    sync = op.sync
    if isinstance(op, DriveBackup):
        if node.filters is not None:
            raise Refused(Reason.NODE_BUSY, node.drive or name)
        if sync == "top" and world.below(node.image) is None:
            sync = "full"
        prepare_file(op, node, world)
    found = node.bitmaps.get(op.bitmap) if op.bitmap is not None else None
    rules.check_modes(replace(op, sync=sync), found)
    target = world.images[op.target]
    if op.compress and target.format == "raw":
        raise Refused(Reason.COMPRESS_UNSUPPORTED)
    if op.compress and op.target in world.faults:
        raise InvalidOperationError("nothing is compressed through a filter")
    if node.filters is not None:
        raise Refused(Reason.NODE_BUSY, node.drive or name)
    if any(job.target == op.target for job in world.jobs.values() if job.active):
        raise Refused(Reason.NODE_BUSY, op.target)
    if op.max_workers == 0:
        raise Refused(Reason.WORKERS_OUT_OF_RANGE)
    if found is not None and op.bitmap is not None and op.bitmap_mode != "never":
        world.check_use(op.bitmap, found, "change")
    if target.size != world.size(node):
        raise Refused(Reason.BACKUP_SIZES_DIFFER)
    cluster = rules.job_cluster(target)
    if op.filter is not None:
        check_filter(op.filter, world)
    if op.max_chunk and op.max_chunk < cluster:
        raise Refused(Reason.CHUNK_TOO_SMALL, str(cluster))
    check_chain(world, name)
    try:
        job_id = choose_id(op, name, world)
    except Refused:
        if world.traits.filter_end_flushes and name in world.faults:
            raise OpenOutcomeError("what a filter flushes whose job is refused") from None
        raise
    serial = not world.traits.blockdev_backup_x_perf or (
        op.max_workers == 1 and op.max_chunk is not None and op.max_chunk // cluster == 1
    )
    if op.speed and not world.traits.blockdev_backup_x_perf:
        raise OpenOutcomeError("what wakes a limited job")
    if op.speed > 1 or (op.speed and not serial):
        raise OpenOutcomeError("how far the job gets at that speed")
    if world.vague.intersection(world.chain_names(node.image)):
        raise OpenOutcomeError("a backup of bytes that are open")
    source = world.chain(node.image)
    blind = world.blind(name)
    copied = rules.copy_set(sync, cluster, source, found, blind=blind is not None)
    if sync != "none" and total(copied) > COPY_LIMIT:
        raise InvalidOperationError(f"a backup of more than {COPY_LIMIT} bytes is not followed")
    filter_name = op.filter or f"#filter of {job_id}"
    world.jobs[job_id] = Job(
        node=name,
        target=op.target,
        cluster=cluster,
        copy=copied,
        source=source,
        point_in_time=rules.view(source),
        bitmap=op.bitmap,
        bitmap_mode=op.bitmap_mode or "on-success",
        compress=op.compress,
        detects_zeroes=isinstance(op, DriveBackup),
        filter=filter_name,
        offloads=(
            not (world.traits.blockdev_backup_x_perf or op.compress)
            and world.faults.keys().isdisjoint({name, op.target})
        ),
        endless=sync == "none",
        on_node=isinstance(op, BlockdevBackup),
        speed=op.speed,
        serial=serial,
        auto_finalize=op.auto_finalize,
        auto_dismiss=op.auto_dismiss,
        on_source_error=op.on_source_error,
        on_target_error=op.on_target_error,
        scans=sync == "top",
        blind=blind,
        left=copied,
    )
    if found is not None and op.bitmap is not None:
        world.put_bitmap(name, op.bitmap, rules.freeze(found))
    world.put_filter(filter_name, name)
    return job_id


def check_chain(world: State, name: str) -> None:
    """A disk to be backed up must stand on top, and nobody write to what is below it."""
    if world.overlays(name):
        raise InvalidOperationError("a backup of what is below another disk")
    if not world.settled_below(name):
        raise OpenOutcomeError("what was there when a backup of a changing disk began")


def check_filter(name: str, world: State) -> None:
    """The filter's name must be one of its slots, and free."""
    if name not in FILTERS:
        raise InvalidOperationError(f"there is no filter {name}")
    if name in world.nodes:
        raise Refused(Reason.NODE_NAME_TAKEN, name)


def prepare_file(op: DriveBackup, node: Node, world: State) -> None:
    """``drive-backup`` creates or opens its target before it looks at anything else (6.1)."""
    if op.target not in TARGETS:
        raise InvalidOperationError(f"there is no target {op.target}")
    if op.mode == "absolute-paths":
        source = world.images[node.image]
        backing = world.below(node.image) if op.sync == "top" else None
        if backing in world.mounted:
            raise InvalidOperationError("a backing file that has no name of its own")
        if op.format == "raw" and (op.sync == "none" or backing is not None):
            raise Refused(Reason.BACKING_UNSUPPORTED)
        if op.target in world.images:
            lock_target(op.target, world, alone=True)
        if op.sync == "none":
            raise InvalidOperationError("the target would be backed by the disk itself")
        world.put_image(op.target, world.rules.create(
            format=op.format, size=source.size, backing=backing
        ))  # fmt: skip
    image = world.images.get(op.target)
    if image is None:
        raise Refused(Reason.NO_SUCH_FILE)
    if op.format == "raw" and image.format != "raw":
        raise InvalidOperationError("a qcow2 file read as raw has no stated size")
    lock_target(op.target, world, alone=op.sync == "none")
    if op.format != image.format:
        raise Refused(Reason.WRONG_FORMAT)
    if op.sync == "none" and image.format == "raw":
        if world.traits.raw_takes_backing:
            raise OpenOutcomeError("a raw image over a backing file")
        raise Refused(Reason.BACKING_UNSUPPORTED)


def choose_id(op: Backup, node: str, world: State) -> str:
    """The job's id; by default the name of the drive that the node is the root of (6.1)."""
    job_id = op.job
    if job_id is None:
        drive = world.nodes[node].drive
        if drive is None or world.roots[drive] != node:
            raise Refused(Reason.JOB_ID_INVALID)
        job_id = drive
    if job_id in world.job_ids:
        raise Refused(Reason.JOB_ID_TAKEN, job_id)
    return job_id
