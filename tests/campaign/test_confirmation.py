"""What a finding's replays on a fresh QEMU tell, with a QEMU that is made up."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from tests.campaign.findings import count_finding, flushes, reply_finding

from qbprop.campaign.book import Book, Entry
from qbprop.campaign.certificate import REPLAYS, Certificate, Examples, Play
from qbprop.campaign.confirmation import Confirmation, confirm, confirm_patiently
from qbprop.findings import Finding
from qbprop.trace import Header
from qbprop_model.operations import InvalidOperationError

NEEDED = flushes(6)[1]
OTHER = flushes(6)[3]
BEFORE = flushes(9)[8]


def entry_of(folder: Path, history: Examples = ()) -> Entry:
    book = Book(folder, Header())
    book.meet(count_finding(flushes(6)), history=history, stderr="", seconds=1.0, known=False)
    (entry,) = book.entries.values()
    return entry


def replayed(entry: Entry, play: Play, seconds: float = 20) -> Confirmation:
    return confirm(entry, play, play, seconds)


def shown_if(condition: Callable[[Examples], bool]) -> Callable[[Examples], Finding | None]:
    return lambda examples: count_finding(examples[-1]) if condition(examples) else None


def test_a_sure_finding_is_reduced_to_what_it_needs(tmp_path: Path) -> None:
    play = shown_if(lambda examples: {NEEDED, OTHER} <= set(examples[-1]))
    confirmed = replayed(entry_of(tmp_path), play)
    assert confirmed.rate == 1.0
    assert confirmed.examples == ((NEEDED, OTHER),)
    assert confirmed.finding.trace == (NEEDED, OTHER)


def test_a_hang_that_has_become_a_slow_operation_is_kept_as_it_was_met(tmp_path: Path) -> None:
    book = Book(tmp_path, Header())
    for trace in (flushes(6), flushes(3)):
        book.meet(count_finding(trace), history=(), stderr="", seconds=1.0, known=False)
    (entry,) = book.entries.values()
    assert entry.trace.examples == (flushes(3),)
    finding = count_finding(flushes(3))
    sure = Confirmation((flushes(3),), finding, Certificate(REPLAYS, REPLAYS))
    turns = cycle([False, True, False, True])
    shown = confirm_patiently(entry, sure, shown_if(lambda _: next(turns)))
    assert shown.examples == (flushes(6),)
    assert (shown.certificate.disagreed, shown.certificate.replays) == (2, 3)
    never = confirm_patiently(entry, sure, shown_if(lambda _: False))
    assert never.rate == 0.0
    assert never.finding.trace == flushes(6)
    assert confirm_patiently(entry, sure, shown_if(lambda _: True)) is sure


def test_a_hang_that_hasty_replays_never_get_to_is_kept_as_it_was_met(tmp_path: Path) -> None:
    unseen = Confirmation((flushes(6),), count_finding(flushes(6)), Certificate(REPLAYS, 0))
    patient = confirm_patiently(entry_of(tmp_path), unseen, shown_if(lambda _: True))
    assert patient.rate == 1.0


def test_a_finding_that_needs_history_keeps_the_examples_it_needs(tmp_path: Path) -> None:
    history = (flushes(3), (OTHER, BEFORE), flushes(2))

    def needs_both(examples: Examples) -> bool:
        return any(BEFORE in e for e in examples[:-1]) and NEEDED in examples[-1]

    confirmed = replayed(entry_of(tmp_path, history), shown_if(needs_both))
    assert confirmed.examples == ((BEFORE,), (NEEDED,))
    assert confirmed.rate == 1.0


def test_a_racy_finding_states_its_rate_and_is_reduced_to_what_it_needs(tmp_path: Path) -> None:
    turns = cycle([False, True, False, False])

    def now_and_then(examples: Examples) -> bool:
        return next(turns) and {NEEDED, OTHER} <= set(examples[-1])

    confirmed = replayed(entry_of(tmp_path), shown_if(now_and_then))
    assert confirmed.examples == ((NEEDED, OTHER),)
    assert confirmed.rate == pytest.approx(0.25, abs=1 / REPLAYS)


def test_a_racy_finding_that_only_a_reused_qemu_shows_shorter_keeps_its_trace(
    tmp_path: Path,
) -> None:
    turns = cycle([False, True])
    fresh = shown_if(lambda examples: next(turns) and len(examples[-1]) == 6)
    confirmed = confirm(entry_of(tmp_path), fresh, shown_if(lambda _: True))
    assert confirmed.examples == (flushes(6),)
    assert confirmed.rate == pytest.approx(0.5, abs=1 / REPLAYS)


def test_a_finding_that_never_comes_back_is_kept(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, history=(flushes(2),))
    confirmed = replayed(entry, shown_if(lambda _: False))
    assert confirmed.examples == (flushes(6),)
    assert confirmed.rate == 0.0


def test_another_finding_is_not_this_one(tmp_path: Path) -> None:
    confirmed = replayed(entry_of(tmp_path), lambda examples: reply_finding(examples[-1]))
    assert confirmed.rate == 0.0
    assert confirmed.finding.kind == "count"


def test_what_the_model_cannot_judge_is_no_reduction(tmp_path: Path) -> None:
    def play(examples: Examples) -> Finding | None:
        if len(examples[-1]) < 6:
            raise InvalidOperationError("meaningless")
        return count_finding(examples[-1])

    confirmed = replayed(entry_of(tmp_path), play)
    assert confirmed.examples == (flushes(6),)
    assert confirmed.rate == 1.0


def test_without_time_it_is_replayed_and_not_reduced(tmp_path: Path) -> None:
    calls = []

    def play(examples: Examples) -> Finding | None:
        calls.append(examples)
        return count_finding(examples[-1])

    confirmed = replayed(entry_of(tmp_path), play, seconds=0)
    assert len(calls) <= 3
    assert confirmed.rate == 1.0
    assert confirmed.examples == (flushes(6),)


def test_what_a_reused_qemu_shows_is_kept_only_if_a_fresh_one_does(tmp_path: Path) -> None:
    fresh = shown_if(lambda examples: len(examples[-1]) == 6)
    reused = shown_if(lambda _: True)
    confirmed = confirm(entry_of(tmp_path), fresh, reused)
    assert confirmed.examples == (flushes(6),)
    assert confirmed.rate == 1.0
