"""What jobs do between their start and their end (semantics 6.2, 6.4, 6.7)."""

from qbprop_model.bitmap import ceil_div
from qbprop_model.expectation import Reason
from qbprop_model.jobs import Job
from qbprop_model.ranges import Ranges

VERBS: dict[str, frozenset[str]] = {
    "running": frozenset({"cancel", "pause", "set-speed"}),
    "paused": frozenset({"cancel", "pause", "set-speed"}),
    "waiting": frozenset({"cancel"}),
    "pending": frozenset({"cancel", "finalize"}),
    "concluded": frozenset({"dismiss"}),
    "ready": frozenset({"cancel", "pause", "set-speed", "complete"}),
    "standby": frozenset({"cancel", "pause", "set-speed"}),
}
"""By status, which commands a job takes."""


class LifecycleRules:
    """How jobs in flight behave. Override one method to state another rule."""

    def accepts(self, status: str, verb: str) -> bool:
        """Whether a job with this status takes a command (semantics 6.4)."""
        return verb in VERBS[status]

    def copied_now(self, job: Job) -> Ranges:
        """What the job copies by itself before it rests (6.7): all, one job cluster, nothing."""
        if job.endless or job.status != "running" or not job.left:
            return ()
        if not job.speed:
            return job.left
        start = job.left[0][0]
        return () if job.limited else ((start, start + job.cluster),)

    def intercepted(self, job: Job, offset: int, length: int) -> tuple[int, int]:
        """The job clusters ``(start, end)`` that are copied before a guest's write (6.2).

        A write of nothing in the middle of a job cluster takes that cluster along (1.2).
        """
        cluster = job.cluster
        return offset // cluster * cluster, ceil_div(offset + length, cluster) * cluster

    def ends_by_itself(self, job: Job) -> bool:
        """Whether a running job has nothing more to do; with sync none it never has (6.7)."""
        return job.status == "running" and not job.left and not job.endless

    def limits(self, job: Job) -> bool:
        """Whether what was copied uses up the speed limit; it does at once with speed 1 (6.7)."""
        return job.speed > 0

    def drags(self, status: str) -> bool:
        """Whether a member of a group is cancelled where another one fails: in any status (6.6)."""
        return True

    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        """What an error leads to: report, ignore or stop (table of 6.5).

        ``side`` is "read" for the job's disk, "write" for its target.
        """
        chosen = job.on_source_error if side == "read" else job.on_target_error
        if chosen == "enospc":
            return "stop" if reason is Reason.NO_SPACE else "report"
        return chosen
