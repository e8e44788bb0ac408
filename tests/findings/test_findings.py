"""Each bug of QEMU that is written down, performed: the day that QEMU behaves, its test fails."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from qbprop import hazards
from qbprop.campaign.known import shipped_known
from qbprop.campaign.only_known import try_known
from qbprop.findings import KINDS
from qbprop.hazards import Hazard
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import Features
from qbprop.replay import play
from qbprop.trace import read_trace
from qbprop_model.operations import AddDisk, DriveBackup, InvalidOperationError, Layer

ROOT = Path(__file__).parents[2]
TRACES = sorted((ROOT / "src/qbprop/known_traces").glob("*.jsonl"))
PAGES = {entry.id: entry.document for entry in shipped_known()}
"""Where each known finding is written down; a racy bug may show itself in several ways."""

ONE_SIDED = {"endless-resize"}
"""Traces of bugs that fewer operations show another side of."""

HANG_SECONDS = 2.0
"""How long QEMU may be silent here: it never comes back."""


def skip_where_unknown(path: Path, features: Features) -> None:
    """Skip the test of a trace on a QEMU that is not known to have its bug."""
    entries = (entry for entry in shipped_known() if entry.trace == path.stem)
    if not any(entry.concerns(features.version, features) for entry in entries):
        pytest.skip(f"QEMU {features.version} is not known to have this bug")


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_bug_is_still_there(path: Path, pytestconfig: pytest.Config) -> None:
    trace = read_trace(path)
    assert trace.header.finding is not None
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")), timeout=HANG_SECONDS)
    with lab.session() as session:
        skip_where_unknown(path, session.driver.features)
        finding = play(session, trace.examples)
    assert finding is not None, "QEMU behaves: narrow the versions in known.toml"
    assert PAGES[finding.id] == PAGES[trace.header.finding.id]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_its_identity_does_not_depend_on_how_the_guest_is_reached(
    path: Path, pytestconfig: pytest.Config
) -> None:
    named = read_trace(path).header.finding
    assert named is not None
    binaries = find_binaries(pytestconfig.getoption("--qemu"))
    with Lab(binaries, transport="hmp", timeout=HANG_SECONDS).session() as session:
        skip_where_unknown(path, session.driver.features)
        finding = play(session, read_trace(path).examples)
    assert finding is not None
    assert PAGES[finding.id] == PAGES[named.id]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_no_operation_can_be_left_out(path: Path, pytestconfig: pytest.Config) -> None:
    trace = read_trace(path)
    assert trace.header.finding is not None
    (operations,) = trace.examples
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")), timeout=HANG_SECONDS)
    with lab.session() as session:
        skip_where_unknown(path, session.driver.features)
        for index in range(len(operations)):
            shorter = operations[:index] + operations[index + 1 :]
            try:
                finding = play(session, [shorter])
            except InvalidOperationError:
                continue  # the others make no sense without it
            if finding is not None and finding.symptom.startswith(f"{finding.kind} after end"):
                continue  # the end of the example did what the operation does
            if path.stem in ONE_SIDED:
                assert finding is None or finding.id != trace.header.finding.id
            else:
                assert finding is None or PAGES.get(finding.id) != PAGES[trace.header.finding.id]


@pytest.mark.parametrize("beside", [0, 2])
def test_a_filter_whose_bitmap_is_exported_goes_at_the_end_of_an_example_too(
    beside: int, pytestconfig: pytest.Config
) -> None:
    """Backups of one disk that are beside it do not take the name of that crash."""
    path = next(path for path in TRACES if path.stem == "exported-filter")
    trace = read_trace(path)
    *steps, _ = trace.examples[0]
    crowd = [
        DriveBackup(
            node="drive1", target=f"target{i}", sync="full", job=f"job{i}", auto_finalize=False
        )
        for i in range(1, 1 + beside)
    ]
    operations = (AddDisk(node="drive1", layers=(Layer(size=512),)), *crowd, *steps)
    with Lab(find_binaries(pytestconfig.getoption("--qemu"))).session() as session:
        skip_where_unknown(path, session.driver.features)
        finding = play(session, [operations])
    assert finding is not None
    assert trace.header.finding is not None
    assert finding.id == trace.header.finding.id


def test_every_known_id_is_that_of_a_hazard_and_is_written_down() -> None:
    labels = [value for value in vars(hazards).values() if isinstance(value, Hazard)]
    ids = {KINDS[kind](hazard.label, "", "", "").id for hazard in labels for kind in hazard.kinds}
    for entry in shipped_known():
        assert entry.id in ids, entry.title
        assert (ROOT / entry.document).is_file(), entry.document


def test_no_id_is_listed_twice_for_one_qemu() -> None:
    for version in ("5.2.0", "7.2.22", "10.0.13", "11.1.3"):
        ids = [entry.id for entry in shipped_known() if entry.concerns(version)]
        assert len(ids) == len(set(ids))


def test_every_trace_belongs_to_an_entry_of_its_id() -> None:
    traces = {entry.trace: entry.id for entry in shipped_known() if entry.trace}
    assert set(traces) == {path.stem for path in TRACES}
    for path in TRACES:
        header = read_trace(path).header.finding
        assert header is not None
        assert header.id == traces[path.stem]


def test_each_known_finding_can_be_tried(pytestconfig: pytest.Config) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    for tried in try_known(lab, shipped_known()):
        assert tried.listed == (tried.outcome == "there"), tried.line()


def test_a_known_finding_that_is_fixed_is_said_so(pytestconfig: pytest.Config) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    other = [each for each in shipped_known() if each.trace == "failed-enable"]
    entry = replace(other[0], id="x", document="")
    (tried,) = try_known(lab, [entry])
    assert tried.outcome == "another"
    with mock.patch("qbprop.campaign.only_known.play", return_value=None):
        (tried,) = try_known(lab, other)
    assert tried.outcome == "fixed"
    assert tried.line().endswith("against the list")
