"""Restarts that launch another QEMU."""

from pathlib import Path

import pytest
from tests.cli.run import qbprop

from qbprop.export.certify import export_sh
from qbprop.export.story import ExportError
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.session import Session
from qbprop.trace import Trace, write_trace
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    CloseDisk,
    HoldWrite,
    InvalidOperationError,
    Layer,
    Migrate,
    OpenDisk,
    Opening,
    Operation,
    Restart,
    Write,
)
from qbprop_model.rules import Rules
from qbprop_model.traits import Traits
from qbprop_model.world import World

DISK = AddDisk(node="drive0", layers=(Layer(size=65536),))
CROSSED: tuple[Operation, ...] = (
    DISK,
    BitmapAdd(node="drive0", name="bitmap0", persistent=True),
    Write(node="drive0", offset=0, length=512, stamp=1),
    Restart(qemu=1),
    OpenDisk(node="drive0"),
    Write(node="drive0", offset=512, length=512, stamp=2),
)


@pytest.fixture
def lab(pytestconfig: pytest.Config) -> Lab:
    binaries = find_binaries(pytestconfig.getoption("--qemu"))
    daemon = find_binaries(str(binaries.system.with_name("qemu-storage-daemon")))
    return Lab(binaries, others=(daemon,))


def program(session: Session) -> str:
    """What runs as QEMU, which may be by a loader of its own."""
    words = Path(f"/proc/{session.driver.process.pid}/cmdline").read_text().split("\0")
    return next(name for word in words if (name := Path(word).name).startswith("qemu-"))


@pytest.mark.parametrize("name", ["bitmap0", "two\nlines"])
def test_what_qemu_complains_of_late_or_otherwise_is_known(
    pytestconfig: pytest.Config, name: str
) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    operations: tuple[Operation, ...] = (
        DISK,
        BitmapAdd(node="drive0", name=name, persistent=True),
        CloseDisk(node="drive0"),
        OpenDisk(node="drive0"),
        Restart(how="kill"),
        OpenDisk(node="drive0"),
        Migrate(disks=(Opening(node="drive0"),)),
        OpenDisk(node="drive0", drive="device0", read_only=True),
        Restart(how="terminate"),
    )
    with lab.session() as session:
        session.begin()
        steps = [session.step(operation) for operation in operations]
        session.finish()
    assert [step.expected.refusal is not None for step in steps[-3:]] == [True, True, False]


def test_what_is_on_disk_passes_to_another_program(lab: Lab) -> None:
    with lab.session() as session:
        session.begin()
        for operation in CROSSED:
            session.step(operation)
        session.finish()
        assert "storage-daemon" in program(session)
        session.begin()
        assert "system" in program(session)


def test_the_model_goes_by_what_the_other_is_like() -> None:
    world = World(Rules(), Traits(), Traits(human_monitor_command=False))
    world.apply(DISK)
    world.apply(Restart(qemu=1))
    assert (world.engines[0].before, world.engines[0].qemu) == (0, 1)
    with pytest.raises(InvalidOperationError, match="human monitor"):
        world.apply(HoldWrite(node="drive0", offset=0, length=1, fill=1))
    with pytest.raises(InvalidOperationError, match="--cross"):
        world.apply(Restart(qemu=2))


def test_a_trace_is_replayed_with_the_same_qemus(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, Trace((CROSSED,)))
    system, daemon = str(lab.binaries.system), str(lab.others[0].system)
    done = qbprop("replay", str(path), "--qemu", system, "--cross", daemon)
    assert done.returncode == 0
    assert "everything agreed" in done.stdout
    lacking = qbprop("replay", str(path), "--qemu", system)
    assert lacking.returncode == 125
    assert "--cross" in lacking.stderr


def test_no_script_crosses(lab: Lab) -> None:
    with pytest.raises(ExportError, match="--cross"):
        export_sh(lab, Trace((CROSSED,)))
