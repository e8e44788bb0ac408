"""How long live QEMU takes to contradict a wrong rule, and how short an example shows it."""

import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import get_state_machine_test
from rich.console import Console
from tests.sensitivity.registry import Variant

from qbprop.autopsy import Autopsy
from qbprop.campaign.known import known_ids, shipped_known
from qbprop.campaign.rounds import ROUND_EXAMPLES, derived_seed
from qbprop.campaign.runner import Campaign, Options
from qbprop.campaign.watch import patience
from qbprop.findings import Finding
from qbprop.hazards import Hazard
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.profiles import DEFAULT_PROFILE, SIZES
from qbprop.qemu.driver import Driver
from qbprop.session import Session
from qbprop_model.rules import Rules


@dataclass(frozen=True)
class Measurement:
    """One try: what contradicted the wrong rule, and after how much.

    ``finding`` None means that nothing did. ``operations`` is the length of the example, as it
    was met.
    """

    variant: str
    seed: int
    seconds: float
    examples: int
    finding: Finding | None

    @property
    def operations(self) -> int:
        """Operations of the example that contradicted."""
        return len(self.finding.trace) if self.finding else 0


class _Hurried(Session):
    """Waits for a known hang no longer than a campaign does."""

    def __init__(self, driver: Driver, rules: Rules, known: Collection[str]) -> None:
        super().__init__(driver, rules)
        self.know(known)

    def patience(self, hazard: Hazard | None) -> float:
        return patience(hazard, self._known, self.driver.timeout)


class _Over(BaseException):
    """A round has nothing more to do."""


def measure(
    lab: Lab, variant: Variant, seed: int, *, seconds: float, examples: int = 1_000_000
) -> Measurement:
    """Run the machine against QEMU by a wrong model, until that shows.

    Known bugs of QEMU contradict nothing. The launch of QEMU counts.
    """
    start = time.monotonic()
    done = 0
    found: Finding | None = None

    with variant.active() as rules, lab.driver() as driver:
        known = known_ids(shipped_known(), driver.version)
        session = _Hurried(driver, rules, known)
        session.locate = Autopsy(lab, rules)

        class Measured(BlockMachine):
            def __init__(self) -> None:
                nonlocal done
                super().__init__()
                done += 1

            def watch(self) -> None:
                if time.monotonic() - start >= seconds or done > examples:
                    raise _Over

            def known(self, finding: Finding) -> bool:
                nonlocal found
                if finding.id in known:
                    return True
                found, self.over = finding, True
                raise _Over

        body: dict[str, Any] = {"session": session, "thorough": False}
        machine = type("Measured", (Measured,), body)
        number = 0
        while found is None and time.monotonic() - start < seconds and done <= examples:
            round_of = get_state_machine_test(machine, settings=_settings())
            with suppress(_Over, Flaky):
                hypothesis.seed(derived_seed(seed, number))(round_of)()
            number += 1
    return Measurement(variant.name, seed, time.monotonic() - start, done, found)


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
