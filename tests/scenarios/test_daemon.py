"""The storage daemon: the same block layer, and no human monitor."""

from pathlib import Path

import pytest

from qbprop.campaign.known import shipped_known
from qbprop.errors import EnvironmentProblem
from qbprop.export.certify import BEHAVES, export_sh
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.driver import Driver
from qbprop.session import Session
from qbprop.suite.scenarios import SCENARIOS, operations, perform
from qbprop.trace import Trace
from qbprop_model.operations import (
    AddDisk,
    CloseDisk,
    InvalidOperationError,
    Layer,
    Operation,
    WriteCompressed,
)

SURVIVES = next(each for each in SCENARIOS if each.name == "survives_restarts")


@pytest.fixture(scope="module")
def lab(pytestconfig: pytest.Config) -> Lab:
    system = find_binaries(pytestconfig.getoption("--qemu")).system
    return Lab(find_binaries(str(system.with_name("qemu-storage-daemon"))), timeout=5.0)


def check_it_stores(driver: Driver) -> None:
    """Skip the test where a daemon is known to lose what is not stored when it is told to quit."""
    for entry in shipped_known():
        if entry.trace == "daemon-end" and entry.concerns(driver.version, driver.features):
            pytest.skip(entry.title)


def test_bitmaps_survive_its_end(lab: Lab) -> None:
    with lab.session() as session:
        check_it_stores(session.driver)
        perform(SURVIVES, session)
        assert session.driver.launches == 3


def test_a_script_runs_on_it(lab: Lab) -> None:
    with lab.driver() as driver:
        check_it_stores(driver)
    exported = export_sh(lab, Trace((operations(SURVIVES),)))
    assert (exported.due, exported.code) == (BEHAVES, BEHAVES), exported.output


DISK = AddDisk(node="drive0", layers=(Layer(size=65536),))


@pytest.mark.parametrize(
    "operation",
    [
        AddDisk(node="drive1", drive="device1", layers=DISK.layers),
        CloseDisk(node="device0"),
        WriteCompressed(node="drive0", offset=0, length=65536, stamp=1),
    ],
)
def test_what_needs_the_human_monitor_is_left_out(lab: Lab, operation: Operation) -> None:
    with lab.session() as session:
        begin(session)
        with pytest.raises(InvalidOperationError):
            session.step(operation)
        session.finish()


def begin(session: Session) -> None:
    session.begin()
    session.step(DISK)


def test_guest_io_goes_over_nbd_alone(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no human monitor"):
        Driver(lab.binaries, tmp_path, transport="hmp")
