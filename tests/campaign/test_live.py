"""Campaigns on a real QEMU."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from tests.campaign.machines import ForgetsPartialCluster, SmallMachine, run

from qbprop.campaign.known import KnownFinding
from qbprop.errors import EnvironmentProblem, QbpropError
from qbprop.export.certify import BUG
from qbprop.export.certify import run as run_script
from qbprop.lab import Lab
from qbprop.machine import drawn, step_rule
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.session import Session
from qbprop.trace import read_trace
from qbprop_model.operations import AddDisk, BitmapAdd, Operation, Write
from qbprop_model.rules import Rules
from qbprop_model.world import World


@pytest.fixture(autouse=True)
def little_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 10)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 5)


def test_a_healthy_qemu_and_a_right_model(tmp_path: Path) -> None:
    summary = run(tmp_path, max_examples=12)
    assert summary.status == "finished"
    assert summary.findings == []
    assert summary.statistics.examples == 12
    assert summary.statistics.shrink_steps == 0
    assert summary.statistics.succeeded["write"] > 0
    assert summary.statistics.refused["bitmap_clear"] > 0
    assert summary.commands > summary.statistics.steps
    assert json.loads((tmp_path / "campaign.json").read_text()) == summary.to_record()
    assert not (tmp_path / "findings").exists()


def test_the_same_seed_gives_the_same_examples(tmp_path: Path) -> None:
    def operations(name: str, seed: int, **options: Any) -> dict[str, object]:
        out = tmp_path / name
        out.mkdir()
        record = run(out, seed=seed, max_examples=10, **options).to_record()
        findings = [(f["id"], f["count"]) for f in record["findings"]]
        return {key: record[key] for key in ("steps", "outcomes")} | {"findings": findings}

    first = operations("first", 5, rules=ForgetsPartialCluster())
    assert first["findings"]
    assert operations("again", 5, rules=ForgetsPartialCluster()) == first
    right = operations("right", 5)
    assert operations("other", 6) != right


def test_a_wrong_rule_is_found_shrunk_and_shown_again(tmp_path: Path) -> None:
    rules = ForgetsPartialCluster()
    summary = run(tmp_path, rules=rules, max_examples=40)
    assert summary.status == "finished"
    (finding,) = summary.new_findings
    assert finding.kind in ("count", "dirty-set")
    assert finding.rate == 1.0
    assert finding.count > 1
    assert summary.statistics.examples == 40
    trace = read_trace(tmp_path / "findings" / finding.id / "trace.jsonl")
    ((disk, bitmap, write),) = trace.examples
    assert isinstance(disk, AddDisk)
    assert isinstance(bitmap, BitmapAdd)
    assert isinstance(write, Write)
    assert write.length <= 512
    assert finding.operations == 3
    assert trace.header.finding is not None
    assert trace.header.finding.id == finding.id
    assert trace.header.seed == 1
    lab = Lab(find_binaries(None))
    folder = tmp_path / "findings" / finding.id
    assert run_script((folder / "reproduce.sh").read_text(), lab.binaries)[0] == BUG
    assert {path.name for path in folder.iterdir()} >= {"iotest.py", "iotest.py.out", "bisect.sh"}
    about = json.loads((folder / "finding.json").read_text())
    assert about["certificate"] == {
        "replays": 5,
        "disagreed": 5,
        "racy": False,
        "minimal": True,
        "without": ["passes"] * 3,
    }
    assert about["lost"] + about["spare"]
    with lab.session(rules) as session:
        found = play(session, trace.examples)
    assert found is not None
    assert found.id == finding.id
    with lab.session() as session:
        assert play(session, trace.examples) is None


def test_a_known_finding_is_counted_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    rules = ForgetsPartialCluster()
    (found,) = run(tmp_path / "first", rules=rules, stop_on_finding=True).findings
    entry = KnownFinding(id=found.id, title="forgets the last partial cluster")
    summary = run(tmp_path / "second", rules=rules, known=(entry,))
    (again,) = summary.findings
    assert again.known
    assert again.id == found.id
    assert again.count > 1
    assert summary.new_findings == []
    assert summary.statistics.examples == 15
    assert summary.statistics.shrink_steps == 0


def test_the_campaign_stops_at_a_finding_if_asked_to(tmp_path: Path) -> None:
    summary = run(tmp_path, rules=ForgetsPartialCluster(), stop_on_finding=True, max_examples=None)
    assert len(summary.new_findings) == 1
    assert summary.new_findings[0].count == 1
    assert summary.seconds < 40


def test_the_time_is_kept(tmp_path: Path) -> None:
    summary = run(tmp_path, max_examples=None, max_seconds=3, seed=None)
    assert summary.status == "finished"
    assert 3 <= summary.seconds < 5
    assert summary.statistics.examples > 3


class WrongForAWhile(Rules):
    """Wrong for a short time only: nothing shows it again."""

    calls = 0

    def covered(self, granularity: int, offset: int, length: int) -> slice:
        """Wrong from the 30th call to the 39th."""
        WrongForAWhile.calls += 1
        right = super().covered(granularity, offset, length)
        return slice(right.start, right.start) if 30 <= WrongForAWhile.calls < 40 else right


def test_a_finding_that_never_comes_back_is_kept_with_its_rate(tmp_path: Path) -> None:
    WrongForAWhile.calls = 0
    summary = run(tmp_path, rules=WrongForAWhile())
    (finding,) = summary.new_findings
    assert finding.rate == 0.0
    assert summary.status == "finished"
    assert read_trace(tmp_path / "findings" / finding.id / "trace.jsonl").length > 2


class KillsQemu(SmallMachine):
    """Kills QEMU from outside, once."""

    killed = False

    def perform(self, operations: Operation | Sequence[Operation]) -> None:  # type: ignore[override]
        """Kill it, then go on."""
        if not KillsQemu.killed and self.session.trace:
            KillsQemu.killed = True
            os.kill(self.session.driver.process.pid, signal.SIGKILL)
        super().perform(operations)


def test_a_qemu_killed_from_outside_is_a_crash_and_the_campaign_goes_on(tmp_path: Path) -> None:
    KillsQemu.killed = False
    summary = run(tmp_path, machine=KillsQemu)
    (finding,) = summary.findings
    assert finding.kind == "crash"
    assert finding.rate == 0.0
    assert summary.statistics.examples == 15
    assert summary.status == "finished"


class Broken(Rules):
    """A model that fails."""

    def clear(self, bitmap: object) -> object:  # type: ignore[override]
        """Fail."""
        raise ZeroDivisionError("by design")


def test_a_failure_of_qbprop_itself_ends_the_campaign_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(QbpropError, match=r"ZeroDivisionError.*error\.txt") as caught:
        run(tmp_path, rules=Broken())
    assert "\n" not in str(caught.value)
    assert "by design" in (tmp_path / "error.txt").read_text()
    assert read_trace(tmp_path / "error.jsonl").length > 0
    assert json.loads((tmp_path / "campaign.json").read_text())["status"] == "failed"


class BrokenDraws(SmallMachine):
    """A machine of which a draw fails."""

    draws = 0

    @staticmethod
    def failing(_: st.DrawFn, __: World) -> Operation:
        """Fail, and count how often."""
        BrokenDraws.draws += 1
        raise ZeroDivisionError("by design")

    @step_rule
    @rule(op=drawn(failing))
    def broken_rule(self, op: Operation) -> None:
        """Never gets here."""
        self.perform(op)


def test_a_draw_that_fails_ends_the_campaign_at_once(tmp_path: Path) -> None:
    with pytest.raises(QbpropError, match="ZeroDivisionError"):
        run(tmp_path, machine=BrokenDraws)
    assert "by design" in (tmp_path / "error.txt").read_text()
    assert BrokenDraws.draws == 1


def test_no_room_in_the_middle_is_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise EnvironmentProblem("no room; make some")

    monkeypatch.setattr("qbprop.campaign.watch.check_room", full)
    with pytest.raises(EnvironmentProblem, match="no room"):
        run(tmp_path, rules=ForgetsPartialCluster())
    assert json.loads((tmp_path / "campaign.json").read_text())["status"] == "failed"
    assert not (tmp_path / "findings").exists()


def test_qemu_is_replaced_before_its_history_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.watch.HISTORY_EXAMPLES", 5)
    lengths = []
    begin = Session.begin

    def watched(session: Session) -> None:
        begin(session)
        lengths.append(len(session.history))

    monkeypatch.setattr(Session, "begin", watched)
    assert run(tmp_path, max_examples=12).findings == []
    assert max(lengths) <= 5
    assert lengths.count(0) >= 2
