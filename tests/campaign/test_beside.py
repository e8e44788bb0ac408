"""The same examples on several QEMUs: in what they differ."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.run import qbprop
from tests.qemus.test_versions import FOLDER
from tests.sensitivity.variants.bitmaps import StartRoundsInward

from qbprop.campaign.beside import DIFFERENCES, Beside
from qbprop.campaign.summary import DifferenceRecord
from qbprop.lab import Lab
from qbprop.qemu.binaries import Binaries, find_binaries
from qbprop.qemu.observation import Refused
from qbprop.session import Session, Step
from qbprop.trace import Header, read_trace
from qbprop_model.expectation import BitmapState
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapRemove,
    Flush,
    Layer,
    Operation,
    Resize,
    Write,
)

DISK = AddDisk(node="drive0", layers=(Layer(size=1 << 20),))
BITMAP = BitmapAdd(node="drive0", name="bitmap0")
ABSENT = BitmapRemove(node="drive0", name="bitmap1")
MISSING = Resize(node="drive1", size=512)
TEXTS = (
    "Cannot find device= nor node_name=drive1",
    "Cannot find device='' nor node-name='drive1'",
)
"""What QEMUs say of it."""


class Pair:
    """Two sessions, each on a QEMU of its own, the second one beside the first."""

    def __init__(self, first: Session, second: Session, out: Path) -> None:
        self.first = first
        self.second = second
        self.records: list[DifferenceRecord] = []
        self.out = out
        header = Header(qemu_version=first.driver.version, transport=first.driver.transport)
        self.beside = Beside(first, (second,), (frozenset(),), self.records, out, header)
        self.first.begin()
        self.beside.begin(follow=True)

    def step(self, operation: Operation) -> Step:
        step = self.first.step(operation)
        self.beside.step_agreed(step)
        return step


@pytest.fixture
def binaries(pytestconfig: pytest.Config) -> Binaries:
    return find_binaries(pytestconfig.getoption("--qemu"))


@pytest.fixture
def pair(binaries: Binaries, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(Lab(binaries).session()) for _ in range(2))
        yield Pair(first, second, tmp_path)


def trace_of(pair: Pair, record: DifferenceRecord) -> tuple[Operation, ...]:
    (example,) = read_trace(pair.out / DIFFERENCES / f"{record.id}.jsonl").examples
    return example


def test_alike_qemus_do_not_differ(pair: Pair) -> None:
    for operation in (DISK, BITMAP, ABSENT, Flush(node="drive0")):
        pair.step(operation)
    pair.first.finish()
    pair.beside.finish(thorough=True)
    assert pair.records == []
    assert pair.second.trace == [DISK, BITMAP, ABSENT, Flush(node="drive0")]


def test_another_reply_is_listed_and_ends_the_comparison(pair: Pair) -> None:
    pair.step(DISK)
    step = pair.first.step(BITMAP)
    refused = Refused("qmp", "GenericError", "Bitmap already exists: bitmap0")
    pair.beside.step_agreed(replace(step, observed=replace(step.observed, refused=refused)))
    pair.step(Flush(node="drive0"))
    (record,) = pair.records
    assert (record.operation, record.what) == ("bitmap_add", "reply")
    assert record.outcomes == ["bitmap_exists", "ok"]
    assert trace_of(pair, record) == (DISK, BITMAP)
    assert pair.second.trace == [DISK, BITMAP]


def test_another_text_is_listed_once_and_the_example_goes_on(pair: Pair) -> None:
    pair.step(DISK)
    for _ in range(2):
        step = pair.first.step(MISSING)
        assert step.observed.refused is not None
        other = next(text for text in TEXTS if text != step.observed.refused.text)
        refused = Refused("qmp", "GenericError", other)
        pair.beside.step_agreed(replace(step, observed=replace(step.observed, refused=refused)))
    (record,) = pair.records
    assert (record.what, record.count) == ("text", 2)
    assert pair.second.trace == [DISK, MISSING, MISSING]


def test_another_state_is_listed(pair: Pair) -> None:
    pair.step(DISK)
    step = pair.first.step(BITMAP)
    other = {"drive0": {"bitmap0": BitmapState(512, 512)}}
    pair.beside.step_agreed(replace(step, expected=replace(step.expected, bitmaps=other)))
    assert [record.what for record in pair.records] == ["bitmaps"]


def test_a_qemu_that_breaks_a_rule_is_told_of(binaries: Binaries, tmp_path: Path) -> None:
    """The rules are wrong instead of the second QEMU."""
    with ExitStack() as stack:
        first = stack.enter_context(Lab(binaries).session())
        second = stack.enter_context(Lab(binaries).session(StartRoundsInward()))
        pair = Pair(first, second, tmp_path)
        write = Write(node="drive0", offset=1, length=1, fill=1)
        for operation in (DISK, BITMAP, write, Flush(node="drive0")):
            pair.step(operation)
    (record,) = pair.records
    assert (record.operation, record.what, record.known) == ("write", "model", False)
    assert trace_of(pair, record) == (DISK, BITMAP, write)


def test_the_command_lists_differences(tmp_path: Path, binaries: Binaries) -> None:
    others = [FOLDER / version for version in ("5.2", "11.1") if (FOLDER / version).is_dir()]
    if not others:
        pytest.skip("make qemus has not brought another QEMU")
    words = [word for other in others for word in ("--qemu", str(other))]
    limits = ("--seed", "3", "--max-examples", "80", "--max-time", "3m")
    done = qbprop("fuzz", "--qemu", binaries.system, *words, *limits, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    record = json.loads((tmp_path / "out" / "campaign.json").read_text())
    assert len(record["qemus"]) == 1 + len(others)
    assert record["differences"]
    for difference in record["differences"]:
        assert difference["qemus"][0] != difference["qemus"][1]
        assert (tmp_path / "out" / DIFFERENCES / f"{difference['id']}.jsonl").exists()
    assert "differs" in done.stdout


def test_one_qemu_twice_differs_in_nothing(tmp_path: Path, binaries: Binaries) -> None:
    same = ("--qemu", binaries.system, "--qemu", binaries.system)
    limits = ("--seed", "3", "--max-examples", "5", "--max-time", "2m")
    done = qbprop("fuzz", *same, *limits, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    record = json.loads((tmp_path / "out" / "campaign.json").read_text())
    assert [each for each in record["differences"] if each["what"] != "model"] == []


def test_several_qemus_take_one_worker(tmp_path: Path) -> None:
    done = qbprop("fuzz", "--qemu", "a", "--qemu", "b", "--jobs", "2", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "one worker" in done.stderr
