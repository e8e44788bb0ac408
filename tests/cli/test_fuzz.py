"""``qbprop fuzz`` on a real QEMU: output and exit codes."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.campaign.machines import ForgetsPartialCluster, SmallMachine
from tests.cli.run import qbprop

from qbprop.campaign.runner import Options

FEW = ("--seed", "1", "--max-examples", "15", "--profile", "qbprop-dev")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.request.Options", partial(Options, machine=SmallMachine))
    monkeypatch.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 10)


@pytest.fixture
def wrong_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.session.Rules", ForgetsPartialCluster)


def test_nothing_new(tmp_path: Path) -> None:
    done = qbprop("fuzz", *FEW, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "finished after" in done.stdout
    assert "0 new findings, 0 known" in done.stdout
    assert f"everything is in {tmp_path / 'out'}" in done.stdout


def test_out_is_a_new_dated_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert qbprop("fuzz", "--seed", "1", "--max-examples", "1").returncode == 0
    (folder,) = (tmp_path / "qbprop-runs").iterdir()
    assert (folder / "campaign.json").exists()


@pytest.mark.usefixtures("wrong_model")
def test_something_new_and_then_known(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = qbprop("fuzz", *FEW, "--stop-on-finding", "--json", "--out", out)
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert record == json.loads((out / "campaign.json").read_text())
    (finding,) = record["findings"]
    trace = out / "findings" / finding["id"] / "trace.jsonl"
    assert f"NEW {finding['id']}" in done.stderr
    assert qbprop("replay", trace).returncode == 1

    known = tmp_path / "known.toml"
    known.write_text(f'[[finding]]\nid = "{finding["id"]}"\ntitle = "forgets"\n')
    done = qbprop("fuzz", *FEW, "--known", known, "--out", tmp_path / "again")
    assert done.returncode == 0
    assert f"known {finding['id']}" in done.stdout
    assert "0 new findings, 1 known" in done.stdout
    assert qbprop("replay", trace).returncode == 1
