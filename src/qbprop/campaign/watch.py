"""Stands beside the machine: counts, notes findings, and says when to stop.

Hypothesis runs a round as one call. What a campaign has to say meanwhile it says by raising
a :class:`Halt`, which Hypothesis lets pass at once.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import NoReturn

from qbprop.autopsy import as_before
from qbprop.campaign.beside import Beside
from qbprop.campaign.book import Book
from qbprop.campaign.corpus import Corpus
from qbprop.campaign.job_states import in_flight, met
from qbprop.campaign.reach import reached
from qbprop.campaign.statistics import Statistics, is_partial_backup
from qbprop.findings import CrashFinding, Finding, HangFinding
from qbprop.hazards import Hazard
from qbprop.lab import check_room
from qbprop.qemu.driver import Driver
from qbprop.qemu.process import QemuGone
from qbprop.qemu.scratch import scratch_root
from qbprop.session import Accepts, Locate, Session, Step
from qbprop_model.jobs import Job
from qbprop_model.operations import InvalidOperationError, Operation, operation_name
from qbprop_model.rules import Rules

SHRINK_SECONDS = 20.0
"""Longest time that one finding is shrunk."""

SHRINK_EXAMPLES = 100
"""Examples in a row that make a finding no simpler, before its shrinking ends."""

GRACE_SECONDS = 60.0
"""Longest time after the end of the campaign's time for shrinking and replaying findings."""

TRACE_EVERY = 10
"""One example in so many is traced, which takes QEMU longer."""

HISTORY_EXAMPLES = 100
"""Examples after which QEMU is replaced, so that what a finding may need stays bounded."""

KNOWN_HANG_SECONDS = 2.0
"""Longest wait behind a hazard that is known to hang QEMU."""

QUICK_SECONDS = 0.5
"""Shortest time-out while a hang is shrunk."""

QUICK_FACTOR = 50
"""A reply that takes this many times the usual step is a hang while one is shrunk."""


class Halt(BaseException):
    """Ends a round between two steps."""


class Interrupted(KeyboardInterrupt):
    """The user, or a signal, ends the campaign."""


class Watch:
    """What happens between two steps of a campaign.

    ``tick`` is called often, to show and write how far it is. ``hidden`` are the ids of
    findings that do not fail an example any more; ``target`` is the one being shrunk, if any,
    and ``shrinking`` it as it was met.
    ``seconds`` are those that were used up before.
    ``corpus`` keeps what reaches something first, if there is one.
    ``halted`` tells that a :class:`Halt` ended the round. ``broken`` is what went wrong around
    the test or in qbprop itself, if anything did.
    """

    def __init__(
        self,
        statistics: Statistics,
        *,
        max_seconds: float,
        max_examples: int | None,
        tick: Callable[[], None],
        note: Callable[[str], None],
        seconds: float = 0.0,
    ) -> None:
        self.statistics = statistics
        self.hidden: set[str] = set()
        self.known_ids: frozenset[str] = frozenset()
        self.target: str | None = None
        self.shrinking: Finding | None = None
        self.activity = ""
        self.interrupted = False
        self.halted = False
        self.broken: Exception | None = None
        self._max_examples = max_examples
        self._tick = tick
        self._note = note
        self._start = time.monotonic() - seconds
        self._deadline = self._start + max_seconds
        self._shrink_until = self._deadline
        self._durations: deque[float] = deque(maxlen=1000)
        self._partial_backup = False
        self._bitmaps = 0
        self._jobs: dict[str, Job] = {}
        self._mirrors = False
        self._reached: set[tuple[str, ...]] = set()
        self.corpus: Corpus | None = None
        self._in_example = False
        self._fruitless = 0

    def _halt(self) -> NoReturn:
        self.halted = True
        raise Halt

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Whatever is neither a finding nor the user's wish ends the campaign as ``broken``.

        :raises Halt: something else went wrong inside.
        """
        try:
            yield
        except (Finding, InvalidOperationError):
            raise
        except Exception as error:  # noqa: BLE001 - breaks raises
            self.breaks(error)

    def breaks(self, error: Exception) -> NoReturn:
        """End the campaign: ``error`` is neither a finding nor the user's wish.

        :raises Halt: always.
        """
        self.broken, self.halted = error, True
        raise Halt from error

    def interrupt(self) -> NoReturn:
        """The user wants to stop, now.

        :raises Interrupted: always.
        """
        self.interrupted = True
        raise Interrupted

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._start

    @property
    def exhausted(self) -> bool:
        """Whether the campaign's time or examples are used up."""
        return time.monotonic() >= self._deadline or (
            self._max_examples is not None and self.statistics.examples >= self._max_examples
        )

    @property
    def grace(self) -> float:
        """Seconds left for replaying findings."""
        return max(0.0, self._deadline + GRACE_SECONDS - time.monotonic())

    def before_step(self) -> None:
        """Called before each operation.

        :raises Halt: the time is over, for the campaign or for shrinking.
        :raises Interrupted: the user wants to stop.
        """
        with self.guarding():
            self._tick()
        if self.interrupted:
            raise Interrupted
        if self.broken is not None:
            self._halt()
        if time.monotonic() >= (self._deadline if self.target is None else self._shrink_until):
            self._halt()

    def example_begins(self) -> None:
        """Called before each example.

        :raises Halt: there are enough of them, or the time is over, or shrinking gets nowhere.
        :raises Interrupted: the user wants to stop.
        """
        self.example_ends()
        if self.target is None and self.exhausted:
            self._halt()
        self.before_step()
        self._in_example = self.target is None
        if self.target is not None:
            self._fruitless += 1
            if self._fruitless > SHRINK_EXAMPLES:
                self._halt()

    def example_ends(self) -> None:
        """Count the example of before, if there was one."""
        if self._in_example:
            self.statistics.example_done(partial_backup=self._partial_backup, bitmaps=self._bitmaps)
        self._in_example, self._partial_backup, self._bitmaps = False, False, 0
        self._jobs, self._mirrors, self._reached = {}, False, set()

    @property
    def traces(self) -> bool:
        """Whether QEMU's trace events are wanted in the example that has begun."""
        return self._in_example and self.statistics.examples % TRACE_EVERY == 0

    def step_agreed(
        self, step: Step, session: Session, seconds: float, traced: Collection[str]
    ) -> None:
        """Called after each step that showed no disagreement, with the trace events it caused."""
        self._durations.append(seconds)
        if self.target is not None:
            self.statistics.shrink_steps += 1
            return
        refused = step.observed.refused is not None
        self.statistics.step(step.operation, refused=refused)
        jobs = session.world.jobs
        mirrors = bool(session.world.mirrors)
        self.statistics.in_flight += in_flight(self._jobs, jobs) or mirrors or self._mirrors
        cells = list(met(step.operation, self._jobs, refused=refused))
        name, refusal = operation_name(step.operation), step.expected.refusal
        events = [(name, event) for event in traced]
        reasons = [(name, refusal.reason.value)] if refusal is not None else []
        self.statistics.cells.update(cells)
        self.statistics.traced.update(events)
        self.statistics.reasons.update(reasons)
        self._reached.update(cells, events, reasons)
        if not refused:
            self.statistics.reach.update(reached(step.operation, step.expected, session.world))
        bitmaps = sum(len(node.bitmaps) for node in session.world.nodes.values())
        self._bitmaps = max(self._bitmaps, bitmaps)
        self._partial_backup |= is_partial_backup(step, session.world, self._jobs)
        self._jobs, self._mirrors = dict(jobs), mirrors

    def example_agreed(self, example: tuple[Operation, ...]) -> None:
        """Called when all checks at the end of an example have agreed."""
        if self._in_example and self.corpus is not None:
            self.corpus.keep(example, self._reached)

    def disagreed(self, finding: Finding, session: Session, book: Book) -> bool:
        """Note a finding; tell whether the example goes on as if it had not been.

        :raises Halt: there is no more room, so that QEMU's behaviour tells nothing.
        """
        hastily = self.shrinking is not None and self.shrinking.kind == HangFinding.kind
        if hastily and finding.kind == HangFinding.kind and finding.id != self.target:
            return True  # the time-out is short: it may be slow, no more
        with self.guarding():
            check_room(scratch_root())
            simpler = book.meet(
                finding,
                history=tuple(session.history),
                stderr=session.driver.process.all_stderr(),
                seconds=self.seconds,
                known=not finding.ids.isdisjoint(self.known_ids),
            )
        if self.target is not None:
            self.statistics.shrink_steps += 1
            if simpler and finding.id == self.target:
                self._fruitless = 0
            return finding.id != self.target
        book.entries[finding.id].record.count += 1
        if not finding.ids.isdisjoint(self.hidden):
            return True
        self._begin_shrinking(finding, session.driver)
        return False

    def quick_timeout(self, full: float) -> float:
        """The time-out while a hang is made simpler: ``full`` seconds, or fewer."""
        usual = median(self._durations) if self._durations else full
        return min(full, max(QUICK_SECONDS, QUICK_FACTOR * usual))

    def next_round(self, driver: Driver, timeout: float) -> None:
        """Look for something new again."""
        self.example_ends()
        if self.target is not None:
            self.hidden.add(self.target)
        self.target, self.shrinking, self.activity, self.halted = None, None, "", False
        driver.timeout = timeout

    def _begin_shrinking(self, finding: Finding, driver: Driver) -> None:
        now = time.monotonic()
        self.target, self.shrinking, self._fruitless = finding.id, finding, 0
        self._shrink_until = min(now + SHRINK_SECONDS, self._deadline + GRACE_SECONDS / 3)
        self.activity = f"shrinking {finding.title}"
        self._note(
            f"NEW {finding.id}  {finding.title} ({len(finding.trace)} operations), shrinking"
        )
        if finding.kind == HangFinding.kind:
            driver.timeout = self.quick_timeout(driver.timeout)


def patience(hazard: Hazard | None, known: Collection[str], full: float) -> float:
    """Seconds for an answer: ``full``, or fewer behind a hazard whose hang is ``known``."""
    if hazard is None or hazard.identity(HangFinding.kind) not in known:
        return full
    return min(full, KNOWN_HANG_SECONDS)


class WatchedSession(Session):
    """A session that tells the watch of every example and step, and the QEMUs ``beside`` it."""

    def __init__(
        self, driver: Driver, rules: Rules | None, watch: Watch, locate: Locate = lambda _: ()
    ) -> None:
        super().__init__(driver, rules)
        self._watch = watch
        self._autopsy = locate
        self.locate = self._located
        self.beside: Beside | None = None
        self._next: Operation | None = None
        self._since = time.monotonic()

    def _located(self, crash: CrashFinding) -> tuple[str, ...]:
        return as_before(self._watch.shrinking, self._autopsy)(crash)

    @property
    def attempted(self) -> tuple[Operation, ...]:
        """The example's operations, with the one that was not even begun."""
        done = tuple(self.trace)
        return done if self._next is None or done[-1:] == (self._next,) else (*done, self._next)

    def begin(self) -> None:
        """As :meth:`Session.begin`."""
        self._watch.example_begins()
        if len(self.history) >= HISTORY_EXAMPLES:
            self.driver.process.kill()
        with self._watch.guarding():
            super().begin()
            if self.beside is not None:
                self.beside.begin(follow=self._watch.target is None)
            with suppress(QemuGone):  # the first step says so
                self.driver.process.trace(on=self._watch.traces)
            self.driver.process.traced()

    def start(self, operation: Operation, accepts: Accepts = lambda *_: True) -> None:
        """As :meth:`Session.start`."""
        self._next = operation
        with self._watch.guarding():
            super().start(operation, accepts)

    def settle(self) -> Step | None:
        """As :meth:`Session.settle`."""
        with self._watch.guarding():
            return super().settle()

    def agreed(self, step: Step) -> None:
        """As :meth:`Session.agreed`."""
        now = time.monotonic()
        self._watch.step_agreed(step, self, now - self._since, self.driver.process.traced())
        if self.beside is not None:
            self.beside.step_agreed(step)
        self._since = now

    def patience(self, hazard: Hazard | None) -> float:
        """Less time where a hang would be no news."""
        return patience(hazard, self._watch.hidden, self.driver.timeout)

    def finish(self, *, thorough: bool = True) -> None:
        """As :meth:`Session.finish`."""
        self._watch.before_step()
        with self._watch.guarding():
            super().finish(thorough=thorough)
            if self.beside is not None:
                self.beside.finish(thorough=thorough)
            self._watch.example_agreed(tuple(self.trace))
