"""How long live QEMU takes to contradict a wrong rule, and how short an example shows it."""

import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import get_state_machine_test
from rich.console import Console
from tests.sensitivity.models import Shows, WrongModels, bytes_differ, differs
from tests.sensitivity.registry import Variant

from qbprop.autopsy import Autopsy
from qbprop.campaign.known import known_to, shipped_known
from qbprop.campaign.rounds import ROUND_EXAMPLES, derived_seed
from qbprop.campaign.runner import Campaign, Options
from qbprop.campaign.watch import patience
from qbprop.check import check
from qbprop.findings import Finding
from qbprop.hazards import Hazard
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.profiles import DEFAULT_PROFILE, SIZES
from qbprop.qemu.driver import Driver
from qbprop.session import Session, Step
from qbprop_model.expectation import Expectation
from qbprop_model.operations import Operation
from qbprop_model.world import World


@dataclass(frozen=True)
class Shown:
    """When live QEMU first contradicted a wrong rule, and in how many examples it did.

    ``operations`` is the length of the first such example up to there.
    """

    seconds: float
    example: int
    operations: int
    examples: int = 1


@dataclass(frozen=True)
class Measurement:
    """One seed: what contradicted the wrong rules, by their names.

    ``disagreements`` are findings of the right model that are not known: there should be none.
    """

    seed: int
    seconds: float
    examples: int
    shown: Mapping[str, Shown]
    disagreements: tuple[str, ...]


class _Doubting(Session):
    """Asks wrong models beside the right one whether what came of a step agrees with them.

    It waits for a known hang no longer than a campaign does.
    """

    def __init__(
        self, driver: Driver, known: Collection[str], variants: Collection[Variant], start: float
    ) -> None:
        super().__init__(driver)
        self.know(known)
        self.shown: dict[str, Shown] = {}
        self.examples = 0
        self._variants = variants
        self._start = start
        self._lost = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start, without those of the wrong models."""
        return time.monotonic() - self._start - self._lost

    def patience(self, hazard: Hazard | None) -> float:
        return patience(hazard, self._known, self.driver.timeout)

    def begin(self) -> None:
        super().begin()
        self.examples += 1
        self._models = WrongModels(self._variants, self.new_world())

    def agreed(self, step: Step) -> None:
        super().agreed(step)
        self._ask(step.operation, partial(self._contradicts, step))

    def finish(self, *, thorough: bool = True) -> None:
        super().finish(thorough=thorough)
        self._ask(None, differs if thorough else _differs_at_a_glance)

    def _ask(self, operation: Operation | None, shows: Shows) -> None:
        seconds, start = self.seconds, time.monotonic()
        for name in self._models.step(operation, shows):
            now = Shown(seconds, self.examples, len(self.trace))
            first = self.shown.get(name)
            self.shown[name] = replace(first, examples=first.examples + 1) if first else now
        self._lost += time.monotonic() - start

    def _contradicts(
        self, step: Step, due: Expectation, claimed: Expectation, right: World
    ) -> bool:
        """Whether what QEMU did is not what a wrong model claims."""
        came = step.observed
        digests = {key: came.digests[key] for key in claimed.digests if key in came.digests}
        try:
            check("step", claimed, replace(came, digests=digests), self.driver.features)
        except Finding:
            return True
        return bytes_differ(due, claimed, right)


def _differs_at_a_glance(due: Expectation, claimed: Expectation, right: World) -> bool:
    """As :func:`differs` where neither contents nor allocations are looked at."""
    return differs(due, replace(claimed, contents={}, allocated=due.allocated), right)


class _Over(BaseException):
    """A round has nothing more to do."""


def measure(
    lab: Lab,
    variants: Collection[Variant],
    seed: int,
    *,
    seconds: float,
    examples: int = 1_000_000,
) -> Measurement:
    """Run the machine against QEMU by the right model, and see which wrong ones QEMU contradicts.

    Known bugs of QEMU end an example. The launch of QEMU counts.
    """
    disagreements: list[str] = []
    start = time.monotonic()
    with lab.driver() as driver:
        known = known_to(driver.every_features, shipped_known())
        session = _Doubting(driver, known, variants, start)
        session.locate = Autopsy(lab)

        def over() -> bool:
            return session.seconds >= seconds or session.examples > examples

        class Measured(BlockMachine):
            def watch(self) -> None:
                if over():
                    raise _Over

            def known(self, finding: Finding) -> bool:
                if finding.id not in known:
                    disagreements.append(finding.title)
                return True

        body: dict[str, Any] = {"session": session, "thorough": False}
        machine = type("Measured", (Measured,), body)
        number = 0
        while not over():
            round_of = get_state_machine_test(machine, settings=_settings())
            with suppress(_Over, Flaky):
                hypothesis.seed(derived_seed(seed, number))(round_of)()
            number += 1
        done = min(session.examples, examples)
        return Measurement(seed, session.seconds, done, session.shown, tuple(disagreements))


@dataclass(frozen=True)
class Shrunk:
    """What a campaign made of the first contradiction of a wrong rule.

    ``operations`` is the length of the trace that it kept, ``rate`` the share of replays that
    showed it again; None where nothing contradicted.
    """

    seconds: float
    operations: int | None
    rate: float | None


def shrink(lab: Lab, variant: Variant, seed: int, *, seconds: float) -> Shrunk:
    """A campaign that judges by a wrong model and ends with its first finding, shrunk."""
    with variant.active() as rules, tempfile.TemporaryDirectory() as folder:
        options = Options(
            out=Path(folder),
            max_seconds=seconds,
            seed=seed,
            stop_on_finding=True,
            known=shipped_known(),
            rules=rules,
        )
        summary = Campaign(lab, options, Console(quiet=True)).run()
    new = summary.new_findings
    if not new:
        return Shrunk(summary.seconds, None, None)
    return Shrunk(summary.seconds, new[0].operations, new[0].rate)


def _settings() -> settings:
    return settings(
        max_examples=ROUND_EXAMPLES,
        stateful_step_count=SIZES[DEFAULT_PROFILE].steps,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
