"""Requests that meet an injected error: of guests, and of jobs that copy (semantics 7)."""

from collections.abc import Iterator
from dataclasses import replace

from qbprop_model.data import all_zero
from qbprop_model.expectation import Reason
from qbprop_model.faults import REASONS
from qbprop_model.image import Alloc, Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import Fault, OpenOutcomeError, Request
from qbprop_model.ranges import Ranges
from qbprop_model.state import State

COPIES: dict[Alloc, tuple[tuple[str, Request], ...]] = {
    Alloc.DATA: (("read", "read"), ("write", "write")),
    Alloc.ZERO: (("write", "write_zeroes"),),
    Alloc.DATA_OR_ZERO: (("read", "read"), ("write", "write"), ("write", "write_zeroes")),
}
"""What a job asks of its disk ("read") and its target ("write") to copy a job cluster."""


class Struck(Refused):
    """A fault hit a job that copies. ``side`` is "read" for its disk, "write" for its target.

    ``lasting``: the same request would fail for ever.
    """

    def __init__(self, reason: Reason, side: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.side = side
        self.lasting = lasting


def strike(
    world: State, node: str, request: Request, offset: int = 0, length: int = 0
) -> Reason | None:
    """Let a request meet the first fault of a node that hits it; the error, if there is one."""
    faults = world.faults.get(node, ())
    for index, fault in enumerate(faults):
        if world.rules.hits(fault, request, offset, length):
            rest = world.rules.spent(fault)
            world.faults[node] = (*faults[:index], *rest, *faults[index + 1 :])
            return REASONS[fault.errno]
    return None


def strike_copy(world: State, job: Job, ranges: Ranges) -> None:
    """Copy some job clusters as far as faults go: raises :class:`Struck` for one.

    OpenOutcomeError where more than one request is under way and may be the one that fails.
    """
    found = [each for cluster in dangers(world, job, ranges) for each in cluster]
    if not found:
        return
    (node, side, request, at, length), fault = found[0]
    if len(found) > 1 and not job.serial:
        raise OpenOutcomeError("which of several requests of a job fails")
    reason = strike(world, node, request, at, length)
    assert reason is not None
    raise Struck(reason, side, lasting=fault.times == 0)


Asked = tuple[str, str, Request, int, int]
"""A job's request: node, side, kind, offset and length in bytes."""


def dangers(world: State, job: Job, ranges: Ranges) -> Iterator[list[tuple[Asked, Fault]]]:
    """By job cluster, in the order of copying, the faults that it would meet one by one."""
    if not (world.faults.get(job.node) or world.faults.get(job.target)):
        return
    reading = replace(job, source=world.chain(world.nodes[job.node].image))
    for start, end in ranges:
        kinds = world.rules.copied_kinds(reading, start, min(end, job.point_in_time.size))
        for s, e, told in kinds:
            kind = Alloc.DATA if told is Alloc.DATA_OR_ZERO and holds_data(job, s, e) else told
            found = [
                ((node, side, request, s, e - s), fault)
                for side, request in COPIES[kind]
                for node in (job.node if side == "read" else job.target,)
                for fault in world.faults.get(node, ())
                if world.rules.hits(fault, request, s, e - s)
            ]
            if found and kind is Alloc.DATA_OR_ZERO:
                raise OpenOutcomeError("whether a job cluster travels as data or as zeroes")
            if found:
                yield found


def holds_data(job: Job, start: int, end: int) -> bool:
    """Whether some byte of a range is not zero: no hole of the host's file holds all of it."""
    cells = job.point_in_time.cells.runs(start, end)
    return not all(all_zero(cell.data, s, e - s) for s, e, cell in cells)


def check_cancelled(world: State, job: Job) -> None:
    """A job that is cancelled goes on for a moment, which must use up no fault (6.5).

    Nothing gets past the lasting fault that it has stopped at.
    """
    for cluster in dangers(world, job, job.left):
        if job.faulty and cluster[0][1].times == 0:
            return
        raise OpenOutcomeError("which faults a job meets that is cancelled")
