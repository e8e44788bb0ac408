"""What the machine's base does around the operations."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.campaign.machines import SmallMachine

from qbprop.findings import ContentsFinding, Finding
from qbprop.hazards import DRAINED, EMPTY_MERGE, HAZARDS, TWO_BACKUPS, Hazards, known_hazards
from qbprop.lab import Lab
from qbprop.machine.core import MachineBase
from qbprop.qemu.binaries import find_binaries
from qbprop.session import Session
from qbprop_model.data import ZERO
from qbprop_model.image import Cell, Chain, Image
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapMerge,
    Layer,
    Operation,
    Resize,
    Transaction,
    Write,
)
from qbprop_model.rules import Rules

SIZE = 1 << 20
DISK = AddDisk(node="drive0", layers=(Layer(size=SIZE),))
WRITE = Write(node="drive0", offset=SIZE - 512, length=512, stamp=1)
MERGE_OF_NOTHING = Transaction(
    actions=(
        BitmapAdd(node="drive0", name="bitmap0"),
        BitmapMerge(node="drive0", target="bitmap0"),
    )
)


class WritesAreLost(Rules):
    def write(self, chain: Chain, offset: int, length: int, cell: Cell) -> Image:
        return super().write(chain, offset, length, Cell(ZERO, cell.step))


def end_of_example(operations: Iterable[Operation], qemu: str | None) -> None:
    """An example that is not drawn to be read back as a whole."""
    with Lab(find_binaries(qemu)).session(WritesAreLost()) as session:
        session.shunned = frozenset({EMPTY_MERGE})
        body: dict[str, Session | bool] = {"session": session, "thorough": False}
        machine: MachineBase = type("Short", (MachineBase,), body)()
        machine.perform(operations)
        machine.teardown()


def test_an_example_that_resized_a_disk_ends_with_all_contents(
    pytestconfig: pytest.Config,
) -> None:
    with pytest.raises(ContentsFinding):
        end_of_example(
            [DISK, WRITE, Resize(node="drive0", size=SIZE)], pytestconfig.getoption("--qemu")
        )


def test_an_example_that_left_something_out_is_checked_at_its_end(
    pytestconfig: pytest.Config,
) -> None:
    resized = [DISK, WRITE, Resize(node="drive0", size=SIZE)]
    with pytest.raises(ContentsFinding):
        end_of_example([*resized, MERGE_OF_NOTHING], pytestconfig.getoption("--qemu"))


def test_other_examples_end_with_the_bitmaps(pytestconfig: pytest.Config) -> None:
    end_of_example([DISK, WRITE], pytestconfig.getoption("--qemu"))


def test_hypothesis_is_told_how_the_operations_ended(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr("qbprop.machine.core.event", events.append)
    with Lab(find_binaries(pytestconfig.getoption("--qemu"))).session() as session:
        machine: type[MachineBase] = type("Small", (SmallMachine,), {"session": session})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=10, database=None, deadline=None)
        )
    assert {"write", "bitmap_clear", "bitmap_clear: node_not_found"} <= set(events)
    assert events.count("add_disk") >= 10


def test_what_is_shunned_is_done_by_the_daring_alone(pytestconfig: pytest.Config) -> None:
    with Lab(find_binaries(pytestconfig.getoption("--qemu"))).session() as session:
        session.shunned = frozenset({EMPTY_MERGE})
        machine: MachineBase = type("Short", (MachineBase,), {"session": session})()
        machine.perform([DISK, MERGE_OF_NOTHING, WRITE])
        assert session.trace == [DISK, WRITE]
        assert not machine.world.nodes["drive0"].bitmaps
        machine.daring = True
        before = len(session.trace)
        with suppress(Finding):
            machine.perform(MERGE_OF_NOTHING)
        assert len(session.trace) == before + 1


def test_a_hazard_is_known_by_any_of_its_findings() -> None:
    assert known_hazards({EMPTY_MERGE.identity("crash")}) == {EMPTY_MERGE}
    assert known_hazards({"no such id"}) == frozenset()
    labels = [hazard.label for hazard in HAZARDS]
    assert len(set(labels)) == len(labels)


def test_a_finding_is_named_after_what_is_known_to_bring_it() -> None:
    met = Hazards(active=(TWO_BACKUPS, DRAINED))
    known = {DRAINED.identity("hang")}
    assert met.explains("hang", known) is DRAINED
    assert met.explains("hang", ()) is TWO_BACKUPS
    assert met.explains("count", known) is TWO_BACKUPS
    assert Hazards(active=(DRAINED,)).explains("count", known) is None
    assert met.explains("count", known, {TWO_BACKUPS}) is None
    assert met.explains("hang", (), {TWO_BACKUPS}) is DRAINED
