"""Which operations met jobs in which states: the table at the end of a campaign."""

from collections.abc import Iterator, Mapping

from qbprop_model.jobs import Job
from qbprop_model.operations import OPERATIONS, JobCommand, Operation, operation_name

STATES = ("none", "running", "paused", "error-stopped", "waiting", "pending", "concluded")
"""What a job can be found in, and "none" where there is no job."""

OUTCOMES = ("ok", "refused")
"""How an operation ends."""

Cell = tuple[str, str, str]
"""An operation, the state of a job that it met, and how it ended."""

UNREACHABLE: Mapping[tuple[str, str], str] = {
    ("migrate", state): "what becomes of a job that is active while its disk changes hands is open"
    for state in STATES
    if state not in ("none", "concluded")
}
"""What no operation can reach, by operation and state, and why."""

OPERATION_NAMES = tuple(operation_name(cls) for cls in OPERATIONS)


def state_of(job: Job) -> str:
    """One of STATES."""
    return "error-stopped" if job.faulty else job.status


def met(operation: Operation, before: Mapping[str, Job], *, refused: bool) -> Iterator[Cell]:
    """The cells that an operation counts for; ``before`` are the jobs that it found.

    A command to a job counts for that job's state, every other operation for all there are.
    """
    if isinstance(operation, JobCommand):
        jobs = [before[operation.job]] if operation.job in before else []
    else:
        jobs = list(before.values())
    for state in sorted(set(map(state_of, jobs))) or ["none"]:
        yield operation_name(operation), state, OUTCOMES[refused]


def in_flight(before: Mapping[str, Job], after: Mapping[str, Job]) -> bool:
    """Whether some job was in flight when a step began or when it was over."""
    return any(job.active for jobs in (before, after) for job in jobs.values())
