"""Wrong rules about jobs in flight: what they hold, when they end, which commands they take."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.effects import jobs
from qbprop_model.expectation import Reason
from qbprop_model.image import Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import BitmapMode
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_rule("a limited job copies nothing before it is released")
class LimitCopiesNothing(Rules):
    def copied_now(self, job: Job) -> Ranges:
        return () if job.speed else super().copied_now(job)


@wrong_rule("a limited job copies two job clusters")
class LimitCopiesTwo(Rules):
    def copied_now(self, job: Job) -> Ranges:
        found = super().copied_now(job)
        if not job.speed or not found:
            return found
        start, end = job.left[0][0], job.left[0][0] + 2 * job.cluster
        return ((start, min(end, job.left[0][1])),)


@wrong_rule("a limited job copies the last job cluster first")
class LimitCopiesTheLast(Rules):
    def copied_now(self, job: Job) -> Ranges:
        found = super().copied_now(job)
        return ((job.left[-1][1] - job.cluster, job.left[-1][1]),) if job.speed and found else found


@wrong_rule("a job that is resumed copies one more job cluster")
class ResumeCopiesOneMore(Rules):
    def limits(self, job: Job) -> bool:
        return False


@wrong_rule("sync=none copies the whole disk")
class NoneCopiesAll(Rules):
    def copied_now(self, job: Job) -> Ranges:
        return super().copied_now(replace(job, endless=False))


@wrong_rule("sync=none ends when nothing is left")
class NoneEnds(Rules):
    def ends_by_itself(self, job: Job) -> bool:
        return job.status == "running" and not job.left


@wrong_rule("a limited job of which guests copied the rest waits for its release")
class ExhaustedJobsWait(Rules):
    def ends_by_itself(self, job: Job) -> bool:
        return super().ends_by_itself(job) and not (job.speed and job.met)


@wrong_rule("mode always forgets what was not copied when a job fails")
class AlwaysForgetsTheRest(Rules):
    def uncopied(self, bitmap: Bitmap, left: Ranges, size: int) -> Bitmap:
        return bitmap


@wrong_rule("mode always forgets the last job cluster that was not copied")
class AlwaysForgetsTheLast(Rules):
    def uncopied(self, bitmap: Bitmap, left: Ranges, size: int) -> Bitmap:
        cut = tuple((s, min(e, size - 65536)) for s, e in left if s < size - 65536)
        return super().uncopied(bitmap, cut, size)


@wrong_rule("a job that is cancelled clears its bitmap as a success does")
class CancelClears(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, mode, failed=False)


@wrong_rule("a job that is cancelled forgets what guests wrote meanwhile")
class CancelForgetsTheSuccessor(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        thawed = super().thaw(bitmap, mode, failed=failed)
        return replace(thawed, bits=bitmap.bits) if failed else thawed


@wrong_rule("a success forgets what guests wrote meanwhile")
class SuccessForgetsTheSuccessor(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        thawed = super().thaw(bitmap, mode, failed=failed)
        return thawed if failed or mode == "never" else self.clear(thawed)


@wrong_rule("a bitmap does not record while its job runs")
class FrozenDoesNotRecord(Rules):
    def freeze(self, bitmap: Bitmap) -> Bitmap:
        return replace(super().freeze(bitmap), recording=False)

    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return replace(super().thaw(bitmap, mode, failed=failed), recording=True)


@wrong_rule("a bitmap is not busy while its job runs")
class FrozenIsFree(Rules):
    def freeze(self, bitmap: Bitmap) -> Bitmap:
        return replace(super().freeze(bitmap), busy=False)


@wrong_rule("guests' writes go to the frozen bitmap")
class WritesReachTheFrozen(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        if bitmap.successor is None:
            return super().touch(bitmap, offset, length)
        touched = super().touch(replace(bitmap, successor=None), offset, length)
        return replace(touched, successor=bitmap.successor)


def _accepts(description: str, name: str, status: str, verb: str, *, accepted: bool) -> None:
    def accepts(self: Rules, now: str, command: str) -> bool:
        if (now, command) == (status, verb):
            return accepted
        return Rules.accepts(self, now, command)

    wrong_rule(description)(type(name, (Rules,), {"accepts": accepts}))


_accepts("a pending job can be paused", "PendingPauses", "pending", "pause", accepted=True)
_accepts("a pending job takes a speed", "PendingSpeeds", "pending", "set-speed", accepted=True)
_accepts("a running job can be finalized", "RunningFinalizes", "running", "finalize", accepted=True)
_accepts("a running job can be completed", "RunningCompletes", "running", "complete", accepted=True)
_accepts("a paused job takes no speed", "PausedTakesNoSpeed", "paused", "set-speed", accepted=False)
_accepts("a pending job cannot be cancelled", "PendingStays", "pending", "cancel", accepted=False)


@wrong_effect("a job that is paused twice is refused by its state", jobs, "check_verb")
def paused_takes_no_pause(original: Any) -> Any:
    def check_verb(world: State, status: str, verb: str) -> None:
        if verb == "pause" and status == "paused":
            raise Refused(Reason.VERB_REFUSED, "'paused' cannot accept command verb 'pause'")
        original(world, status, verb)

    return check_verb


@wrong_effect("a pending job is cancelled as one that has not copied all", jobs, "cancel")
def pending_cancel_is_none(original: Any) -> Any:
    def cancel(world: State, job_id: str) -> None:
        job = world.jobs[job_id]
        if job.status == "pending":
            world.jobs[job_id] = replace(job, left=job.copy)
        original(world, job_id)

    return cancel


@wrong_effect("a job that has concluded is gone at once", jobs, "conclude")
def concluded_is_gone(original: Any) -> Any:
    def conclude(world: State, job_id: str, *, failed: bool) -> None:
        world.jobs[job_id] = replace(world.jobs[job_id], auto_dismiss=True)
        original(world, job_id, failed=failed)

    return conclude


@wrong_effect("a job does not wait to be finalized", jobs, "wait_for_group")
def pending_is_not_kept(original: Any) -> Any:
    def wait_for_group(world: State, job_id: str) -> None:
        world.jobs[job_id] = replace(world.jobs[job_id], auto_finalize=True)
        original(world, job_id)

    return wait_for_group
