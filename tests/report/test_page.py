"""A finding's page in a real headless Chromium."""

import json
import re
from pathlib import Path

import pytest
from tests.cli.run import qbprop
from tests.report.chromium import in_chromium, needs_chromium

from qbprop.campaign.book import Book
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.report.page import render
from qbprop.report.record import Record, StepView, record
from qbprop.trace import Header, read_trace, write_trace

TRACES = Path(__file__).parents[2] / "src/qbprop/known_traces"
PLAY = """
const seen = [];
const strips = () => [...document.querySelectorAll("svg")].map(svg => ({
    disk: svg.dataset.disk, bitmap: svg.dataset.bitmap, job: svg.dataset.job,
    ranges: [...svg.querySelectorAll("rect")].map(rect =>
        [rect.getAttribute("class"), Number(rect.dataset.start), Number(rect.dataset.end)]),
}));
const note = () => seen.push({
    step: document.body.dataset.step,
    selected: document.querySelector("li.selected").dataset.step,
    slider: document.getElementById("slider").value,
    strips: strips(),
    exchange: document.getElementById("exchange").textContent,
});
const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
const look = () => {
    note();
    for (let i = 0; i < 9; i++) press("ArrowLeft");
    note();
    press("ArrowRight");
    note();
    const slider = document.getElementById("slider");
    slider.value = slider.max;
    slider.dispatchEvent(new Event("input"));
    note();
    document.querySelector("#steps li").click();
    note();
    return seen;
};
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """The folder of a finding, as a campaign writes it."""
    trace = read_trace(TRACES / "always-undone.jsonl")
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    with lab.session() as session:
        session.explain = True
        finding = play(session, trace.examples)
    if finding is None:
        pytest.skip("this QEMU does not have the bug")
    book = Book(tmp_path_factory.mktemp("campaign"), Header())
    book.meet(finding, history=(), stderr="", seconds=1.0, known=False)
    return book.folder(finding.id)


@needs_chromium
def test_the_page_opens_at_the_disagreement_and_steps(folder: Path, tmp_path: Path) -> None:
    assert qbprop("report", folder).returncode == 0
    page = (folder / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    result = in_chromium(page, PLAY, tmp_path)
    assert result["problems"] == []
    seen = result["seen"]
    assert [each["step"] for each in seen] == ["3", "1", "2", "3", "1"]
    assert [each["selected"] for each in seen] == ["2", "0", "1", "2", "0"]
    assert [each["slider"] for each in seen] == ["2", "0", "1", "2", "0"]
    assert "Transaction aborted using Abort action" in seen[0]["exchange"]
    assert "block-dirty-bitmap-add" in seen[2]["exchange"]


@needs_chromium
def test_the_differing_clusters_are_those_of_finding_json(folder: Path, tmp_path: Path) -> None:
    about = json.loads((folder / "finding.json").read_text())
    assert about["bitmap"] == ["drive0", "bitmap0"]
    assert about["spare"] == [[0, 65536]]
    assert qbprop("report", folder, "-o", tmp_path / "page").returncode == 0
    result = in_chromium((tmp_path / "page").read_text(), PLAY, tmp_path)
    (strip,) = [s for s in result["seen"][0]["strips"] if s.get("bitmap") == "bitmap0"]
    assert strip["disk"] == "drive0"
    wrong = [[start, end] for kind, start, end in strip["ranges"] if kind in ("lost", "spare")]
    assert wrong == about["lost"] + about["spare"]
    before = [s for s in result["seen"][2]["strips"] if s.get("bitmap") == "bitmap0"]
    assert before[0]["ranges"] == []


@needs_chromium
def test_what_qemu_says_is_text_and_never_mark_up(tmp_path: Path) -> None:
    nasty = "</script><script>problems.push('run')</script><b>&amp;"
    step = StepView(1, nasty, nasty, agreed=True, exchange=[(nasty, nasty)], jobs=[], disks=[])
    result = in_chromium(render(Record(nasty, [step]), nasty), PLAY, tmp_path)
    assert result["problems"] == []
    assert result["seen"][0]["exchange"] == nasty * 2


def test_wrong_bytes_and_a_crash_are_recorded(pytestconfig: pytest.Config) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    with lab.session() as session:
        if not session.driver.version.startswith("7.2."):
            pytest.skip("the bugs are those of QEMU 7.2")
        contents = record(session, read_trace(TRACES / "compressed-reuse.jsonl").examples)
        crash = record(session, read_trace(TRACES / "merge-of-nothing.jsonl").examples)
    assert [step.agreed for step in contents.steps] == [True, True, True, True, False]
    (disk,) = contents.steps[-1].disks
    assert disk.wrong
    assert 65536 <= disk.wrong[0][0] < 131072
    assert crash.steps[-1].outcome == "no answer"
    assert not crash.steps[-1].agreed


def test_a_folder_without_a_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    done = qbprop("report", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    write_trace(tmp_path / "trace.jsonl", read_trace(TRACES / "failed-enable.jsonl"))
    assert qbprop("report", tmp_path).returncode == 0
