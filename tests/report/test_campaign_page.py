"""The page of a campaign in a real headless Chromium, and what CI servers read."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.campaign.findings import count_finding, flushes, reply_finding
from tests.campaign.machines import ForgetsPartialCluster, run
from tests.cli.run import qbprop
from tests.report.chromium import in_chromium, needs_chromium

from qbprop.campaign.book import Book
from qbprop.campaign.folder import Recorder
from qbprop.campaign.growth import Growth, Point, read_growth
from qbprop.campaign.summary import CanaryRecord, Summary
from qbprop.campaign.verdict import verdict
from qbprop.report.campaign import write_report
from qbprop.trace import Header

LOOK = """
const text = selector => [...document.querySelectorAll(selector)].map(e => e.textContent.trim());
const look = () => ({
    first: document.body.firstElementChild.textContent,
    shade: getComputedStyle(document.getElementById("verdict")).color,
    headings: text("h2"),
    findings: [...document.querySelectorAll("section.finding")].map(each => each.id),
    operations: text("section.finding li"),
    links: [...document.querySelectorAll("a")].map(link => link.getAttribute("href")),
    commands: text("section.finding pre.paste"),
    known: text("h3 + ul li"),
    curves: Object.fromEntries([...document.querySelectorAll("svg")].map(svg =>
        [svg.dataset.curve, svg.getBBox().height])),
    cells: Object.fromEntries([...document.querySelectorAll("td")].map(cell =>
        [cell.dataset.cell, [cell.className, cell.textContent.trim()]])),
    skipped: text("#skipped li"),
    traced: text("#traced code"),
    reasons: text("#reasons code"),
    repeat: text("#repeat"),
});
"""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that has a finding, with its page as it was written at the end."""
    out = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 10)
        patched.setattr("qbprop.campaign.certificate.REPLAYS", 5)
        run(out, rules=ForgetsPartialCluster(), max_examples=25)
    return out


def nasty_campaign(out: Path, text: str) -> Summary:
    """A campaign of which everything that can is called ``text``."""
    book = Book(out, Header())
    for finding, known in ((count_finding(flushes(1)), False), (reply_finding(flushes(2)), True)):
        finding.expected = finding.observed = text
        book.meet(finding, history=(), stderr=text, seconds=1.0, known=known)
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile=text, seed=1, skipped=[text])
    summary.findings = book.records
    summary.write(out)
    return summary


@needs_chromium
def test_the_verdict_comes_first_and_all_is_there(campaign: Path, tmp_path: Path) -> None:
    page = (campaign / "report.html").read_text()
    assert re.findall(r"https?://", page) == []
    result = in_chromium(page, LOOK, tmp_path)
    assert result["problems"] == []
    seen = result["seen"]
    told = Summary.read(campaign)
    assert told is not None
    (finding,) = told.findings
    assert seen["first"] == "1 new finding"
    assert seen["shade"] == "rgb(176, 0, 32)"
    assert seen["findings"] == [finding.id]
    assert [text.split()[0] for text in seen["operations"]] == ["add_disk", "bitmap_add", "write"]
    assert seen["links"] == [f"findings/{finding.id}/report.html"]
    assert (campaign / seen["links"][0]).exists()
    folder = campaign / "findings" / finding.id
    assert seen["commands"][0].splitlines() == [
        f"qbprop replay {folder}/trace.jsonl",
        f"bash {folder}/reproduce.sh",
        f"git bisect run {folder}/bisect.sh",
    ]
    assert all(height > 0 for height in seen["curves"].values())
    assert set(seen["curves"]) == {"steps", "examples", "cells", "findings", "memory"}
    ok, refused = (
        told.statistics.cells["bitmap_clear", "none", each] for each in ("ok", "refused")
    )
    assert seen["cells"]["bitmap_clear none"] == ["", f"{ok} / {refused}"]
    assert seen["cells"]["bitmap_add none"] == ["half", f"{told.statistics.examples} / 0"]
    assert seen["cells"]["bitmap_add running"] == ["unreached", "never"]
    assert seen["traced"] == told.never_traced
    assert seen["reasons"] == told.statistics.never_refused
    if told.trace_events:
        assert "hbitmap_set" in set(told.trace_events) - set(seen["traced"])
        assert "mirror_start" in seen["traced"]
    assert seen["skipped"] == (told.skipped or ["nothing"])
    assert seen["repeat"] == [
        f"qbprop fuzz --seed 1 --profile qbprop-dev\nqbprop fuzz --resume {campaign}"
    ]


@needs_chromium
def test_the_step_by_step_page_that_it_links_to_opens(campaign: Path, tmp_path: Path) -> None:
    (page,) = campaign.glob("findings/*/report.html")
    result = in_chromium(
        page.read_text(), "const look = () => document.body.dataset.step;", tmp_path
    )
    assert result == {"seen": "3", "problems": []}


@needs_chromium
def test_what_qemu_says_is_text_and_never_mark_up(tmp_path: Path) -> None:
    nasty = "</script></li><script>problems.push('run')</script><b>&amp;"
    nasty_campaign(tmp_path, nasty)
    result = in_chromium(write_report(tmp_path).read_text(), LOOK, tmp_path)
    assert result["problems"] == []
    assert result["seen"]["skipped"] == [nasty]
    assert result["seen"]["known"] == [f"{reply_finding().id} {reply_finding().title}, met 0 times"]


def test_a_campaign_that_runs_has_a_page_when_it_is_asked_for(tmp_path: Path) -> None:
    nasty_campaign(tmp_path, "x")
    done = qbprop("report", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")
    page = (tmp_path / "report.html").read_text()
    assert "not yet replayed" in page
    done = qbprop("report", tmp_path, "-o", tmp_path / "findings" / "page.html")
    assert done.returncode == 0
    assert (tmp_path / "findings" / "junit.xml").exists()


def test_a_campaign_that_runs_writes_its_page_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.folder.REPORT_SECONDS", 5.0)
    summary = nasty_campaign(tmp_path, "x")
    recorder = Recorder(summary, tmp_path, 60.0)
    page = tmp_path / "report.html"
    for seconds, written in ((4.9, False), (5.0, True), (9.9, False), (10.0, True)):
        page.unlink(missing_ok=True)
        summary.seconds = seconds
        recorder.write()
        assert page.exists() == written


def test_ci_servers_are_told_of_new_findings(tmp_path: Path) -> None:
    nasty_campaign(tmp_path, "\x1b[31m\ud800 & <b>")
    write_report(tmp_path)
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "1"}
    campaign, new, known = suite
    assert campaign[0].tag == "error"
    assert (new[0].tag, new[0].get("type")) == ("failure", "count")
    assert new[0].text == "expected: \ufffd[31m\ufffd & <b>\nobserved: \ufffd[31m\ufffd & <b>\n"
    assert known[0].tag == "skipped"


def test_a_campaign_grows_and_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=1)
    growth = Growth(tmp_path, 5000)
    for summary.seconds in (0.0, 4.0, 10.0, 12.0, 20.5):
        summary.statistics.steps += 7
        summary.memory += 1 << 20
        growth.note(summary)
    with (tmp_path / "growth.jsonl").open("a") as log:
        log.write('{"seconds": 30')
    summary.status, summary.seconds = "finished", 31.0
    Growth(tmp_path, 5000).note(summary)
    points = read_growth(tmp_path)
    assert [(point.seconds, point.steps) for point in points] == [
        (0.0, 7),
        (10.0, 21),
        (20.5, 35),
        (31.0, 35),
    ]
    assert points[0] == Point(seconds=0.0, examples=0, steps=7, cells=0, findings=0, memory=1 << 20)


def test_verdicts() -> None:
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=1)
    assert "still running" in verdict(summary)
    summary.status = "failed"
    assert verdict(summary).startswith("failed")
    summary.canary = CanaryRecord(found=False, seconds=120.0, title="")
    assert verdict(summary).startswith("blind: ")
