"""Wrong rules about injected errors: whom they hit, how often, and what is left behind them."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.data import SECTOR
from qbprop_model.effects import faults, guest, jobs
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.image import Alloc, Chain, Image, Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import Fault, Request, SyncMode
from qbprop_model.ranges import Ranges, minus
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_rule("an error that comes once comes for ever")
class FaultsStay(Rules):
    def spent(self, fault: Fault) -> tuple[Fault, ...]:
        return (replace(fault, times=0),)


@wrong_rule("an error that comes several times comes once")
class FaultsGo(Rules):
    def spent(self, fault: Fault) -> tuple[Fault, ...]:
        return ()


@wrong_rule("an error hits whatever touches its sector")
class FaultsHitSectors(Rules):
    def hits(self, fault: Fault, request: Request, offset: int, length: int) -> bool:
        touched = offset < fault.offset + SECTOR and fault.offset < offset + length
        return fault.request == request and (request == "flush" or touched)


@wrong_rule("an error hits a request that ends right before it")
class FaultsHitTheEnd(Rules):
    def hits(self, fault: Fault, request: Request, offset: int, length: int) -> bool:
        return super().hits(fault, request, offset, length + 1)


@wrong_rule("an error of writes hits zeroes as well")
class WritesAreZeroes(Rules):
    def hits(self, fault: Fault, request: Request, offset: int, length: int) -> bool:
        kind: Request = "write" if request == "write_zeroes" else request
        return super().hits(fault, request, offset, length) or super().hits(
            fault, kind, offset, length
        )


@wrong_rule("a write that fails midway has done nothing")
class TornWritesLeaveNothing(Rules):
    def torn(self, image: Image, offset: int, length: int) -> Ranges:
        return ()


@wrong_rule("a write that fails midway has done all or nothing")
class TornWritesAreWhole(Rules):
    def torn(self, image: Image, offset: int, length: int) -> Ranges:
        return ((offset, offset + length),)


@wrong_effect("a write that fails midway sets no bits", guest, "_fails_below")
def torn_writes_are_clean(original: Any) -> Any:
    def fails_below(world: State, name: str, op: Any) -> Any:
        node = world.nodes[name]
        refusal = original(world, name, op)
        if refusal is not None:
            world.nodes[name] = node
        return refusal

    return fails_below


@wrong_rule("a job that is not told what there is ends well, with nothing copied")
class JobsStartBlind(Rules):
    def fails_to_start(self, job: Job) -> bool:
        return False


@wrong_rule("after a job that was not told what there is, only what it would have copied is dirty")
class BlindJobsKnow(Rules):
    def copy_set(
        self,
        sync: SyncMode,
        cluster: int,
        source: Chain,
        bitmap: Bitmap | None,
        *,
        blind: bool = False,
    ) -> Ranges:
        return super().copy_set(sync, cluster, source, bitmap)


@wrong_rule("enospc stops at any error")
class EnospcStopsAtAll(Rules):
    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        return super().error_action(job, side, Reason.NO_SPACE)


@wrong_rule("enospc reports every error")
class EnospcReportsAll(Rules):
    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        return super().error_action(job, side, Reason.IO_ERROR)


@wrong_rule("what is said about errors of the source holds for the target")
class SourceSpeaksForTheTarget(Rules):
    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        return super().error_action(job, "read", reason)


@wrong_rule("what is said about errors of the target holds for the source")
class TargetSpeaksForTheSource(Rules):
    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        return super().error_action(job, "write", reason)


@wrong_effect("a write that fails sets no bits", guest, "_failed")
def failed_writes_are_clean(original: Any) -> Any:
    def failed(world: State, name: str, kind: Request, op: Any) -> Any:
        node = world.nodes[name]
        above = {each: world.nodes[each] for each in world.filters(name)}
        refusal = original(world, name, kind, op)
        if refusal is not None:
            world.nodes.update({name: replace(node, unflushed=True), **above})
        return refusal

    return failed


@wrong_effect("a write that fails sets the bits of its last byte alone", guest, "_failed")
def failed_writes_set_their_last_bit(original: Any) -> Any:
    def failed(world: State, name: str, kind: Request, op: Any) -> Any:
        if faults.strike(world.copy(), name, kind, op.offset, op.length) is None:
            return original(world, name, kind, op)
        shorter = replace(op, offset=op.offset + op.length - 1, length=1)
        reason = faults.strike(world, name, kind, op.offset, op.length)
        if kind != "read":
            guest._store(world, name, None, shorter)
        return Refusal(reason) if reason else None

    return failed


@wrong_effect("zeroing that fails has zeroed", guest, "_failed")
def failed_zeroes_zero(original: Any) -> Any:
    def failed(world: State, name: str, kind: Request, op: Any) -> Any:
        refusal = original(world, name, kind, op)
        if refusal is not None and kind == "write_zeroes":
            chain = world.chain(world.nodes[name].image)
            image = world.rules.write_zeroes(chain, op.offset, op.length, world.step, unmap=False)
            world.images[world.nodes[name].image] = image
        return refusal

    return failed


@wrong_effect("a flush fails although nothing was written", guest, "_disk")
def flushes_always_reach(original: Any) -> Any:
    def disk(reference: str, world: State) -> Any:
        name, node = original(reference, world)
        return name, replace(node, unflushed=True)

    return disk


@wrong_effect("a write whose copy failed sets the bits of its disk", guest, "_copied_before")
def failed_copies_are_recorded(original: Any) -> Any:
    def copied_before(op: Any, name: str, world: State) -> Any:
        refusal = original(op, name, world)
        if refusal is not None:
            guest._touch(world, name, op)
        return refusal

    return copied_before


@wrong_effect("a copy that failed is not tried again", jobs, "strike_copy")
def failed_copies_count(original: Any) -> Any:
    def strike_copy(world: State, job: Job, ranges: Ranges) -> None:
        try:
            original(world, job, ranges)
        except Refused:
            for job_id, each in world.jobs.items():
                if each is job:
                    left = job.left
                    for start, end in ranges:
                        left = minus(left, start, end)
                    world.jobs[job_id] = replace(job, left=left)
            raise

    return strike_copy


@wrong_effect("a job reads what is zero", faults, "COPIES")
def zeroes_are_read(original: Any) -> Any:
    return original | {Alloc.ZERO: (("read", "read"), *original[Alloc.ZERO])}


@wrong_effect("no space is told as any other error", faults, "REASONS")
def no_space_is_an_error(original: Any) -> Any:
    return original | {"ENOSPC": Reason.IO_ERROR}
