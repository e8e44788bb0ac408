"""iotests, and the matrix of iotest 257, on a live QEMU, with both ways of guest I/O."""

from typing import Literal

import pytest

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.suite import scenarios, scenarios_257
from qbprop.suite.scenarios import SCENARIOS, Scenario
from qbprop.suite.scenarios_257 import MATRIX, Cell

Transport = Literal["nbd", "hmp"]
both_ways = pytest.mark.parametrize("transport", ["nbd", "hmp"])


def lab(transport: Transport, config: pytest.Config) -> Lab:
    """Where the scenarios run."""
    if transport == "nbd":
        pytest.importorskip("nbd", reason="libnbd's Python module is missing")
    binaries = find_binaries(config.getoption("--qemu"))
    if binaries.daemon and transport == "hmp":
        pytest.skip("a storage daemon has no human monitor")
    return Lab(binaries, transport=transport)


@both_ways
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.iotest}-{s.name}")
def test_iotest(scenario: Scenario, transport: Transport, pytestconfig: pytest.Config) -> None:
    with lab(transport, pytestconfig).session() as session:
        operations = scenarios.operations(scenario)
        if not all(map(session.driver.can_perform, operations)):
            pytest.skip("this QEMU cannot reopen a disk")
        drives = any(getattr(operation, "drive", None) for operation in operations)
        if drives and not session.driver.features.human_monitor_command:
            pytest.skip("a storage daemon has no drives")
        scenarios.perform(scenario, session)


@both_ways
@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: cell.name)
def test_iotest_257(cell: Cell, transport: Transport, pytestconfig: pytest.Config) -> None:
    with lab(transport, pytestconfig).session() as session:
        scenarios_257.perform(cell, session)
