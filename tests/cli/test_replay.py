"""``qbprop replay`` on a real QEMU: what it shows, and its exit codes for ``git bisect run``."""

from pathlib import Path

import pytest
from tests.campaign.machines import ForgetsPartialCluster
from tests.cli.run import qbprop

from qbprop.findings import CountFinding
from qbprop.trace import FindingHeader, Header, Trace, write_trace
from qbprop_model.operations import AddDisk, BitmapAdd, BitmapClear, Layer, Operation, Write

OPERATIONS: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=1 << 20, format="raw"),)),
    BitmapAdd(node="drive0", name="bitmap0"),
    BitmapClear(node="drive0", name="bitmap1"),
    Write(node="drive0", offset=65536, length=512, stamp=1),
)

COUNT = CountFinding("write", "too much", "", "")
"""What a model shows that forgets clusters touched in part."""


@pytest.fixture
def wrong_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbprop.session.Rules", ForgetsPartialCluster)


def a_trace(folder: Path, finding: FindingHeader | None = None) -> Path:
    path = folder / "trace.jsonl"
    write_trace(path, Trace((OPERATIONS[:2], OPERATIONS), Header(finding=finding)))
    return path


def named(identity: str) -> FindingHeader:
    return FindingHeader(id=identity, kind="count", title="what was found")


def test_agreement(tmp_path: Path) -> None:
    done = qbprop("replay", a_trace(tmp_path, named(COUNT.id)))
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("QEMU ")
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["1", "add_disk"],
        ["2", "bitmap_add"],
        ["1", "add_disk"],
        ["2", "bitmap_add"],
        ["3", "bitmap_clear"],
        ["4", "write"],
    ]
    assert "→ refused as predicted: GenericError: Dirty bitmap 'bitmap1' not found" in lines[5]
    assert lines[6].endswith("→ ok")
    assert lines[-1] == "everything agreed"


def test_verbose_shows_the_commands(tmp_path: Path) -> None:
    done = qbprop("replay", "-v", a_trace(tmp_path))
    assert "> block-dirty-bitmap-clear {'node': 'drive0', 'name': 'bitmap1'}" in done.stdout
    assert "< GenericError: Dirty bitmap 'bitmap1' not found" in done.stdout


@pytest.mark.usefixtures("wrong_model")
def test_the_named_finding_comes_back(tmp_path: Path) -> None:
    done = qbprop("replay", a_trace(tmp_path, named(COUNT.id)))
    assert done.returncode == 1
    assert (
        '   4  write node="drive0" offset=65536 length=512 stamp=1  → DISAGREEMENT' in done.stdout
    )
    assert f"{COUNT.title}  [{COUNT.id}]" in done.stdout
    assert "expected: " in done.stdout
    assert "observed: " in done.stdout


@pytest.mark.usefixtures("wrong_model")
def test_any_disagreement_counts_where_none_is_named_or_any_is_asked_for(tmp_path: Path) -> None:
    assert qbprop("replay", a_trace(tmp_path)).returncode == 1
    assert qbprop("replay", "--any", a_trace(tmp_path, named("other"))).returncode == 1


@pytest.mark.usefixtures("wrong_model")
def test_another_disagreement_tells_nothing_about_the_named_one(tmp_path: Path) -> None:
    done = qbprop("replay", a_trace(tmp_path, named("other")))
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert "not the finding that the trace names" in line
    assert "--any" in line
