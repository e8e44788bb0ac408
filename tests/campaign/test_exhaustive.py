"""Every short sequence over a small world."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.campaign.machines import ForgetsPartialCluster, run
from tests.cli.run import qbprop

from qbprop.campaign import exhaustive
from qbprop.campaign.summary import SequencesRecord
from qbprop_model.operations import operation_name
from qbprop_model.world import World


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.exhaustive.LENGTH", 2)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 2)


def test_each_sequence_comes_once() -> None:
    assert exhaustive.sequences() == 14 + 14**2 + 14**3 + 14**4 == 41370
    numbers = range(0, 14**4, 97)
    every = list(product(exhaustive.OPERATIONS, repeat=4))
    assert [tuple(exhaustive.sequence(number)) for number in numbers] == [
        every[number] for number in numbers
    ]


def test_its_backup_is_held() -> None:
    world = World()
    backup = next(o for o in exhaustive.OPERATIONS if operation_name(o) == "blockdev_backup")
    for operation in (*exhaustive.WORLD, backup):
        world.apply(operation)
    assert world.jobs[exhaustive.JOB].active


@pytest.mark.needs("blockdev_backup_x_perf")
@pytest.mark.usefixtures("short")
def test_all_are_performed_and_it_goes_on_where_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"exhaustive": True, "seed": None}
    first = run(tmp_path, max_examples=20, **options)
    assert first.sequences == SequencesRecord(length=2, all=210, longest=196, done=20)
    summary = run(tmp_path, max_examples=None, **options)
    record = summary.sequences
    assert record is not None
    assert record.done == 196
    assert summary.statistics.examples + record.unjudged == 196
    assert summary.findings == []
    assert summary.statistics.cells["job_cancel", "running", "ok"] > 0
    again = run(tmp_path, max_examples=None, **options)
    assert again.statistics.steps == summary.statistics.steps


@pytest.mark.usefixtures("short")
def test_a_wrong_rule_is_told_apart_and_the_rest_is_done(tmp_path: Path) -> None:
    rules = ForgetsPartialCluster()
    summary = run(tmp_path, rules=rules, exhaustive=True, max_examples=None)
    assert summary.sequences is not None
    assert summary.sequences.done == 196
    assert summary.new_findings
    assert all(each.rate == 1.0 for each in summary.new_findings)
    assert summary.statistics.examples + summary.sequences.unjudged == 196


@pytest.mark.usefixtures("short")
def test_the_number_is_told(tmp_path: Path) -> None:
    done = qbprop("fuzz", "--exhaustive", "--max-examples", "5", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "5 of 196 sequences of 2 operations, which begin with all shorter ones (210 together); "
        "0 cannot be judged"
    ) in done.stdout
    assert "5 of\n196 sequences of 2 operations" in (tmp_path / "report.html").read_text()


def test_it_takes_one_worker_and_no_focus() -> None:
    for option in ("--jobs=2", "--focus=jobs", "--cluster=tcp://here"):
        done = qbprop("fuzz", "--exhaustive", option)
        assert done.returncode == 2
        assert "--exhaustive takes one worker, and no --focus" in done.stderr
