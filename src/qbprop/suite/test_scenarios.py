"""iotests, and the matrix of iotest 257, on a live QEMU, with both ways of guest I/O."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from qbprop.campaign.known import known_to, shipped_known
from qbprop.findings import Finding
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.session import Session
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


@contextmanager
def session_on(lab: Lab) -> Iterator[Session]:
    """A session; what is known of its QEMU is an expected failure."""
    with lab.session() as session:
        known = known_to(session.driver.every_features, shipped_known())
        try:
            yield session
        except Finding as finding:
            if finding.id not in known:
                raise
            pytest.xfail(f"a known bug of this QEMU: {known[finding.id]}")


@both_ways
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.iotest}-{s.name}")
def test_iotest(scenario: Scenario, transport: Transport, pytestconfig: pytest.Config) -> None:
    with session_on(lab(transport, pytestconfig)) as session:
        if unable := scenarios.obstacle(scenario, session.driver):
            pytest.skip(unable)
        scenarios.perform(scenario, session)


@both_ways
@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: cell.name)
def test_iotest_257(cell: Cell, transport: Transport, pytestconfig: pytest.Config) -> None:
    with session_on(lab(transport, pytestconfig)) as session:
        scenarios_257.perform(cell, session)
