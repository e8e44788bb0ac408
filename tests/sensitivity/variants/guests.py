"""Wrong rules about guests beside jobs: what is copied before a write, and what a write does."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.effects import guest, jobs
from qbprop_model.jobs import Job
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_effect("nothing is copied before a guest writes", guest, "copy_before")
def no_copy_before(_: Any) -> Any:
    return lambda *_: None


@wrong_rule("only the first job cluster is copied before a guest writes")
class OnlyTheFirstIsCopied(Rules):
    def intercepted(self, job: Job, offset: int, length: int) -> tuple[int, int]:
        start, end = super().intercepted(job, offset, length)
        return start, min(end, start + job.cluster)


@wrong_rule("the last job cluster that a guest writes to in part is not copied before")
class PartialLastIsNotCopied(Rules):
    def intercepted(self, job: Job, offset: int, length: int) -> tuple[int, int]:
        start, _ = super().intercepted(job, offset, length)
        return start, max(start, (offset + length) // job.cluster * job.cluster)


@wrong_rule("one job cluster more than a guest writes to is copied before")
class OneMoreIsCopied(Rules):
    def intercepted(self, job: Job, offset: int, length: int) -> tuple[int, int]:
        start, end = super().intercepted(job, offset, length)
        return start, end + job.cluster


@wrong_rule("a write of nothing inside a job cluster copies nothing")
class NothingCopiesNothing(Rules):
    def intercepted(self, job: Job, offset: int, length: int) -> tuple[int, int]:
        return super().intercepted(job, offset, length) if length else (0, 0)


@wrong_effect("a job copies again what a guest had copied before", jobs, "copy")
def copied_again(original: Any) -> Any:
    def copy(world: State, job_id: str, ranges: Ranges, **how: bool) -> None:
        left = world.jobs[job_id].left
        original(world, job_id, ranges, **how)
        if left and ranges and world.jobs[job_id].met:
            world.jobs[job_id] = replace(world.jobs[job_id], left=left)

    return copy


@wrong_effect("a paused job copies nothing before a guest writes", guest, "copy_before")
def paused_copies_nothing(original: Any) -> Any:
    def copy_before(world: State, node: str, offset: int, length: int) -> None:
        if any(job.node == node and job.status == "paused" for job in world.jobs.values()):
            return
        original(world, node, offset, length)

    return copy_before


@wrong_effect("a discard beside a job reaches the disk", State, "filters")
def discards_pass_filters(original: Any) -> Any:
    def filters(world: State, node: str) -> list[str]:
        found: list[str] = original(world, node)
        return [] if world.nodes[node].discard else found

    return filters


@wrong_effect("a filter's bitmaps record nothing", guest, "_touch")
def filters_do_not_record(original: Any) -> Any:
    def touch(world: State, name: str, op: Any) -> None:
        if world.nodes[name].filters is None:
            original(world, name, op)

    return touch


@wrong_effect("a drive's name means its disk while a job runs", State, "put_filter")
def drive_means_the_disk(original: Any) -> Any:
    def put_filter(world: State, name: str, node: str) -> None:
        original(world, name, node)
        drive = world.nodes[node].drive
        if drive is not None:
            world.roots[drive] = node

    return put_filter
