"""The right model beside wrong ones, operation by operation: which of them something shows."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import CodeType, FrameType
from typing import Any, cast

import numpy as np
from tests.sensitivity.registry import Variant

from qbprop_model.data import Bytes
from qbprop_model.expectation import Contents, Expectation
from qbprop_model.image import View
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.rangemap import RangeMap
from qbprop_model.world import World

Shows = Callable[[Expectation, Expectation, World], bool]
"""Whether something shows that a wrong model is wrong: by what must hold, what that model
claims, and the right world behind the operation."""


def differs(due: Expectation, claimed: Expectation, right: World) -> bool:
    """Whether a check would see that a wrong model predicts something else."""
    return _visible(due) != _visible(claimed) or bytes_differ(due, claimed, right)


def bytes_differ(due: Expectation, claimed: Expectation, right: World) -> bool:
    """Whether contents are others, or the bits of a bitmap that the wrong model asks for."""
    bitmaps = right.named_bitmaps()
    asked = claimed.digests.keys() & bitmaps.keys()
    return any(bitmaps[key].digest != claimed.digests[key] for key in asked) or _contents_differ(
        due, claimed
    )


class WrongModels:
    """Wrong models beside the right one, from the beginning of an example on.

    As long as a wrong model believes what the right one does, it is asked only about operations
    for which the right one calls what it replaces.
    """

    def __init__(self, variants: Iterable[Variant], right: World) -> None:
        self._right = right
        self._left = {variant.name: variant for variant in variants}
        self._apart: dict[str, _Wrong] = {}

    def step(self, operation: Operation | None, shows: Shows = differs) -> list[str]:
        """The models that the operation, None for the end, shows to be wrong; they are left out.

        So is one that takes it for invalid, which shows nothing.
        """
        before = self._right.copy()
        due, called = _watched(self._right, operation)
        asked = [
            name
            for name, variant in self._left.items()
            if name in self._apart or variant.concerns(called)
        ]
        shown = []
        for name in asked:
            wrong = self._apart.pop(name, None) or _Wrong(self._left[name], before)
            claimed = wrong.step(operation)
            if claimed is None:
                del self._left[name]
            elif shows(due, claimed, self._right):
                del self._left[name]
                shown.append(name)
            elif not wrong.believes(self._right):
                self._apart[name] = wrong
        return shown


def _watched(world: World, operation: Operation | None) -> tuple[Expectation, set[CodeType]]:
    """What must hold behind an operation, and all that the model calls for it."""
    called: set[CodeType] = set()

    def see(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        return _step(world, operation), called
    finally:
        sys.setprofile(before)


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
