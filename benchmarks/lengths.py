"""How long a step takes in short and in long examples."""

import time
from contextlib import suppress
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import get_state_machine_test

from qbprop.campaign.known import known_ids, shipped_known
from qbprop.findings import Finding
from qbprop.hazards import Hazard
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.session import Session

HANG_SECONDS = 0.2


class Hasty(Session):
    """Waits no longer than HANG_SECONDS where a known bug makes QEMU hang."""

    def patience(self, hazard: Hazard | None) -> float:
        """As :meth:`Session.patience`."""
        return HANG_SECONDS if hazard else super().patience(hazard)


class _Over(BaseException):
    """The time is used up."""


def length(lab: Lab, steps: int, seconds: float) -> dict[str, Any]:
    """Milliseconds a step, in examples of at most ``steps`` rules."""
    performed = examples = 0
    start = time.perf_counter()
    with lab.driver() as driver:
        session = Hasty(driver)
        known = known_ids(shipped_known(), driver.version)

        class Timed(BlockMachine):
            def __init__(self) -> None:
                nonlocal examples
                super().__init__()
                examples += 1

            def watch(self) -> None:
                nonlocal performed
                performed += 1
                if time.perf_counter() - start > seconds:
                    raise _Over

            def known(self, finding: Finding) -> bool:
                return finding.id in known

        machine: type[Timed] = type("Timed", (Timed,), {"session": session, "thorough": False})
        test = get_state_machine_test(machine, settings=_settings(steps))
        with suppress(_Over, Flaky):
            hypothesis.seed(1)(test)()
        used = time.perf_counter() - start
    return {"length": steps, "ms_per_step": 1000 * used / performed, "examples": examples}


def _settings(steps: int) -> settings:
    return settings(
        max_examples=1_000_000,
        stateful_step_count=steps,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
