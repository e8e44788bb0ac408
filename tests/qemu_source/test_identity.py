"""A finding's id is the same on another build of QEMU: here, on one made from sources."""

from pathlib import Path

import pytest
from tests.qemu_source.conftest import Sources

from qbprop.campaign.known import shipped_known
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.trace import read_trace

TRACES = sorted((Path(__file__).parents[2] / "src/qbprop/known_traces").glob("*.jsonl"))
PAGES = {entry.id: entry.document for entry in shipped_known()}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_bug_has_the_identity_that_it_has_on_debians_build(path: Path, sources: Sources) -> None:
    trace = read_trace(path)
    assert trace.header.finding is not None
    with Lab(find_binaries(str(sources.build)), timeout=2.0).session() as session:
        finding = play(session, trace.examples)
    assert finding is not None
    assert PAGES[finding.id] == PAGES[trace.header.finding.id]
