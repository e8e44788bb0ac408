"""What a campaign of several workers takes from their shares."""

import io
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Self
from unittest import mock

import pytest
from rich.console import Console
from tests.campaign.findings import count_finding, flushes, reply_finding

from qbprop.campaign.book import Book
from qbprop.campaign.certificate import Certificate
from qbprop.campaign.runner import Options
from qbprop.campaign.shares import SharedCampaign
from qbprop.campaign.summary import Summary
from qbprop.campaign.workers import Ended, LocalWorkers, Share
from qbprop.errors import QbpropError
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.trace import Header, read_trace

COUNT, REPLY = count_finding().id, reply_finding().id


def new_campaign(out: Path, seed: int | None = 5) -> SharedCampaign:
    out.mkdir(exist_ok=True)
    options = Options(out=out, max_seconds=1000, seed=seed)
    quiet = Console(quiet=True)
    lab = Lab(find_binaries(None))
    return SharedCampaign(lab, options, quiet, workers=LocalWorkers(2), qemu=None, known=None)


@pytest.fixture
def shared(tmp_path: Path) -> SharedCampaign:
    return new_campaign(tmp_path)


def a_share(shared: SharedCampaign, number: int, began: float) -> tuple[Summary, Book]:
    """A share that has been done, and found nothing yet."""
    shared.ledger.begin(number, began)
    folder = shared.ledger.folder(number)
    folder.mkdir()
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=number)
    summary.statistics.steps = 10
    return summary, Book(folder, Header(seed=number))


def write(shared: SharedCampaign, number: int, summary: Summary, book: Book) -> None:
    summary.findings = book.records
    for each in summary.findings:
        each.count += 1
    summary.write(shared.ledger.folder(number))


def counts(shared: SharedCampaign) -> dict[str, int]:
    return {each.id: each.count for each in shared.summary.findings}


def end(shared: SharedCampaign, number: int, summary: Summary, book: Book, code: int = 1) -> None:
    write(shared, number, summary, book)
    shared.end(Ended(shared.share(number), code, "qbprop: so it is"))


def test_the_shortest_certified_trace_is_kept_and_all_is_counted(
    shared: SharedCampaign, tmp_path: Path
) -> None:
    for number, length, rate in ((0, 5, 1.0), (1, 3, 1.0), (2, 1, 0.5), (3, 4, None)):
        summary, book = a_share(shared, number, began=100.0 - 10 * number)
        trace = flushes(length)
        finding = count_finding(trace)
        book.meet(finding, history=(), stderr="", seconds=2.0, known=False)
        if rate is not None:
            certificate = Certificate(replays=2, disagreed=round(2 * rate))
            book.confirm(finding, (trace,), certificate)
        end(shared, number, summary, book)
    shared.refresh()
    (record,) = shared.summary.findings
    assert (record.id, record.operations, record.rate, record.count) == (COUNT, 3, 1.0, 4)
    assert record.seconds_to_find == 72.0
    assert not record.known
    assert read_trace(tmp_path / "findings" / COUNT / "trace.jsonl").length == 3
    assert shared.summary.statistics.steps == 40


def test_later_shares_know_what_was_found_and_it_stays_new(shared: SharedCampaign) -> None:
    summary, book = a_share(shared, 0, began=0.0)
    book.meet(count_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=False)
    book.meet(reply_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=True)
    end(shared, 0, summary, book)
    summary, book = a_share(shared, 1, began=50.0)
    for each in (count_finding(), reply_finding()):
        assert f'id = "{each.id}"\ntitle = "{each.title}"' in shared.share(1).known
    book.meet(count_finding(flushes(2)), history=(), stderr="", seconds=2.0, known=True)
    end(shared, 1, summary, book, code=0)
    shared.refresh()
    assert {each.id: each.known for each in shared.summary.findings} == {COUNT: False, REPLY: True}


def test_what_a_killed_campaign_did_counts_once_whenever_it_was_killed(
    shared: SharedCampaign, tmp_path: Path
) -> None:
    summary, book = a_share(shared, 0, began=0.0)
    book.meet(count_finding(flushes(2)), history=(), stderr="", seconds=2.0, known=False)
    write(shared, 0, summary, book)
    before = shared.ledger.folder(0).parent
    with mock.patch("qbprop.campaign.ledger.shutil.rmtree"):
        shared.ledger.count(0)
    assert before.exists()
    unfinished, book = a_share(shared, 1, began=10.0)
    book.meet(reply_finding(flushes(1)), history=(), stderr="", seconds=2.0, known=False)
    write(shared, 1, unfinished, book)
    for _ in range(2):
        again = new_campaign(tmp_path)
        assert again.ledger.unfinished() == [1]
        assert again.ledger.next_number() == 2
        again.refresh()
        assert counts(again) == {COUNT: 1, REPLY: 1}
        assert again.summary.statistics.steps == 20
        again.ledger.keep_all()
        assert {each.name for each in (tmp_path / "findings").iterdir()} == {COUNT, REPLY}
    new_campaign(tmp_path).ledger.count(1)
    last = new_campaign(tmp_path)
    last.refresh()
    assert last.summary.statistics.steps == 20
    assert counts(last) == {COUNT: 1, REPLY: 1}


def test_a_campaign_of_one_worker_becomes_the_first_share(tmp_path: Path) -> None:
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=5, seconds=70)
    summary.statistics.steps = 10
    book = Book(tmp_path, Header())
    book.meet(count_finding(flushes(2)), history=(), stderr="", seconds=2.0, known=False)
    summary.findings = book.records
    summary.write(tmp_path)
    shared = new_campaign(tmp_path)
    assert shared.ledger.unfinished() == [0]
    assert "71s" not in shared.share(0).words
    assert "120s" in shared.share(0).words
    shared.refresh()
    assert shared.summary.statistics.steps == 10
    assert [each.id for each in shared.summary.findings] == [COUNT]
    assert 70 <= shared.summary.seconds < 170
    shared.ledger.begin(0, 75.0)
    shared.ledger.count(0)
    shared.refresh()
    assert [each.seconds_to_find for each in shared.summary.findings] == [7.0]
    assert read_trace(tmp_path / "findings" / COUNT / "trace.jsonl").length == 2


def test_a_worker_that_died_is_replaced_a_few_times(shared: SharedCampaign) -> None:
    summary, book = a_share(shared, 0, began=0.0)
    with mock.patch.object(LocalWorkers, "submit") as submit:
        end(shared, 0, summary, book, code=-9)
        end(shared, 0, summary, book, code=-9)
        assert submit.call_count == 2
        with pytest.raises(QbpropError, match="died 3 times"):
            end(shared, 0, summary, book, code=-9)


class Silent:
    """Workers that never answer, until they are killed."""

    places = 1
    stopping = False

    def __init__(self) -> None:
        self.given: list[tuple[Share, Future[Ended]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def databases(self, _: Options) -> Iterator[str]:
        return iter(())

    def submit(self, share: Share, _: Path) -> Future[Ended]:
        self.given.append((share, Future()))
        return self.given[-1][1]

    def pulse(self) -> None:
        pass

    def stop(self) -> None:
        self.stopping = True

    def kill(self) -> None:
        for share, future in self.given:
            if not future.done():
                future.set_result(Ended(share, -9, "lost"))


def test_lost_workers_are_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRACE_SECONDS", "SLACK_SECONDS", "STOP_SECONDS", "LEAST_SECONDS"):
        monkeypatch.setattr(f"qbprop.campaign.shares.{name}", 0.0)
    workers = Silent()
    lab, options = Lab(find_binaries(None)), Options(out=tmp_path, max_seconds=2.0)
    quiet = Console(quiet=True)
    shared = SharedCampaign(lab, options, quiet, workers=workers, qemu=None, known=None)
    assert shared.run().status == "finished"
    assert len(workers.given) == 1
    assert workers.stopping


def test_a_share_is_asked_to_end_only_once() -> None:
    workers = LocalWorkers(1)
    process = mock.Mock()
    workers.running[0] = process
    workers.stop()
    workers.stop()
    process.send_signal.assert_called_once_with(signal.SIGINT)


def test_a_worker_that_takes_too_much_memory_is_ended_and_said_why(tmp_path: Path) -> None:
    lab = Lab(find_binaries(None))
    options = Options(out=tmp_path, max_seconds=60.0, seed=5)
    said = io.StringIO()
    workers = LocalWorkers(1, limit=20 << 20)
    shared = SharedCampaign(
        lab, options, Console(file=said), workers=workers, qemu=None, known=None
    )
    with pytest.raises(QbpropError, match=r"died 3 times .*more than 20 MiB of memory"):
        shared.run()
    assert said.getvalue().count("it took more than 20 MiB of memory") == 2
    assert shared.summary.memory > 0


def test_the_first_new_finding_stops_the_others_where_that_is_wanted(
    shared: SharedCampaign,
) -> None:
    shared.options = replace(shared.options, stop_on_finding=True)
    with mock.patch.object(LocalWorkers, "stop") as stop:
        for number, known in ((0, True), (1, False)):
            summary, book = a_share(shared, number, began=0.0)
            finding = (count_finding if known else reply_finding)(flushes(1))
            book.meet(finding, history=(), stderr="", seconds=2.0, known=known)
            end(shared, number, summary, book, code=0 if known else 1)
            assert stop.called == (not known)


def test_what_a_share_cannot_do_ends_the_campaign(shared: SharedCampaign) -> None:
    summary, book = a_share(shared, 0, began=0.0)
    with pytest.raises(QbpropError, match=r"^so it is$"):
        end(shared, 0, summary, book, code=2)
