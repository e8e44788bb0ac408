"""The right model beside a wrong one, without QEMU: which examples would tell them apart.

Quick enough to tune the generator by; what it finds, live QEMU must show (runner.py).
"""

from collections.abc import Iterable
from typing import cast

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.sensitivity.models import WrongModels
from tests.sensitivity.registry import Variant

from qbprop.campaign.known import known_ids, shipped_known
from qbprop.campaign.rounds import ROUND_EXAMPLES, derived_seed
from qbprop.hazards import Hazard, Hazards, known_hazards
from qbprop.machine import BlockMachine
from qbprop.session import Accepts, Session
from qbprop_model.operations import InvalidOperationError, Operation
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
        self.outcomes: set[str] = set()
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
    models = WrongModels(variants, World(Rules()))
    differ: dict[str, int] = {}
    for number, operation in enumerate((*trace, None), 1):
        differ |= dict.fromkeys(models.step(operation), min(number, len(trace)))
    return differ
