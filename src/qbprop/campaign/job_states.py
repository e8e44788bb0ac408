"""Which operations met jobs in which states: the table at the end of a campaign."""

from collections.abc import Iterator, Mapping

from qbprop_model.jobs import Job
from qbprop_model.operations import OPERATIONS, JobCommand, Operation, operation_name

STATES = ("none", "running", "paused", "error-stopped", "waiting", "pending", "concluded")
"""What a job can be found in, and "none" where there is no job."""

UNREACHABLE: Mapping[tuple[str, str], str] = {}
"""Cells of the table, by operation and state, that no operation can reach, and why."""

OPERATION_NAMES = tuple(operation_name(cls) for cls in OPERATIONS)


def state_of(job: Job) -> str:
    """One of STATES."""
    return "error-stopped" if job.faulty else job.status


def met(operation: Operation, before: Mapping[str, Job]) -> Iterator[tuple[str, str]]:
    """The cells that an operation counts for; ``before`` are the jobs that it found.

    A command to a job counts for that job's state, every other operation for all there are.
    """
    name = operation_name(operation)
    if isinstance(operation, JobCommand):
        job = before.get(operation.job)
        yield name, "none" if job is None else state_of(job)
    elif before:
        yield from sorted({(name, state_of(job)) for job in before.values()})
    else:
        yield name, "none"


def in_flight(before: Mapping[str, Job], after: Mapping[str, Job]) -> bool:
    """Whether some job was in flight when a step began or when it was over."""
    return any(job.active for jobs in (before, after) for job in jobs.values())
