"""A finding is replayed on a fresh QEMU before it is reported; a racy one states its rate."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qbprop.campaign.book import Entry, Examples
from qbprop.campaign.reduction import reduce
from qbprop.campaign.simplification import simplify
from qbprop.errors import QbpropError
from qbprop.findings import Finding, HangFinding
from qbprop_model.operations import InvalidOperationError, Operation

TRIES = 3
"""Replays that must all show a finding, for it to count as sure; a hang, being slow, has one."""

RACY_TRIES = 20
"""Replays that tell the rate of one that is not."""

MISSED = 0.05
"""How often a shorter sequence may be given up although it shows a racy finding as often."""

PATIENCE = 8
"""Most replays of one shorter sequence of a racy finding."""

CONFIRM_SECONDS = 30.0
"""Time for all replays of one finding. One is always finished."""

Play = Callable[[Examples], Finding | None]
"""Performs examples on a QEMU: the finding that they end with, if any."""


@dataclass(frozen=True)
class Confirmation:
    """The examples to keep, what they showed last, and the share of replays that did."""

    examples: Examples
    finding: Finding
    rate: float


def confirm(
    entry: Entry, fresh: Play, reused: Play, seconds: float = CONFIRM_SECONDS
) -> Confirmation:
    """Replay what is known of a finding, alone and with what QEMU had done before.

    ``fresh`` plays on a new QEMU; ``reused`` may play on one that was reset, which is quicker.
    A sequence that shows the finding is made as short and simple as there is time for. What
    never comes back keeps its trace as it was met, and has the rate 0.
    """
    return _Confirming(entry, fresh, reused, time.monotonic() + seconds).run()


class _Confirming:
    def __init__(self, entry: Entry, fresh: Play, reused: Play, end: float) -> None:
        self._id = entry.record.id
        self._alone = entry.trace.examples
        self._history = entry.history
        self._last = entry.finding
        self._fresh = fresh
        self._reused = reused
        self._end = end
        self._tries = 1 if entry.record.kind == HangFinding.kind else TRIES

    def run(self) -> Confirmation:
        rate = self._rate(self._alone, self._tries)
        if rate == 1.0:
            return self._sure(self._alone, self._reused)
        if rate == 0.0 and self._history:
            whole = (*self._history, *self._alone)
            if self._shows(whole, self._fresh):
                return self._sure(whole, self._fresh)
        rate = self._rate(self._alone, RACY_TRIES)
        return self._racy(rate) if rate else Confirmation(self._alone, self._last, rate)

    def _sure(self, examples: Examples, play: Play) -> Confirmation:
        before = self._last
        for candidate in (self._simplified(examples, play), examples):
            if self._shows(candidate, self._fresh):
                return Confirmation(candidate, self._last, 1.0)
        return Confirmation(examples, before, self._rate(examples, RACY_TRIES))

    def _racy(self, rate: float) -> Confirmation:
        """Shorten what comes back in a share of the replays: each candidate has several."""
        before = self._last
        replays = min(PATIENCE, math.ceil(math.log(MISSED) / math.log(1 - rate)) if rate < 1 else 1)

        def patient(examples: Examples) -> Finding | None:
            shown = (self._shows(examples, self._reused) for _ in range(replays))
            return self._last if any(shown) else None

        shorter = self._simplified(self._alone, patient)
        if shorter != self._alone:
            rate_of_shorter = self._rate(shorter, RACY_TRIES)
            if rate_of_shorter:
                return Confirmation(shorter, self._last, rate_of_shorter)
        return Confirmation(self._alone, before, rate)

    def _simplified(self, examples: Examples, play: Play) -> Examples:
        """Drop whole examples, then operations, then what makes operations complicated."""

        def still(some: Sequence[tuple[Operation, ...]]) -> bool:
            try:
                return self._shows(tuple(some), play)
            except QbpropError:
                raise
            except Exception:  # noqa: BLE001 - what qbprop cannot perform is no variant
                return False

        kept = list(reduce(examples, still, self._expired))
        for i in range(len(kept)):

            def shows(operations: Sequence[Operation], i: int = i) -> bool:
                return still((*kept[:i], tuple(operations), *kept[i + 1 :]))

            kept[i] = reduce(kept[i], shows, self._expired)
            kept[i] = simplify(kept[i], shows, self._expired)
        return tuple(kept)

    def _rate(self, examples: Examples, tries: int) -> float:
        done = came_back = 0
        while done < tries and not (done and self._expired()):
            came_back += self._shows(examples, self._fresh)
            done += 1
        return came_back / done

    def _shows(self, examples: Examples, play: Play) -> bool:
        if not any(examples):
            return False
        try:
            finding = play(examples)
        except InvalidOperationError:
            return False
        if finding is None or finding.id != self._id:
            return False
        self._last = finding
        return True

    def _expired(self) -> bool:
        return time.monotonic() >= self._end
