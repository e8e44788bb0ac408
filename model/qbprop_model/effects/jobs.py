"""Jobs in flight: how they go on, end, and answer to commands (semantics 6.3 to 6.7).

What a job's events tell is a sequence of words: each status it takes; ``PENDING``,
``COMPLETED``, ``COMPLETED!`` (with an error) and ``CANCELLED`` for the events of these names;
``ERROR read report`` (operation and action) for each BLOCK_JOB_ERROR, ``ERRORS …`` for one or
more; a word in brackets may be left out; :data:`~qbprop_model.expectation.NOISE`; and
:data:`~qbprop_model.expectation.FLOOD`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import singledispatch

from qbprop_model.effects.faults import Struck, check_cancelled, dangers, strike, strike_copy
from qbprop_model.expectation import FLOOD, NOISE, JobEnd, Reason
from qbprop_model.faults import REASONS
from qbprop_model.image import Alloc, Chain, Image, Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    JobCancel,
    JobCommand,
    JobComplete,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    OpenOutcomeError,
)
from qbprop_model.ranges import Ranges, minus, plus, total, within
from qbprop_model.state import Outcome, State


class NotStarted(Refused):
    """A job is not told what it should copy."""


# --- going on ------------------------------------------------------------------------------


def start_jobs(world: State, started: Iterable[str], *, grouped: bool = False) -> None:
    """The command that made some jobs has succeeded: each runs as far as it goes."""
    ids = tuple(started)
    for job_id in ids:
        world.tell(job_id, "created", "running", NOISE)
        if grouped and len(ids) > 1:
            world.jobs[job_id] = replace(world.jobs[job_id], group=ids)
    go_on(world, ids)


def go_on(world: State, ids: Sequence[str]) -> None:
    """Some jobs copy what they can, and end when nothing is left."""
    failed: dict[str, Refused] = {}
    nodes = {job_id: world.jobs[job_id].node for job_id in ids}
    menaced = [job_id for job_id in ids if is_menaced(world, world.jobs[job_id])]
    for job_id in ids:
        job = world.jobs[job_id]
        try:
            if job.blind and world.rules.fails_to_start(job):
                raise NotStarted(job.blind)
            copy(world, job_id, world.rules.copied_now(job))
        except Refused as refused:
            failed[job_id] = refused
            continue
        if world.rules.ends_by_itself(world.jobs[job_id]):
            wait_for_group(world, job_id)
    if any(len(failed.keys() & set(world.jobs[job_id].group)) > 1 for job_id in failed):
        raise OpenOutcomeError("which member of a group fails first")
    ended = failed.keys() | {each for each in ids if not runs(world, each)}
    for job_id, error in failed.items():
        twins = [each for each in menaced if each != job_id and nodes[each] == nodes[job_id]]
        if twins and isinstance(error, Struck) and not error.lasting:
            raise OpenOutcomeError("which of several backups of a disk meets its error")
        beside = [nodes[each] for each in ended if each != job_id]
        pauses = beside and (world.traits.graph_waits or nodes[job_id] in beside)
        if pauses and isinstance(error, Struck) and not error.lasting:
            raise OpenOutcomeError("whether a job tells its error, or is paused and tries again")
    for job_id, error in failed.items():
        if runs(world, job_id):
            meet_error(world, job_id, error)


def is_menaced(world: State, job: Job) -> bool:
    """Whether a fault would hit what a job copies now."""
    return any(dangers(world, job, world.rules.copied_now(job)))


def runs(world: State, job_id: str) -> bool:
    """Whether a job has not ended."""
    return job_id in world.jobs and world.jobs[job_id].active


def copy(world: State, job_id: str, ranges: Ranges, *, by_guest: bool = False) -> None:
    """Copy whole job clusters to the target; raises :class:`Refused` where that fails.

    What is copied ``by_guest``, before a write, travels at once, also of a job that is serial.
    """
    if not ranges:
        return
    pieces = job_clusters(world.jobs[job_id], ranges) if world.jobs[job_id].serial else [ranges]
    for piece in pieces:
        job = world.jobs[job_id]
        source = world.chain(world.nodes[job.node].image)
        reading, target = replace(job, source=source), target_chain(world, job)
        try:
            strike_copy(world, job, piece)
        except Struck:
            check_only_error(world, reading, target, piece)
            raise
        if by_guest:
            reading = replace(reading, serial=False, copy=ranges)
        world.images[job.target] = world.rules.transfer(reading, target, piece)
        left = job.left
        for start, end in piece:
            left = minus(left, start, end)
        limited = job.limited or world.rules.limits(job)
        world.jobs[job_id] = replace(job, left=left, limited=limited)


def check_only_error(world: State, job: Job, target: Chain, ranges: Ranges) -> None:
    """A fault has hit a job: what it copies at the same time must not fail at the target."""
    if job.serial or not job.compress:
        return
    try:
        world.rules.transfer(job, target, ranges)
    except Refused:
        raise OpenOutcomeError("which of two errors a job meets") from None


def job_clusters(job: Job, ranges: Ranges) -> list[Ranges]:
    """The job clusters of some ranges, one by one."""
    starts = (at for start, end in ranges for at in range(start, end, job.cluster))
    return [((at, at + job.cluster),) for at in starts]


def target_chain(world: State, job: Job) -> Chain:
    """The layers of the target as the job sees them."""
    if job.backs_target:
        return (world.images[job.target], *world.chain(world.nodes[job.node].image))
    return world.chain(job.target)


def copy_before(world: State, node: str, offset: int, length: int) -> None:
    """A guest is about to write to a disk: its jobs copy what they still need of that (6.2).

    Raises :class:`Refused` where that fails; the guest gets the error and the job does not.
    """
    for job_id, job in list(world.jobs.items()):
        if job.node != node or not job.active:
            continue
        start, end = world.rules.intercepted(job, offset, length)
        needed = within(job.left, start, end)
        try:
            copy(world, job_id, needed, by_guest=True)
        except Refused as refused:
            limited = job.limited or world.rules.limits(job)
            world.jobs[job_id] = replace(world.jobs[job_id], limited=limited)
            if total(needed) > job.cluster or len(world.filters(node)) > 1:
                raise OpenOutcomeError("what a failed copy before a write leaves") from None
            if isinstance(refused, Struck):
                raise
            spoil_target(world, job_id)
            raise Refused(Reason.COPY_BEFORE_FAILED) from refused
        met = plus(job.met, start, end)
        world.jobs[job_id] = replace(world.jobs[job_id], met=met)
    for job_id in [key for key, job in world.jobs.items() if world.rules.ends_by_itself(job)]:
        wait_for_group(world, job_id)


# --- ending --------------------------------------------------------------------------------


def members(job_id: str, job: Job) -> tuple[str, ...]:
    """The jobs that end together with this one, itself included."""
    return job.group or (job_id,)


def wait_for_group(world: State, job_id: str) -> None:
    """All is copied; with the last one of its group all become pending (6.6)."""
    job = set_status(world, job_id, "waiting")
    group = members(job_id, job)
    if any(world.jobs[each].status != "waiting" for each in group):
        return
    for each in group:
        set_status(world, each, "pending")
        if not world.jobs[each].auto_finalize:
            world.tell(each, "PENDING")
    if all(world.jobs[each].auto_finalize for each in group):
        finalize(world, group)


def finalize(world: State, group: Iterable[str]) -> None:
    """The jobs of a group have succeeded."""
    for job_id in group:
        job = world.jobs[job_id]
        world.ends[job_id] = JobEnd(job.length, job.length, speed=job.speed)
        world.tell(job_id, "COMPLETED")
        if job.length >= job.point_in_time.size:
            world.vague -= {job.target}
        conclude(world, job_id, failed=False)


def meet_error(world: State, job_id: str, error: Refused) -> None:
    """A request of the job has failed (table of semantics 6.5)."""
    job, reason = world.jobs[job_id], error.refusal.reason
    if isinstance(error, NotStarted):
        world.ends[job_id] = JobEnd(job.length, job.offset, error=reason, speed=job.speed)
        abort(world, job_id, reason)
        return
    side = error.side if isinstance(error, Struck) else "write"
    lasting = not isinstance(error, Struck) or error.lasting
    action = world.rules.error_action(job, side, reason)
    if job.speed:
        raise OpenOutcomeError("when a limited job notices its error")
    if action != "report" and not job.serial:
        raise OpenOutcomeError("how often the job tries, or what it has copied by then")
    if not isinstance(error, Struck) and (job.serial or action != "report"):
        spoil_target(world, job_id)
    if action == "report":
        fail(world, job_id, reason, side)
    elif action == "ignore":
        ignore(world, job_id, side, lasting=lasting)
    elif lasting and job.bitmap is not None and job.bitmap_mode == "always":
        raise OpenOutcomeError("what a job that has stopped copies while it is cancelled")
    else:
        stopped = f"ERROR {side} stop"
        world.tell(job_id, stopped)
        set_status(world, job_id, "paused")
        world.jobs[job_id] = replace(world.jobs[job_id], faulty=stopped)


def ignore(world: State, job_id: str, side: str, *, lasting: bool) -> None:
    """The job tries again at once; an error that lasts it ignores for ever (6.5)."""
    if lasting:
        world.tell(job_id, f"ERRORS {side} ignore", FLOOD)
        world.jobs[job_id] = replace(world.jobs[job_id], speed=1, limited=True)
    else:
        world.tell(job_id, f"ERROR {side} ignore", NOISE)
        go_on(world, [job_id])


def spoil_target(world: State, job_id: str) -> None:
    """A job cluster was not copied: where it is several clusters of the target, some may be."""
    job = world.jobs[job_id]
    if world.images[job.target].cluster_size < job.cluster:
        world.images[job.target] = blur(world.images[job.target])
        world.vague |= {job.target}


def fail(world: State, job_id: str, reason: Reason, side: str) -> None:
    """The job has met an error that it reports (6.5)."""
    job = world.jobs[job_id]
    if job.serial:
        world.ends[job_id] = JobEnd(job.length, job.offset, error=reason, speed=job.speed)
    else:
        blur_target(world, job_id)
        world.ends[job_id] = JobEnd(None, None, error=reason, speed=job.speed)
    errors = "ERROR" if job.serial else "ERRORS"
    world.tell(job_id, f"{errors} {side} report")
    abort(world, job_id, reason)


def abort(world: State, job_id: str, reason: Reason) -> None:
    """The job ends with an error, and what is left of its group is cancelled (6.6)."""
    job = replace(world.jobs[job_id], error=reason)
    world.jobs[job_id] = job
    world.tell(job_id, "aborting", "COMPLETED!")
    siblings = [
        each
        for each in members(job_id, job)
        if each != job_id and world.rules.drags(world.jobs[each].status)
    ]
    conclude(world, job_id, failed=True)
    for each in siblings:
        cancel(world, each)


def cancel(world: State, job_id: str) -> None:
    """One job ends as cancelled (6.4)."""
    job = world.jobs[job_id]
    length: int | None = job.length
    offset: int | None = job.offset
    under_way = world.words[job_id][:1] == ("created",) and not job.endless
    if under_way and (job.copy or job.scans):
        offset = None
        if job.scans:
            length = None  # how far it had looked for what to copy
            world.jobs[job_id] = replace(job, unscanned=True)
        if job.copy:
            check_cancelled(world, job)
            blur_target(world, job_id)
        words = world.words[job_id]
        world.words[job_id] = (*(word for word in words if word != "waiting"), "[waiting]")
    elif job.status == "paused":
        world.tell(job_id, "running", NOISE)
        if world.rules.copied_now(replace(job, status="running")):
            offset = None
            check_cancelled(world, job)
            blur_target(world, job_id)
            if job.faulty:
                world.tell(job_id, f"[{job.faulty}]")
    world.ends[job_id] = JobEnd(length, offset, Reason.JOB_CANCELLED, speed=job.speed)
    world.jobs[job_id] = replace(world.jobs[job_id], error=Reason.JOB_CANCELLED)
    world.tell(job_id, "aborting", "CANCELLED")
    conclude(world, job_id, failed=True)


def blur_target(world: State, job_id: str) -> None:
    """What the job has copied is open: each cluster of the target is old or new."""
    job = world.jobs[job_id]
    if job.bitmap is not None and job.bitmap_mode == "always":
        raise OpenOutcomeError("what a failing job has copied by then")
    world.images[job.target] = blur(world.images[job.target])
    world.vague |= {job.target}
    world.jobs[job_id] = replace(job, lost=True)


def blur(image: Image) -> Image:
    """Of a target whose job failed each cluster is old or new."""
    return replace(image, alloc=image.alloc.assign(0, image.alloc.size, Alloc.DATA_OR_ZERO))


def conclude(world: State, job_id: str, *, failed: bool) -> None:
    """The job lets go of its bitmap, its filter and its target (6.3, 6.4)."""
    job = set_status(world, job_id, "concluded")
    if job.bitmap is not None:
        rules, bitmap = world.rules, world.nodes[job.node].bitmaps[job.bitmap]
        thawed = rules.thaw(bitmap, job.bitmap_mode, failed=failed)
        if failed and job.bitmap_mode == "always":
            thawed = rules.uncopied(thawed, job.left, job.point_in_time.size)
        world.put_bitmap(job.node, job.bitmap, thawed)
    flush_through_filter(world, job.node)
    world.remove_filter(job.filter)
    world.opened -= {job.target}
    failing = [each for each in world.faults.pop(job.target, ()) if each.request == "flush"]
    world.complaints += tuple(REASONS[fault.errno] for fault in failing)
    world.concluded = (*world.concluded, job.target)
    if job.auto_dismiss:
        dismiss(world, job_id)


def flush_through_filter(world: State, name: str) -> None:
    """Some QEMUs flush what a filter stands on as the filter goes, and tell nobody of errors."""
    node = world.nodes[name]
    if not (world.traits.filter_end_flushes and node.unflushed):
        return
    if reason := strike(world, name, "flush"):
        world.complaints += (reason,)
    else:
        world.nodes[name] = replace(node, unflushed=False)


def dismiss(world: State, job_id: str) -> None:
    """The job is gone."""
    world.tell(job_id, "null")
    del world.jobs[job_id]


def set_status(world: State, job_id: str, status: str) -> Job:
    """Give a job another status, which its events tell."""
    job = world.jobs[job_id] = replace(world.jobs[job_id], status=status)
    world.tell(job_id, status)
    return job


# --- commands ------------------------------------------------------------------------------


@singledispatch
def command_backup(op: JobCommand, world: State) -> Outcome:
    """What a command does to a backup, or why there is none."""
    raise NotImplementedError(type(op).__name__)


def commanded(op: JobCommand, world: State) -> Job:
    """The job that a command is for; refused if there is none (6.4)."""
    job = world.jobs.get(op.job)
    if job is None:
        block = isinstance(op, JobSetSpeed) or op.block
        raise Refused(Reason.BLOCK_JOB_NOT_FOUND if block else Reason.JOB_NOT_FOUND, op.job)
    return job


def check_verb(world: State, status: str, verb: str) -> None:
    """Refuse what a job's status does not take."""
    if not world.rules.accepts(status, verb):
        said = f"'{status}' cannot accept command verb '{verb}'"
        raise Refused(Reason.VERB_REFUSED, said)


@command_backup.register
def _(op: JobSetSpeed, world: State) -> Outcome:
    job = commanded(op, world)
    check_verb(world, job.status, "set-speed")
    if op.speed > 1:
        raise OpenOutcomeError("how far a job gets at some speed")
    if op.speed and not job.serial:
        raise OpenOutcomeError("a job that copies several clusters at once is not held")
    rests = job.endless or not job.left
    if op.speed and not (rests or world.traits.blockdev_backup_x_perf):
        raise OpenOutcomeError("what wakes a limited job")
    world.jobs[op.job] = replace(job, speed=op.speed)
    go_on(world, [op.job])
    return Outcome()


@command_backup.register
def _(op: JobPause, world: State) -> Outcome:
    job = commanded(op, world)
    check_verb(world, job.status, "pause")
    if job.status == "paused":
        raise Refused(Reason.ALREADY_PAUSED)
    if not world.traits.blockdev_backup_x_perf and job.status == "running":
        raise OpenOutcomeError("when the job notices")
    set_status(world, op.job, "paused")
    return Outcome()


@command_backup.register
def _(op: JobResume, world: State) -> Outcome:
    job = commanded(op, world)
    if job.status != "paused":
        raise Refused(Reason.NOT_PAUSED)
    set_status(world, op.job, "running")
    world.tell(op.job, NOISE)
    world.jobs[op.job] = replace(world.jobs[op.job], faulty="")
    go_on(world, [op.job])
    return Outcome()


@command_backup.register
def _(op: JobCancel, world: State) -> Outcome:
    job = commanded(op, world)
    if op.block and not op.force and job.status == "paused":
        raise Refused(Reason.CANCEL_PAUSED, op.job)
    check_verb(world, job.status, "cancel")
    for each in members(op.job, job):
        cancel(world, each)
    return Outcome()


@command_backup.register
def _(op: JobComplete, world: State) -> Outcome:
    check_verb(world, commanded(op, world).status, "complete")
    return Outcome()


@command_backup.register
def _(op: JobFinalize, world: State) -> Outcome:
    job = commanded(op, world)
    check_verb(world, job.status, "finalize")
    finalize(world, members(op.job, job))
    return Outcome()


@command_backup.register
def _(op: JobDismiss, world: State) -> Outcome:
    check_verb(world, commanded(op, world).status, "dismiss")
    dismiss(world, op.job)
    return Outcome()
