"""Campaigns with a mistake planted in the model."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.campaign.machines import SmallMachine
from tests.cli.run import qbprop, start_qbprop
from tests.cli.test_jobs import record
from tests.cli.test_signals import wait_until

from qbprop.campaign.request import Request
from qbprop.campaign.runner import Options
from qbprop_model.rules import Rules

FEW = ("--seed", "1", "--max-examples", "5", "--profile", "qbprop-dev")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.request.Options", partial(Options, machine=SmallMachine))
    monkeypatch.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 10)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 3)


def test_it_is_found_and_counts_for_nothing_else(tmp_path: Path) -> None:
    done = qbprop("fuzz", *FEW, "--canary", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    told = record(tmp_path)
    assert told["canary"]["found"]
    assert f": {told['canary']['title']}\n" in done.stdout
    assert (told["findings"], told["examples"]) == ([], 5)
    (finding,) = (tmp_path / "canary" / "findings").iterdir()
    assert json.loads((finding / "finding.json").read_text())["title"] == told["canary"]["title"]
    assert not (tmp_path / "findings").exists()
    before = (tmp_path / "canary" / "campaign.json").stat().st_mtime_ns
    done = qbprop("fuzz", "--resume", tmp_path, "--max-examples", "6")
    assert done.returncode == 0
    assert record(tmp_path)["canary"] == told["canary"]
    assert (tmp_path / "canary" / "campaign.json").stat().st_mtime_ns == before


def test_what_does_not_find_it_is_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.canary.CANARY_SECONDS", 1.0)
    monkeypatch.setattr("qbprop.campaign.canary.Canary", Rules)
    done = qbprop("fuzz", *FEW, "--canary", "--out", tmp_path)
    assert done.returncode == 3
    assert "BLIND: the mistake that was planted was not found" in done.stdout
    assert record(tmp_path)["examples"] == 5
    assert "<title>qbprop: blind: " in (tmp_path / "report.html").read_text()
    assert '<error message="blind: ' in (tmp_path / "junit.xml").read_text()


def test_what_is_wrong_without_it_too_is_no_canary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ForgetsAll(Rules):
        def covered(self, granularity: int, offset: int, length: int) -> slice:
            return slice(0, 0)

    monkeypatch.setattr("qbprop.campaign.canary.CANARY_SECONDS", 1.5)
    monkeypatch.setattr("qbprop.session.Rules", ForgetsAll)
    monkeypatch.setattr("qbprop.campaign.canary.Canary", ForgetsAll)
    done = qbprop("fuzz", *FEW, "--max-examples", "15", "--canary", "--out", tmp_path)
    assert done.returncode == 1
    assert not record(tmp_path)["canary"]["found"]


def test_several_workers_look_for_it_once(tmp_path: Path) -> None:
    done = qbprop("fuzz", *FEW, "--jobs", "2", "--canary", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert record(tmp_path)["canary"]["found"]


def test_it_can_be_interrupted_and_is_then_looked_for_again(tmp_path: Path) -> None:
    with start_qbprop("fuzz", "--canary", "--out", tmp_path, "--max-examples", "3") as process:
        wait_until((tmp_path / "canary" / "campaign.json").exists)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert (record(tmp_path)["status"], record(tmp_path)["canary"]) == ("interrupted", None)
    done = qbprop("fuzz", "--resume", tmp_path)
    assert done.returncode == 0, done.stderr
    assert record(tmp_path)["canary"]["found"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, False),
        ({"max_time": 3600.0}, True),
        ({"profile": "qbprop-overnight"}, True),
        ({"max_time": 3600.0, "canary": False}, False),
        ({"canary": True}, True),
    ],
)
def test_nights_have_one_by_default(options: dict[str, Any], wanted: bool) -> None:  # noqa: FBT001
    usual: dict[str, Any] = {
        "qemu": None,
        "max_time": 60.0,
        "max_examples": None,
        "seed": None,
        "jobs": 1,
        "cluster": None,
        "stop_on_finding": False,
        "profile": "qbprop-nightly",
        "focus": (),
        "known": None,
        "canary": None,
        "database": (),
    }
    assert Request(**usual | options).wants_canary is wanted
