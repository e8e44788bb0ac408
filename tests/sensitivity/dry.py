"""The right model beside a wrong one, without QEMU: which examples would tell them apart.

Quick enough to tune the generator by; what it finds, live QEMU must show (runner.py).
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, cast

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.sensitivity.registry import Variant

from qbprop.campaign.known import known_ids, shipped_known
from qbprop.campaign.rounds import ROUND_EXAMPLES, derived_seed
from qbprop.hazards import Hazard, Hazards, known_hazards
from qbprop.machine import BlockMachine
from qbprop.session import Accepts, Session
from qbprop_model.expectation import Contents, Expectation
from qbprop_model.image import View
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.rules import Rules
from qbprop_model.world import World

Trace = tuple[Operation, ...]

QEMU = "7.2"
"""The QEMU whose known bugs are shunned, as a campaign does."""

BESIDE = 8
"""Wrong models beside one right one: each has all bytes and bits of its disks."""


class _Recorder:
    """What the machine needs of a session; it performs nothing."""

    def __init__(self, shunned: frozenset[Hazard]) -> None:
        self.shunned = shunned
        self.traces: list[Trace] = []
        self.trace: list[Operation] = []
        self.begin()

    def begin(self) -> None:
        self.close()
        self.world = World(Rules())
        self._hazards = Hazards()

    def start(self, operation: Operation, accepts: Accepts) -> None:
        before = self.world.copy()
        expected = self.world.apply(operation)
        provoked = tuple(self._hazards.provoked(operation, expected, before))
        if not accepts(expected, provoked):
            self.world = before
            raise InvalidOperationError("an operation that is not wanted")
        self._hazards.see(operation, provoked, before, self.world)
        self.trace.append(operation)

    def settle(self) -> None:
        """Nothing to compare."""

    def finish(self, *, thorough: bool) -> None:
        """Nothing to compare."""

    def close(self) -> None:
        if self.trace:
            self.traces.append(tuple(self.trace))
        self.trace = []


def draw_examples(count: int, steps: int, seed: int) -> list[Trace]:
    """About ``count`` examples of the machine, drawn in rounds as a campaign does."""
    shunned = known_hazards(known_ids(shipped_known(), QEMU))
    recorder = _Recorder(shunned)
    body = {"session": cast("Session", recorder)}
    found = settings(
        max_examples=ROUND_EXAMPLES,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for number in range(-(-count // ROUND_EXAMPLES)):
        machine = hypothesis.seed(derived_seed(seed, number))(type("Dry", (BlockMachine,), body))
        run_state_machine_as_test(machine, settings=found)
    recorder.close()
    return recorder.traces


def first_difference(variant: Variant, trace: Trace) -> int | None:
    """After how many operations the wrong model predicts something else that a check sees."""
    return first_differences([variant], trace).get(variant.name)


def first_differences(variants: Iterable[Variant], trace: Trace) -> dict[str, int]:
    """The same of several wrong models, by name."""
    called = _called(trace)
    concerned = [variant for variant in variants if variant.concerns(called)]
    differ: dict[str, int] = {}
    for start in range(0, len(concerned), BESIDE):
        differ |= _beside(concerned[start : start + BESIDE], trace)
    return differ


def _beside(variants: Iterable[Variant], trace: Trace) -> dict[str, int]:
    right = World(Rules())
    running = [_Wrong(variant) for variant in variants]
    differ: dict[str, int] = {}
    for number, operation in enumerate(trace, 1):
        due = right.apply(operation)
        seen = _visible(due)
        for wrong in tuple(running):
            claimed = wrong.apply(operation)
            if claimed is None:
                running.remove(wrong)
            elif seen != _visible(claimed) or _contents_differ(due.contents, claimed.contents):
                running.remove(wrong)
                differ[wrong.variant.name] = number
    due = right.final()
    for wrong in running:
        claimed = wrong.final()
        if (due.digests, due.allocated) != (claimed.digests, claimed.allocated) or _contents_differ(
            due.contents, claimed.contents
        ):
            differ[wrong.variant.name] = len(trace)
    return differ


def _called(trace: Trace) -> set[CodeType]:
    """All that the right model calls."""
    called: set[CodeType] = set()

    def see(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    world = World(Rules())
    before = sys.getprofile()
    sys.setprofile(see)
    try:
        for operation in trace:
            world.apply(operation)
        world.final()
    finally:
        sys.setprofile(before)
    return called


class _Wrong:
    """A world by a wrong rule."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self._world = World(variant.rules())

    def apply(self, operation: Operation) -> Expectation | None:
        """What it predicts; None where it takes the operation for an invalid one."""
        with self.variant.active():
            try:
                return self._world.apply(operation)
            except InvalidOperationError:
                return None

    def final(self) -> Expectation:
        with self.variant.active():
            return self._world.final()


def _visible(expected: Expectation) -> tuple[Any, ...]:
    refusal = expected.refusal
    return (
        None if refusal is None else (refusal.reason, refusal.subject),
        None if expected.data is None else expected.data.tobytes(),
        None if expected.torn is None else (expected.torn.written.tobytes(), expected.torn.parts),
        expected.extents,
        expected.bitmaps,
        expected.sizes,
        expected.digests,
        expected.jobs,
        expected.alive,
        expected.words,
        expected.anonymous,
        expected.opened,
    )


def _contents_differ(due: Mapping[str, Contents], claimed: Mapping[str, Contents]) -> bool:
    return any(_differ(due[name], claimed[name]) for name in due.keys() & claimed.keys())


def _differ(one: Contents, other: Contents) -> bool:
    if one.size != other.size:
        return True
    assert isinstance(one, View)
    assert isinstance(other, View)
    unlike = set(one.parts()) ^ set(other.parts())
    return any(
        not np.array_equal(one.render(start, end - start), other.render(start, end - start))
        for start, end in _chunks(sorted((start, end) for start, end, _ in unlike))
    )


def _chunks(ranges: list[tuple[int, int]], size: int = 1 << 22) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        for position in range(start, end, size):
            yield position, min(position + size, end)
