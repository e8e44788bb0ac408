"""The corpus of a campaign, and its replay."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.campaign.machines import ForgetsPartialCluster, SmallMachine
from tests.cli.run import qbprop
from tests.cli.test_jobs import record

from qbprop.campaign.corpus import Corpus, add_corpus, corpus
from qbprop.campaign.runner import Options
from qbprop.trace import Header, read_trace
from qbprop_model.operations import Flush

FEW = ("--seed", "1", "--max-examples", "15", "--profile", "qbprop-dev")


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.campaign.request.Options", partial(Options, machine=SmallMachine))


def reached(out: Path) -> set[tuple[str, str, str]]:
    cells = record(out)["cells"]
    return {
        (name, state, outcome)
        for name, row in cells.items()
        for state, both in row.items()
        for outcome, count in both.items()
        if count
    }


@pytest.mark.usefixtures("small_machine")
def test_all_that_was_reached_is_reached_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert qbprop("fuzz", *FEW, "--out", tmp_path).returncode == 0
    traces = list(corpus(tmp_path))
    assert 0 < len(traces) <= len(reached(tmp_path))
    names = {json.loads(line)["op"] for each in traces for line in lines(each)}
    assert names == {name for name, _, _ in reached(tmp_path)}
    assert read_trace(traces[0]).header.seed == 1
    done = qbprop("replay", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f": {len(traces)} traces agreed, 0 disagreed, 0 cannot" in done.stdout
    monkeypatch.setattr("qbprop.session.Rules", ForgetsPartialCluster)
    done = qbprop("replay", tmp_path / "corpus")
    assert done.returncode == 1
    assert "count after write: too much, at step " in done.stdout
    assert f" of {tmp_path / 'corpus'}" in done.stdout


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines()[1:]


@pytest.mark.usefixtures("small_machine")
def test_workers_put_their_traces_together(tmp_path: Path) -> None:
    assert qbprop("fuzz", *FEW, "--jobs", "2", "--out", tmp_path).returncode == 0
    assert list(corpus(tmp_path))


def test_an_example_is_kept_for_what_it_reached_first(tmp_path: Path) -> None:
    kept = Corpus(tmp_path / "one", Header())
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    ok, refused = ("flush", "none", "ok"), ("flush", "none", "refused")
    kept.keep((Flush(node="drive0"),), [ok])
    kept.keep((Flush(node="drive1"),), [ok])
    assert [path.name for path in corpus(tmp_path / "one")] == ["flush-none-ok.jsonl"]
    kept.keep((Flush(node="drive2"),), [refused, ok])
    add_corpus(tmp_path / "one", tmp_path / "two")
    other = Corpus(tmp_path / "two", Header())
    other.keep((Flush(node="drive3"),), [ok])
    nodes = [lines(path) for path in corpus(tmp_path / "two")]
    assert [json.loads(line)["node"] for (line,) in nodes] == ["drive0", "drive2"]


def test_a_folder_without_traces_cannot_be_tried(tmp_path: Path) -> None:
    done = qbprop("replay", tmp_path)
    assert done.returncode == 125
    assert done.stderr.startswith(f"qbprop: {tmp_path} holds no traces; ")
