"""A finding's id is the same on another build of QEMU: here, on one made from sources."""

import shutil
from pathlib import Path

import pytest
from tests.qemu_source.conftest import Sources

from qbprop.campaign.known import shipped_known
from qbprop.hazards import Hazards
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.trace import read_trace

FOLDER = Path(__file__).parents[2] / "src/qbprop/known_traces"
TRACES = sorted(
    {FOLDER / f"{e.trace}.jsonl" for e in shipped_known() if e.trace and e.concerns("7.2")}
)
PAGES = {entry.id: entry.document for entry in shipped_known()}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_bug_has_the_identity_that_it_has_on_debians_build(path: Path, sources: Sources) -> None:
    trace = read_trace(path)
    assert trace.header.finding is not None
    with Lab(find_binaries(str(sources.build)), timeout=2.0).session() as session:
        finding = play(session, trace.examples)
    assert finding is not None
    assert PAGES[finding.id] == PAGES[trace.header.finding.id]


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.parametrize("name", ["merge-of-nothing", "failed-enable"])
def test_a_crash_in_the_same_functions_is_the_same_on_every_build(
    name: str, sources: Sources, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hazards, "explains", lambda *_: None)
    (path,) = (path for path in TRACES if path.stem == name)
    ids = set()
    for qemu in (pytestconfig.getoption("--qemu"), str(sources.build)):
        with Lab(find_binaries(qemu)).session() as session:
            finding = play(session, read_trace(path).examples)
        assert finding is not None
        assert finding.functions
        ids.add(finding.id)
    assert len(ids) == 1
