"""A campaign on all cores: workers that do one share of it after the other.

A share is a campaign of its own, ``qbprop fuzz --seed …``, so that anybody can run it again alone.
Shares know what earlier ones have found, as a list of known findings. What a share leaves behind
is all that is taken from it; one whose process dies goes on where it was.
"""

import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from qbprop.campaign.database import catch_up, open_database
from qbprop.campaign.folder import Recorder, concluding
from qbprop.campaign.ledger import Ledger
from qbprop.campaign.memory import resident
from qbprop.campaign.progress import Progress, SilentProgress, describe, open_progress
from qbprop.campaign.rounds import derived_seed
from qbprop.campaign.runner import SEED_LIMIT, Options, open_summary, tell_qemu
from qbprop.campaign.signals import stopped_by_signals
from qbprop.campaign.summary import FindingRecord, Summary
from qbprop.campaign.watch import GRACE_SECONDS
from qbprop.campaign.workers import Ended, Share, Workers
from qbprop.errors import EnvironmentProblem, QbpropError
from qbprop.lab import Lab

SHARE_SECONDS = 120.0
"""Longest time of one share: what it found is known to the next ones."""

LEAST_SECONDS = 3.0
"""A share that would have less time is not begun."""

POLL_SECONDS = 0.5
"""Time between two looks at the shares under way."""

SLACK_SECONDS = 120.0
"""A share that ends so much later than it may hangs, and is killed."""

STOP_SECONDS = 20.0
"""Longest time from the wish to stop to the end of a share."""

ATTEMPTS = 3
"""How often a share is begun whose process dies."""


class SharedCampaign:
    """A campaign by workers, here or elsewhere.

    ``qemu``, ``cross`` and ``known`` are the user's options.
    """

    def __init__(
        self,
        lab: Lab,
        options: Options,
        console: Console,
        *,
        workers: Workers,
        qemu: str | None,
        cross: Sequence[str] = (),
        known: Path | None,
    ) -> None:
        self._lab = lab
        self.options = options
        self._console = console
        self._qemu = qemu
        self._cross = tuple(cross)
        self._known = known.read_text("utf-8") if known else ""
        self.workers = workers
        self._databases = tuple(workers.databases(options))
        self._database = open_database(self._databases, options.out, self._note)
        self._progress: Progress = SilentProgress()
        self._places = workers.places
        self.summary = open_summary(options, jobs=self._places)
        self._start = time.monotonic() - self.summary.seconds
        self._recorder = Recorder(self.summary, options.out, options.max_seconds)
        self.ledger = Ledger(options.out, self.summary, self._note)
        self._unfinished = self.ledger.unfinished()
        self._under_way: dict[Future[Ended], Share] = {}
        self._died: dict[int, int] = {}
        self._stop_asked = False

    def run(self) -> Summary:
        """Run it to its end; ``campaign.json`` then holds what is returned.

        :raises EnvironmentProblem: QEMU cannot be run, or there is no room for images.
        :raises QbpropError: qbprop itself failed; its text says where the details are.
        """
        summary = self.summary
        with concluding(summary, self.options.out, self._write), ExitStack() as stack:
            stack.enter_context(stopped_by_signals(self.stop))
            stack.callback(self.ledger.keep_all)
            self._write()
            self._look_at_qemu()
            self._progress = open_progress(self._console, self._describe, stack)
            stack.enter_context(self.workers)
            self._run()
            summary.status = "interrupted" if self._stop_asked else "finished"
        return summary

    def _look_at_qemu(self) -> None:
        with self._lab.driver() as driver:
            tell_qemu(self.summary, self._lab, driver, self.options)

    def _run(self) -> None:
        stop_at: float | None = None
        while True:
            catch_up(self._database, self._databases, self.options.out)
            self._places = self.workers.places
            while len(self._under_way) < self._places and self._goes_on():
                self._begin(
                    self._unfinished.pop(0) if self._unfinished else self.ledger.next_number()
                )
            if not self._under_way and not self._goes_on():
                return
            for future in self._wait():
                del self._under_way[future]
                self.end(future.result())
            if self._left() < -(GRACE_SECONDS + SLACK_SECONDS) and not self.workers.stopping:
                self._note(f"{len(self._under_way)} shares are lost with their workers")
                self.workers.stop()
            now = time.monotonic()
            if self.workers.stopping:
                stop_at = stop_at or now + STOP_SECONDS
                if now >= stop_at:
                    self.workers.kill()
            self.workers.pulse()
            self._write()
            self._progress.tick()

    def _wait(self) -> Iterable[Future[Ended]]:
        """The shares that end within a moment."""
        if not self._under_way:
            time.sleep(POLL_SECONDS)
        return wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED).done

    def _goes_on(self) -> bool:
        """Whether another share may begin; what one found that was cut short is worth its end."""
        if self.workers.stopping:
            return False
        enough = self._left() < LEAST_SECONDS or self._examples_left() == 0
        return bool(self._unfinished) or not enough

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _left(self) -> float:
        return self.options.max_seconds - self._seconds

    def _examples_left(self) -> int | None:
        most = self.options.max_examples
        return None if most is None else max(0, most - self.ledger.examples)

    def _begin(self, number: int) -> None:
        folder = self.ledger.begin(number, self._seconds)
        share = self.share(number)
        self._under_way[self.workers.submit(share, folder)] = share

    def share(self, number: int) -> Share:
        """A share that is to be begun now, or to go on."""
        before = Summary.read(self.ledger.folder(number))
        had = before.seconds if before else 0.0
        seconds = max(1.0, min(SHARE_SECONDS - had, self._left()))
        words = ["--max-time", f"{had + seconds:.0f}s", "--jobs", "1"]
        words += ["--profile", self.options.profile, "--no-canary"]
        if self._qemu is not None:
            words += ["--qemu", self._qemu]
        for qemu in self._cross:
            words += ["--cross", qemu]
        if (examples := self._examples_left()) is not None:
            its = before.statistics.examples if before else 0
            part = -(-examples // max(1, self._places))
            words += ["--max-examples", str(its + max(1, part))]
        if self.options.focus:
            words += ["--focus", ",".join(self.options.focus)]
        if self.options.stop_on_finding:
            words.append("--stop-on-finding")
        for place in self._databases:
            words += ["--database", place]
        return Share(
            number=number,
            seed=derived_seed(self.summary.seed, number) % SEED_LIMIT,
            words=tuple(words),
            known=self._known + "".join(map(_known, self.ledger.known)),
            seconds=seconds + GRACE_SECONDS + SLACK_SECONDS,
        )

    def end(self, ended: Ended) -> None:
        """Take over what a share leaves behind; let it go on when its process died."""
        number = ended.share.number
        summary = Summary.read(self.ledger.folder(number))
        if ended.code in (0, 1, 130) and summary is not None:
            self.ledger.count(number)
            if self.options.stop_on_finding and not all(f.known for f in self.ledger.known):
                self.workers.stop()
            return
        if ended.code == 2:
            problem = EnvironmentProblem if summary is None else QbpropError
            own = f"--resume {self.ledger.folder(number)}"
            said = ended.said.removeprefix("qbprop: ")
            raise problem(said.replace(own, f"--resume {self.options.out}"))
        if self.workers.stopping:
            return
        self._died[number] = self._died.get(number, 0) + 1
        if self._died[number] == ATTEMPTS:
            raise QbpropError(
                f"share {number} died {ATTEMPTS} times (exit code {ended.code}), and said last: "
                f"{ended.said or 'nothing'}"
            )
        why = ended.said if ended.too_large else f"exit code {ended.code}"
        self._note(f"a worker died ({why}); another goes on with its share")
        self._begin(number)

    def refresh(self) -> None:
        """Bring the summary up to date."""
        self.ledger.tell(self.summary)
        self.summary.look(self._seconds)
        busy = len(self._under_way)
        self.summary.activity = f"{busy} of {self._places} workers" if busy else ""

    def _note(self, text: str) -> None:
        self._progress.note(text)

    def _describe(self) -> list[str]:
        return describe(self.summary, self.options.max_seconds)

    def _write(self) -> None:
        told = len(self.summary.warnings)
        self.refresh()
        self.summary.memory = resident()
        for warning in self.summary.warnings[told:]:
            self._note(warning)
        self._recorder.write()

    def stop(self) -> None:
        """End the campaign in order, as its user wishes."""
        self._stop_asked = True
        self.workers.stop()


def _known(record: FindingRecord) -> str:
    """An entry for a list of known findings."""
    return f"\n[[finding]]\nid = {json.dumps(record.id)}\ntitle = {json.dumps(record.title)}\n"
