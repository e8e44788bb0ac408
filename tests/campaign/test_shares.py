"""What a campaign of several workers takes from their shares."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console
from tests.campaign.findings import count_finding, flushes, reply_finding

from qbprop.campaign.book import Book
from qbprop.campaign.certificate import Certificate
from qbprop.campaign.known import read_known
from qbprop.campaign.runner import Options
from qbprop.campaign.shares import Ended, Share, SharedCampaign, Workers
from qbprop.campaign.summary import Summary
from qbprop.errors import QbpropError
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.trace import Header, read_trace

COUNT, REPLY = count_finding().id, reply_finding().id


@pytest.fixture
def shared(tmp_path: Path) -> SharedCampaign:
    options = Options(out=tmp_path, max_seconds=1000, seed=5)
    quiet = Console(quiet=True)
    return SharedCampaign(Lab(find_binaries(None)), options, quiet, jobs=2, qemu=None, known=None)


def a_share(shared: SharedCampaign, number: int, began: float) -> tuple[Share, Summary, Book]:
    """A share that has been done, and found nothing yet."""
    share = replace(shared.share(number, 0), began=began)
    folder = share.folder / "campaign"
    folder.mkdir()
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=number)
    summary.statistics.steps = 10
    return share, summary, Book(folder, Header(seed=number))


def end(shared: SharedCampaign, share: Share, summary: Summary, book: Book, code: int = 1) -> None:
    summary.findings = book.records
    for each in summary.findings:
        each.count += 1
    summary.write(share.folder / "campaign")
    with ThreadPoolExecutor(1) as pool:
        shared.end(pool, Ended(share, code, "qbprop: so it is"))


def test_the_shortest_certified_trace_is_kept_and_all_is_counted(
    shared: SharedCampaign, tmp_path: Path
) -> None:
    for number, length, rate in ((0, 5, 1.0), (1, 3, 1.0), (2, 1, 0.5), (3, 4, None)):
        share, summary, book = a_share(shared, number, began=100.0 - 10 * number)
        trace = flushes(length)
        finding = count_finding(trace)
        book.meet(finding, history=(), stderr="", seconds=2.0, known=False)
        if rate is not None:
            certificate = Certificate(replays=2, disagreed=round(2 * rate))
            book.confirm(finding, (trace,), certificate)
        end(shared, share, summary, book)
    shared.refresh()
    (record,) = shared.summary.findings
    assert (record.id, record.operations, record.rate, record.count) == (COUNT, 3, 1.0, 4)
    assert record.seconds_to_find == 72.0
    assert not record.known
    assert read_trace(tmp_path / "findings" / COUNT / "trace.jsonl").length == 3
    assert shared.summary.statistics.steps == 40


def test_later_shares_know_what_was_found_and_it_stays_new(shared: SharedCampaign) -> None:
    share, summary, book = a_share(shared, 0, began=0.0)
    book.meet(count_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=False)
    book.meet(reply_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=True)
    end(shared, share, summary, book)
    share, summary, book = a_share(shared, 1, began=50.0)
    listed = read_known(share.folder / "known.toml")
    assert {each.id: each.title for each in listed} == {
        each.id: each.title for each in (count_finding(), reply_finding())
    }
    book.meet(count_finding(flushes(2)), history=(), stderr="", seconds=2.0, known=True)
    end(shared, share, summary, book, code=0)
    shared.refresh()
    assert {each.id: each.known for each in shared.summary.findings} == {COUNT: False, REPLY: True}


def test_what_a_worker_found_that_died_is_kept_but_its_steps_do_not_count(
    shared: SharedCampaign,
) -> None:
    share, summary, book = a_share(shared, 0, began=0.0)
    book.meet(count_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=False)
    shared.stop()
    end(shared, share, summary, book, code=-9)
    shared.refresh()
    assert [each.id for each in shared.summary.findings] == [COUNT]
    assert shared.summary.statistics.steps == 0


def test_a_share_is_asked_to_end_only_once() -> None:
    workers = Workers()
    process = mock.Mock()
    workers.running[Path("0.0")] = process
    workers.stop()
    workers.stop()
    process.send_signal.assert_called_once_with(signal.SIGINT)


def test_the_first_new_finding_stops_the_others_where_that_is_wanted(
    shared: SharedCampaign,
) -> None:
    shared.options = replace(shared.options, stop_on_finding=True)
    with mock.patch.object(Workers, "stop") as stop:
        for number, known in ((0, True), (1, False)):
            share, summary, book = a_share(shared, number, began=0.0)
            finding = (count_finding if known else reply_finding)(flushes(1))
            book.meet(finding, history=(), stderr="", seconds=2.0, known=known)
            end(shared, share, summary, book, code=0 if known else 1)
            assert stop.called == (not known)


def test_what_a_share_cannot_do_ends_the_campaign(shared: SharedCampaign) -> None:
    share, summary, book = a_share(shared, 0, began=0.0)
    with pytest.raises(QbpropError, match=r"^so it is$"):
        end(shared, share, summary, book, code=2)
