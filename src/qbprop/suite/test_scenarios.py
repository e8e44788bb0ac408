"""iotest 124 on a live QEMU, with both ways of guest I/O."""

from typing import Literal

import pytest

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.suite.scenarios import SCENARIOS, Scenario, perform


@pytest.mark.parametrize("transport", ["nbd", "hmp"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_iotest_124(
    scenario: Scenario, transport: Literal["nbd", "hmp"], pytestconfig: pytest.Config
) -> None:
    if transport == "nbd":
        pytest.importorskip("nbd", reason="libnbd's Python module is missing")
    binaries = find_binaries(pytestconfig.getoption("--qemu"))
    with Lab(binaries, transport=transport).session() as session:
        perform(scenario, session)
