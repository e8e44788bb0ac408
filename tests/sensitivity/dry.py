"""The right model beside a wrong one, without QEMU: which examples would tell them apart.

Quick enough to tune the generator by; what it finds, live QEMU must show (runner.py).
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
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
from qbprop_model.data import Bytes
from qbprop_model.expectation import Contents, Expectation
from qbprop_model.image import View
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.rangemap import RangeMap
from qbprop_model.rules import Rules
from qbprop_model.world import World

Trace = tuple[Operation, ...]

QEMU = "7.2"
"""The QEMU whose known bugs are shunned, as a campaign does."""


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
    """The same of several wrong models, by name.

    As long as a wrong model believes what the right one does, it is asked only about operations
    for which the right one calls what it replaces.
    """
    right, left = World(Rules()), {variant.name: variant for variant in variants}
    apart: dict[str, _Wrong] = {}
    differ: dict[str, int] = {}
    for number, (operation, codes) in enumerate(zip((*trace, None), _called(trace), strict=True)):
        asked = [name for name, variant in left.items() if name in apart or variant.concerns(codes)]
        before = right.copy()
        due = _step(right, operation)
        for name in asked:
            wrong = apart.pop(name, None) or _Wrong(left[name], before)
            claimed = wrong.step(operation)
            if claimed is None:
                del left[name]
            elif _visible(due) != _visible(claimed) or _contents_differ(due, claimed):
                del left[name]
                differ[name] = min(number + 1, len(trace))
            elif not wrong.believes(right):
                apart[name] = wrong
    return differ


def _called(trace: Trace) -> list[set[CodeType]]:
    """What the right model calls for each operation, and at the end."""
    called: list[set[CodeType]] = []

    def see(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called[-1].add(frame.f_code)

    world = World(Rules())
    before = sys.getprofile()
    sys.setprofile(see)
    try:
        for operation in trace:
            called.append(set())
            world.apply(operation)
        called.append(set())
        world.final()
    finally:
        sys.setprofile(before)
    return called


class _Wrong:
    """A world by a wrong rule, which has been right until now."""

    def __init__(self, variant: Variant, right: World) -> None:
        self._variant = variant
        self._world = right.copy()
        self._world.rules = variant.rules()

    def step(self, operation: Operation | None) -> Expectation | None:
        """What it predicts; None where it takes the operation for an invalid one."""
        with self._variant.active():
            try:
                return _step(self._world, operation)
            except InvalidOperationError:
                return None

    def believes(self, right: World) -> bool:
        """Whether its state is the right one; False also where that cannot be told."""
        own, other = vars(self._world), vars(right)
        return all(_alike(own[key], other[key]) for key in own.keys() - {"rules"})


def _step(world: World, operation: Operation | None) -> Expectation:
    """What must hold after the operation, or, behind the last one, at the end."""
    return world.final() if operation is None else world.apply(operation)


def _alike(one: object, other: object) -> bool:
    """Whether two parts of states are the same; what cannot be told is not."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, cast("Bytes", other))
    if isinstance(one, RangeMap):
        return [*one.runs()] == [*cast("RangeMap[object]", other).runs()]
    if isinstance(one, dict):
        beside = cast("dict[object, object]", other)
        return [*one] == [*beside] and all(_alike(one[key], beside[key]) for key in one)
    if isinstance(one, tuple | list):
        among = cast("Sequence[object]", other)
        return len(one) == len(among) and all(map(_alike, one, among))
    if is_dataclass(one):
        names = [each.name for each in fields(one)]
        return all(_alike(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


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
        expected.allocated,
        expected.jobs,
        expected.alive,
        expected.words,
        expected.anonymous,
        expected.opened,
    )


def _contents_differ(due: Expectation, claimed: Expectation) -> bool:
    both = due.contents.keys() & claimed.contents.keys()
    return any(_differ(due.contents[name], claimed.contents[name]) for name in both)


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
