"""Findings on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.campaign.findings import count_finding, flushes, reply_finding

from qbprop.campaign.book import Book, Entry
from qbprop.campaign.certificate import Certificate
from qbprop.findings import Finding
from qbprop.trace import FindingHeader, Header, Trace, read_trace
from qbprop_model.operations import Flush, Operation


def meet(book: Book, trace: tuple[Operation, ...], *, known: bool = False) -> bool:
    finding = count_finding(trace)
    return book.meet(finding, history=(), stderr="x" * 9000 + "end", seconds=2.5, known=known)


def test_a_finding_is_written_when_it_is_met(tmp_path: Path) -> None:
    book = Book(tmp_path, Header(qemu_version="7.2.22", seed=3))
    assert meet(book, flushes(3))
    (folder,) = (tmp_path / "findings").iterdir()
    finding = count_finding()
    assert folder == book.folder(finding.id)
    about = json.loads((folder / "finding.json").read_text())
    assert about.pop("stderr").endswith("xend")
    assert about == {
        "id": finding.id,
        "kind": "count",
        "title": "count after flush: recording",
        "operation": "flush",
        "aspect": "recording",
        "symptom": "",
        "qemu_version": "7.2.22",
        "operations": 3,
        "seconds_to_find": 2.5,
        "expected": "1 bit",
        "observed": "2 bits",
        "bitmap": None,
        "image": "",
        "lost": [],
        "spare": [],
        "functions": [],
        "rate": None,
        "known": False,
        "certificate": None,
    }
    header = Header(
        qemu_version="7.2.22",
        seed=3,
        finding=FindingHeader(id=finding.id, kind="count", title="count after flush: recording"),
    )
    assert read_trace(folder / "trace.jsonl") == Trace((flushes(3),), header)


def test_a_shorter_trace_replaces_a_longer_one_and_never_the_reverse(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    meet(book, flushes(3))
    assert not meet(book, flushes(5))
    path = book.folder(count_finding().id) / "trace.jsonl"
    assert read_trace(path).length == 3
    assert meet(book, flushes(2))
    assert read_trace(path).length == 2
    assert book.records[0].operations == 2
    assert book.records[0].seconds_to_find == 2.5


def test_of_equal_length_the_simpler_one_is_kept(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    meet(book, (Flush(node="drive2 of many"),))
    meet(book, (Flush(node="drive0"),))
    assert book.entries[count_finding().id].trace.examples == ((Flush(node="drive0"),),)


def test_a_confirmed_trace_stays(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    meet(book, flushes(3))
    certificate = Certificate(20, 20, 2, ("passes", "makes no sense"))
    book.confirm(count_finding(flushes(3)), (flushes(1), flushes(3)), certificate)
    meet(book, flushes(2))
    path = book.folder(count_finding().id) / "trace.jsonl"
    assert read_trace(path).examples == (flushes(1), flushes(3))
    assert (book.records[0].operations, book.records[0].rate) == (4, 1.0)
    about = json.loads((path.parent / "finding.json").read_text())
    assert about["certificate"] == {
        "replays": 20,
        "disagreed": 20,
        "racy": False,
        "minimal": True,
        "without": ["passes", "makes no sense"],
    }


def test_what_is_kept_does_not_hold_on_to_where_it_was_met(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    finding = raised(flushes(3))
    book.meet(finding, history=(), stderr="", seconds=1, known=False)
    assert [each.__traceback__ for each in kept(book, finding.id)] == [None, None]
    book.meet(raised(flushes(2)), history=(), stderr="", seconds=1, known=False)
    assert [each.__traceback__ for each in kept(book, finding.id)] == [None, None]
    certificate = Certificate(20, 20, 2, ("passes", "makes no sense"))
    book.confirm(raised(flushes(1)), (flushes(1),), certificate)
    assert [each.__traceback__ for each in kept(book, finding.id)] == [None, None]
    assert [len(each.trace) for each in kept(book, finding.id)] == [1, 3]


def raised(trace: tuple[Operation, ...]) -> Finding:
    """A finding as it comes out of a step."""
    try:
        raise count_finding(trace)
    except Finding as finding:
        return finding


def kept(book: Book, identity: str) -> tuple[Finding, Finding]:
    entry = book.entries[identity]
    return entry.finding, entry.met


def test_a_campaign_that_goes_on_knows_what_was_found(tmp_path: Path) -> None:
    before = Book(tmp_path, Header(seed=3))
    meet(before, flushes(3))
    history = (flushes(5), flushes(6))
    finding = replace(reply_finding(flushes(2)), bitmap=("drive0", "b"), lost=((0, 512),))
    before.meet(finding, history=history, stderr="so", seconds=1.0, known=False)
    before.records[0].count = 7
    book = Book(tmp_path, Header(seed=3))
    book.resume(before.records[:1])
    assert list(book.entries) == [finding.id, count_finding().id]
    assert [(each.count, each.rate, each.seconds_to_find) for each in book.records] == [
        (1, None, 1.0),
        (7, None, 2.5),
    ]
    entry = book.entries[finding.id]
    assert (entry.history, entry.trace.examples, entry.stderr) == (history, (flushes(2),), "so")
    assert (entry.finding.id, entry.finding.bitmap) == (finding.id, ("drive0", "b"))
    assert (entry.finding.lost, entry.finding.trace) == (((0, 512),), flushes(2))
    book.confirm(finding, (flushes(1),), Certificate(20, 10))
    again = Book(tmp_path, Header(seed=3))
    again.resume(())
    assert again.entries[finding.id].record.rate == 0.5
    assert again.entries[finding.id].history == ()


def test_a_certificate_comes_last(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    meet(book, flushes(3))

    def look(entry: Entry, folder: Path) -> None:
        assert read_trace(folder / "trace.jsonl").length == entry.trace.length == 1
        assert json.loads((folder / "finding.json").read_text())["rate"] is None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.confirm(count_finding(), (flushes(1),), Certificate(20, 20), look)
    again = Book(tmp_path, Header())
    again.resume(())
    assert again.records[0].rate is None


def test_findings_are_told_apart(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    meet(book, flushes(1), known=True)
    assert book.meet(reply_finding(flushes(1)), history=(), stderr="", seconds=0, known=False)
    assert [(record.kind, record.known) for record in book.records] == [
        ("count", True),
        ("reply", False),
    ]
