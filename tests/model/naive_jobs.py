"""A second, deliberately naive model of jobs in flight: clusters one by one, disks as bytes.

Disks and targets are raw, every backup goes to a node, and nothing fails but by being cancelled.
Written from sections 6.2 to 6.7 of the semantics document.
"""

import copy
from dataclasses import dataclass, field

from tests.model.naive import Answer, NaiveBitmap, pour
from tests.model.naive_disk import RefusedNaively

from qbprop_model.expectation import JobEnd, JobState, Reason
from qbprop_model.operations import (
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BlockdevBackup,
    Discard,
    JobCancel,
    JobCommand,
    JobComplete,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    OpenOutcomeError,
    Operation,
    Read,
    Transaction,
    Write,
    WriteZeroes,
)

CLUSTER = 65536

TAKES: dict[type[JobCommand], set[str]] = {
    JobPause: {"running", "paused"},
    JobResume: {"paused"},
    JobSetSpeed: {"running", "paused"},
    JobCancel: {"running", "paused", "waiting", "pending"},
    JobFinalize: {"pending"},
    JobDismiss: {"concluded"},
    JobComplete: set(),
}
"""In which states a backup takes a command (6.4)."""


@dataclass
class NaiveJob:
    """``before``: the disk at the start; ``copy``: the numbers of all job clusters to copy."""

    op: BlockdevBackup
    before: bytes
    copy: list[int]
    speed: int
    group: list[str]
    done: set[int] = field(default_factory=set)
    status: str = "running"
    used_up: bool = False
    error: Reason | None = None

    @property
    def rest(self) -> list[int]:
        return [number for number in self.copy if number not in self.done]

    @property
    def state(self) -> JobState:
        length = len(self.copy) * CLUSTER
        return JobState(self.status, length, length - len(self.rest) * CLUSTER, self.error)


class NaiveJobs:
    """Disks, the targets of their backups, bitmaps by (disk, name), and jobs by id."""

    def __init__(self, disks: dict[str, int], targets: dict[str, int]) -> None:
        self.bytes = {name: bytearray(size) for name, size in (disks | targets).items()}
        self.disks = set(disks)
        self.bitmaps: dict[tuple[str, str], NaiveBitmap] = {}
        self.jobs: dict[str, NaiveJob] = {}
        self.vague: set[str] = set()
        self.ends: dict[str, JobEnd] = {}

    def apply(self, op: Operation) -> Answer:
        """One step. Raises OpenOutcomeError where the document leaves the outcome open."""
        saved = copy.deepcopy(self.__dict__)
        self.ends = {}
        try:
            data = self.perform(op)
        except RefusedNaively as refused:
            self.__dict__ = saved
            return Answer(refused.reason)
        return Answer(data=data, jobs=self.ends)

    def perform(self, op: Operation) -> bytes | None:
        match op:
            case Read():
                if op.node not in (*self.disks, *(job.op.target for job in self.active())):
                    raise RefusedNaively(Reason.GUEST_NOT_FOUND)
                if op.node in self.vague:
                    raise OpenOutcomeError("each cluster of a cancelled backup is old or new")
                return bytes(self.bytes[op.node][op.offset : op.offset + op.length])
            case Write() | WriteZeroes() | Discard():
                self.guest(op)
            case BlockdevBackup():
                self.start([op], grouped=False)
            case Transaction():
                backups = [each for each in op.actions if isinstance(each, BlockdevBackup)]
                self.start(backups, grouped=op.grouped)
            case BitmapClear() | BitmapEnable() | BitmapDisable():
                bitmap = self.bitmaps[op.node, op.name]
                if bitmap.busy:
                    raise RefusedNaively(Reason.BITMAP_BUSY)
                if isinstance(op, BitmapClear):
                    bitmap.dirty = set()
                else:
                    bitmap.recording = isinstance(op, BitmapEnable)
            case _:
                assert isinstance(op, JobCommand)
                self.command(op)
        return None

    # --- guests -------------------------------------------------------------------------------

    def guest(self, op: Write | WriteZeroes | Discard) -> None:
        """Copy before write, then the write, then its bits (6.2, 1.2)."""
        jobs = [job for job in self.active() if job.op.node == op.node]
        start, end = op.offset, op.offset + op.length
        if isinstance(op, Discard) and jobs:
            return
        for job in jobs:
            for number in job.rest:
                first, behind = number * CLUSTER, (number + 1) * CLUSTER
                inside = start == end and first < start < behind and isinstance(op, Write)
                if inside or (start < behind and first < end and start < end):
                    self.copy_cluster(job, number)
        data = pour(op.data, start, op.length) if isinstance(op, Write) else bytes(op.length)
        self.bytes[op.node][start:end] = data
        for (disk, _), bitmap in self.bitmaps.items():
            if disk == op.node:
                bitmap.touch(start, op.length)
        self.settle()

    def copy_cluster(self, job: NaiveJob, number: int) -> None:
        piece = job.before[number * CLUSTER : (number + 1) * CLUSTER]
        at = number * CLUSTER
        self.bytes[job.op.target][at : at + len(piece)] = piece
        job.done.add(number)

    # --- jobs ---------------------------------------------------------------------------------

    def active(self) -> list[NaiveJob]:
        return [job for job in self.jobs.values() if job.status != "concluded"]

    def start(self, ops: list[BlockdevBackup], *, grouped: bool) -> None:
        if any(op.target in [job.op.target for job in self.active()] for op in ops):
            raise RefusedNaively(Reason.NODE_NAME_TAKEN)
        ids = [op.job or "" for op in ops]
        for op, job_id in zip(ops, ids, strict=True):
            bitmap = self.bitmaps[op.node, op.bitmap] if op.bitmap is not None else None
            if bitmap is not None and bitmap.busy:
                raise RefusedNaively(Reason.BITMAP_BUSY)
            if op.target in [job.op.target for job in self.active()]:
                raise RefusedNaively(Reason.NODE_BUSY)
            if job_id in self.jobs:
                raise RefusedNaively(Reason.JOB_ID_TAKEN)
            disk = self.bytes[op.node]
            numbers = range((len(disk) + CLUSTER - 1) // CLUSTER)
            wanted = [
                number
                for number in numbers
                if op.sync in ("full", "none")
                or (bitmap is not None and self.meets(bitmap, number, len(disk)))
            ]
            group = ids if grouped else [job_id]
            self.jobs[job_id] = NaiveJob(op, bytes(disk), wanted, op.speed, group)
            if bitmap is not None:
                bitmap.busy, bitmap.successor = True, set()
        for job_id in ids:
            self.run(self.jobs[job_id])
        self.settle()

    def meets(self, bitmap: NaiveBitmap, number: int, size: int) -> bool:
        first, behind = number * CLUSTER, (number + 1) * CLUSTER
        return any(
            dirty.start < behind and first < dirty.stop for dirty in bitmap.bytes_covered(size)
        )

    def run(self, job: NaiveJob) -> None:
        """Copy all that is left; with a speed limit one job cluster, once (6.7)."""
        if job.status != "running" or job.op.sync == "none":
            return
        for number in job.rest[: 1 if job.speed else None]:
            if job.speed and job.used_up:
                return
            self.copy_cluster(job, number)
            job.used_up = job.used_up or job.speed > 0

    def settle(self) -> None:
        """Jobs that have copied all wait for their group, become pending, and end (6.4, 6.6)."""
        for job in self.active():
            if job.status == "running" and not job.rest and job.op.sync != "none":
                job.status = "waiting"
        for job in self.active():
            group = [self.jobs[each] for each in job.group if each in self.jobs]
            if group and all(each.status == "waiting" for each in group):
                for each in group:
                    each.status = "pending"
                if all(each.op.auto_finalize for each in group):
                    self.end(job.group, cancelled=False)

    def end(self, ids: list[str], *, cancelled: bool) -> None:
        for job_id in ids:
            job = self.jobs[job_id]
            length, left = len(job.copy) * CLUSTER, len(job.rest) * CLUSTER
            offset: int | None = length - left if cancelled else length
            if cancelled and job.status == "paused" and self.goes_on(job):
                if job.op.bitmap_mode == "always":
                    raise OpenOutcomeError("what it copies before it notices")
                offset = None
                self.vague.add(job.op.target)
            if not cancelled and length >= len(job.before):
                self.vague.discard(job.op.target)
            job.error = Reason.JOB_CANCELLED if cancelled else None
            self.ends[job_id] = JobEnd(length, offset, job.error, speed=job.speed)
            if job.op.bitmap is not None:
                self.give_back(self.bitmaps[job.op.node, job.op.bitmap], job, failed=cancelled)
            job.status = "concluded"
            if job.op.auto_dismiss:
                del self.jobs[job_id]

    def goes_on(self, job: NaiveJob) -> bool:
        """Whether a paused job would copy if it were resumed."""
        held = job.speed > 0 and job.used_up
        return bool(job.rest) and job.op.sync != "none" and not held

    def give_back(self, bitmap: NaiveBitmap, job: NaiveJob, *, failed: bool) -> None:
        """Table 6.3, all of it."""
        written = bitmap.successor or set()
        match job.op.bitmap_mode or "on-success", failed:
            case ("on-success", False) | ("always", False):
                bitmap.dirty = written
            case ("always", True):
                bitmap.dirty = set(written)
                for number in job.rest:
                    end = min((number + 1) * CLUSTER, len(job.before))
                    first = number * CLUSTER // bitmap.granularity
                    bitmap.dirty |= set(range(first, (end - 1) // bitmap.granularity + 1))
            case _:
                bitmap.dirty = bitmap.dirty | written
        bitmap.successor, bitmap.busy = None, False

    # --- commands -----------------------------------------------------------------------------

    def command(self, op: JobCommand) -> None:
        """The command to a job, or why it is refused (6.4)."""
        if op.job not in self.jobs:
            old = isinstance(op, JobSetSpeed) or op.block
            raise RefusedNaively(Reason.BLOCK_JOB_NOT_FOUND if old else Reason.JOB_NOT_FOUND)
        job = self.jobs[op.job]
        if isinstance(op, JobCancel) and op.block and not op.force and job.status == "paused":
            raise RefusedNaively(Reason.CANCEL_PAUSED)
        if job.status not in TAKES[type(op)]:
            resume = isinstance(op, JobResume)
            raise RefusedNaively(Reason.NOT_PAUSED if resume else Reason.VERB_REFUSED)
        match op:
            case JobPause():
                if job.status == "paused":
                    raise RefusedNaively(Reason.ALREADY_PAUSED)
                job.status = "paused"
            case JobResume():
                job.status = "running"
                self.run(job)
            case JobSetSpeed():
                job.speed = op.speed
                self.run(job)
            case JobCancel():
                self.end(job.group, cancelled=True)
            case JobFinalize():
                self.end(job.group, cancelled=False)
            case _:
                del self.jobs[op.job]
        self.settle()
