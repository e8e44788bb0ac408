"""A finding is replayed on a fresh QEMU before it is reported, made short, and certified."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qbprop.campaign.book import Entry
from qbprop.campaign.certificate import (
    REPLAYS,
    Certificate,
    Examples,
    Play,
    certify,
    one_less,
    replays_needed,
)
from qbprop.campaign.reduction import reduce, related
from qbprop.campaign.simplification import simplify
from qbprop.errors import QbpropError
from qbprop.findings import Finding, HangFinding
from qbprop_model.operations import InvalidOperationError, Operation, operation_name

TRIES = 3
"""Replays that must all show a finding, for it to count as sure; a hang, being slow, has one."""

HANG_REPLAYS = 3
"""Replays of a hang as it was met; each takes the whole of the time-out."""

CONFIRM_SECONDS = 30.0
"""Time for all replays of one finding. One is always finished."""

TRIES_SHARE = 0.1
"""The share of the time after which what came back once is not tried again before it is reduced."""

REDUCE_SHARE = 0.6
"""The share of the time after which nothing is made shorter any more."""


@dataclass(frozen=True)
class Confirmation:
    """The examples to keep, what they showed last, and how surely."""

    examples: Examples
    finding: Finding
    certificate: Certificate

    @property
    def rate(self) -> float:
        """The share of replays that showed the finding."""
        return self.certificate.rate


def confirm(
    entry: Entry,
    fresh: Play,
    reused: Play,
    seconds: float = CONFIRM_SECONDS,
    *,
    exact: Play | None = None,
    sensible: Callable[[Examples], bool] = lambda _: True,
    told: Callable[[str], None] = lambda _: None,
) -> Confirmation:
    """Replay what is known of a finding, alone and with what QEMU had done before.

    ``fresh`` plays on a new QEMU; ``reused`` may play on one that was reset, which is quicker.
    Both may take one crash for another; ``exact``, by default ``fresh``, does not.
    A sequence that shows the finding is made as short and simple as there is time for, and
    certified; only what is ``sensible`` is tried. What never comes back keeps its trace as it
    was met, and has the rate 0. ``told`` hears what is being done.
    """
    return _Confirming(entry, fresh, reused, exact or fresh, seconds, sensible, told).run()


def confirm_patiently(
    entry: Entry,
    confirmed: Confirmation,
    play: Play,
    told: Callable[[str], None] = lambda _: None,
) -> Confirmation:
    """What hasty replays have ``confirmed`` of a hang, if it is one for ``play``, which has time.

    Else the hang is told of as it was met: made simpler, it has become an operation that is slow,
    no more; or the hasty replays took one before it for a hang.
    """
    if confirmed.certificate.disagreed and play(confirmed.examples) is not None:
        return confirmed
    told("replaying it as it was met")
    examples = (entry.met.trace,)
    shown = [play(examples) for _ in range(HANG_REPLAYS)]
    same = [found for found in shown if found is not None and found.id == entry.record.id]
    return Confirmation(examples, (*same, entry.met)[0], Certificate(HANG_REPLAYS, len(same)))


class _Confirming:
    def __init__(
        self,
        entry: Entry,
        fresh: Play,
        reused: Play,
        exact: Play,
        seconds: float,
        sensible: Callable[[Examples], bool],
        told: Callable[[str], None],
    ) -> None:
        self._id = entry.record.id
        self._alone = entry.trace.examples
        self._history = entry.history
        self._last = entry.finding
        self._fresh = fresh
        self._reused = reused
        self._exact = exact
        self._sensible = sensible
        self._told = told
        now = time.monotonic()
        self._hurry_from = now + seconds * TRIES_SHARE
        self._reduce_until, self._end = now + seconds * REDUCE_SHARE, now + seconds
        self._tries = 1 if entry.record.kind == HangFinding.kind else TRIES

    def run(self) -> Confirmation:
        self._told("replaying it on a fresh QEMU")
        rate = self._rate(self._alone, self._tries, self._hurry_from)
        if rate == 1.0:
            return self._sure(self._alone, self._reused)
        if rate == 0.0 and self._history:
            whole = (*self._history, *self._alone)
            if self._shows(whole, self._fresh):
                return self._sure(whole, self._fresh)
        rate = self._rate(self._alone, REPLAYS, self._end)
        if rate:
            return self._racy(rate)
        return Confirmation(self._alone, self._last, Certificate(REPLAYS, 0))

    def _sure(self, examples: Examples, play: Play) -> Confirmation:
        simpler = self._simplified(examples, play)
        if simpler != examples and self._shows(simpler, self._exact):
            return self._certified(simpler)
        return self._certified(examples)

    def _racy(self, rate: float) -> Confirmation:
        """Shorten what comes back in a share of the replays: each candidate has several."""
        replays = replays_needed(rate)

        def patient(examples: Examples) -> Finding | None:
            shown = (self._shows(examples, self._reused) for _ in range(replays))
            return self._last if any(shown) else None

        shorter = self._simplified(self._alone, patient)
        if shorter != self._alone:
            confirmation = self._certified(shorter)
            if confirmation.rate:
                return confirmation
        return self._certified(self._alone)

    def _certified(self, examples: Examples) -> Confirmation:
        """Certify a trace; where an operation turns out to be spare, the shorter one."""
        while True:
            certificate, finding = certify(
                examples, self._id, self._fresh, self._expired, self._told
            )
            if self._id not in certificate.without or self._expired():
                return Confirmation(examples, finding or self._last, certificate)
            shorter = list(one_less(examples))[certificate.without.index(self._id)]
            examples = tuple(filter(None, shorter))

    def _simplified(self, examples: Examples, play: Play) -> Examples:
        """Drop whole examples, then operations, then what makes operations complicated."""

        def still(some: Sequence[tuple[Operation, ...]]) -> bool:
            try:
                return self._shows(tuple(some), play)
            except QbpropError:
                raise
            except Exception:  # noqa: BLE001 - what qbprop cannot perform is no variant
                return False

        self._told("making it shorter")
        kept = list(reduce(examples, still, self._late))
        for i in range(len(kept)):

            def shows(operations: Sequence[Operation], i: int = i) -> bool:
                return still((*kept[:i], tuple(operations), *kept[i + 1 :]))

            few = (some for some in related(kept[i]) if not self._late() and shows(some))
            kept[i] = self._reduced(next(few, kept[i]), shows)
            kept[i] = simplify(kept[i], shows, self._late)
        return tuple(kept)

    def _reduced(
        self, operations: tuple[Operation, ...], shows: Callable[[Sequence[Operation]], bool]
    ) -> tuple[Operation, ...]:
        """Fewer operations; the one that the finding is named after stays."""
        *others, last = operations
        if operation_name(last) != self._last.operation.partition(".")[0]:
            return reduce(operations, shows, self._late)
        return (*reduce(others, lambda some: shows((*some, last)), self._late), last)

    def _rate(self, examples: Examples, tries: int, until: float) -> float:
        done = came_back = 0
        while done < tries and not (done and time.monotonic() >= until):
            came_back += self._shows(examples, self._fresh)
            done += 1
        return came_back / done

    def _shows(self, examples: Examples, play: Play) -> bool:
        if not any(examples) or not self._sensible(examples):
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

    def _late(self) -> bool:
        return time.monotonic() >= self._reduce_until
