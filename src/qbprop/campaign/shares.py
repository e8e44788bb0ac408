"""A campaign on all cores: workers that do one share of it after the other.

A share is a campaign of its own, ``qbprop fuzz --seed …`` in a folder under ``OUT/shares``, so
that anybody can run it again alone. Shares know what earlier ones have found, as a list of known
findings. What a share leaves behind is all that is taken from it: one whose process dies is done
again, and only its findings count.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from qbprop.campaign.progress import Progress, SilentProgress, describe, open_progress
from qbprop.campaign.rounds import derived_seed
from qbprop.campaign.runner import SEED_LIMIT, Options, new_summary, tell_qemu
from qbprop.campaign.signals import stopped_by_signals
from qbprop.campaign.summary import FindingRecord, Summary
from qbprop.errors import EnvironmentProblem, QbpropError
from qbprop.lab import Lab

SHARE_SECONDS = 120.0
"""Longest time of one share: what it found is known to the next ones."""

LEAST_SECONDS = 3.0
"""A share that would have less time is not begun."""

POLL_SECONDS = 0.5
"""Time between two looks at the shares under way."""

STOP_SECONDS = 20.0
"""Longest time from the wish to stop to the end of a share."""

ATTEMPTS = 3
"""How often a share is begun whose process dies."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One share: ``attempt`` counts from 0, ``began`` is in seconds after the campaign's start."""

    number: int
    attempt: int
    began: float
    folder: Path
    words: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How the process of a share ended, and the last line that it said."""

    share: Share
    code: int
    said: str


@dataclass
class Workers:
    """Runs the processes of shares, and ends them."""

    running: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    stopping: bool = False

    def run(self, share: Share) -> Ended:
        """Do a share; its process ends with this one, whatever ends that."""
        with (share.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "qbprop", *share.words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.running[share.folder] = process
        if self.stopping:
            _interrupt(process)
        code = process.wait()
        del self.running[share.folder]
        lines = (share.folder / "log").read_text("utf-8", "replace").splitlines()
        return Ended(share, code, lines[-1] if lines else "")

    def stop(self) -> None:
        """Ask all shares to end in order, once: to be asked twice ends a share at once."""
        if self.stopping:
            return
        self.stopping = True
        for process in list(self.running.values()):
            _interrupt(process)

    def kill(self) -> None:
        """End all shares at once."""
        for process in list(self.running.values()):
            with suppress(ProcessLookupError):
                process.kill()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)


class SharedCampaign:
    """A campaign by ``jobs`` workers on this machine; ``qemu`` is the user's option."""

    def __init__(
        self,
        lab: Lab,
        options: Options,
        console: Console,
        *,
        jobs: int,
        qemu: str | None,
        known: Path | None,
    ) -> None:
        self._lab = lab
        self.options = options
        self._console = console
        self._jobs = jobs
        self._qemu = qemu
        self._known = known.read_text("utf-8") if known else ""
        self._workers = Workers()
        self._progress: Progress = SilentProgress()
        self._start = time.monotonic()
        self._found: dict[str, FindingRecord] = {}
        self._done: list[Summary] = []
        self._under_way: dict[Future[Ended], Share] = {}
        self._begun = 0
        self._stop_asked = False
        self.summary = new_summary(options, jobs=jobs)

    def run(self) -> Summary:
        """Run it to its end; ``campaign.json`` then holds what is returned.

        :raises EnvironmentProblem: QEMU cannot be run, or there is no room for images.
        :raises QbpropError: qbprop itself failed; its text says where the details are.
        """
        summary = self.summary
        try:
            with ExitStack() as stack:
                stack.enter_context(stopped_by_signals(self.stop))
                self._look_at_qemu()
                self._progress = open_progress(self._console, self._describe, stack)
                pool = stack.enter_context(ThreadPoolExecutor(self._jobs))
                stack.callback(self._workers.kill)
                self._run(pool)
            summary.status = "interrupted" if self._stop_asked else "finished"
        except BaseException:
            summary.status = "failed"
            raise
        finally:
            for share in self._under_way.values():
                self._take(share)
            self._write()
        return summary

    def _look_at_qemu(self) -> None:
        with self._lab.driver() as driver:
            tell_qemu(self.summary, self._lab, driver)

    def _run(self, pool: Executor) -> None:
        stop_at: float | None = None
        while True:
            while len(self._under_way) < self._jobs and self._goes_on():
                self._begin(pool, self.share(self._begun, 0))
                self._begun += 1
            if not self._under_way:
                return
            done, _ = wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                del self._under_way[future]
                self.end(pool, future.result())
            now = time.monotonic()
            if self._workers.stopping:
                stop_at = stop_at or now + STOP_SECONDS
                if now >= stop_at:
                    self._workers.kill()
            self._write()
            self._progress.tick()

    def _goes_on(self) -> bool:
        return (
            not self._workers.stopping
            and self._left() >= LEAST_SECONDS
            and self._examples_left() != 0
        )

    def _left(self) -> float:
        return self._start + self.options.max_seconds - time.monotonic()

    def _examples_left(self) -> int | None:
        most = self.options.max_examples
        if most is None:
            return None
        return max(0, most - sum(each.statistics.examples for each in self._summaries()))

    def share(self, number: int, attempt: int) -> Share:
        """A share that is to be begun now: its folder, and what its process is told."""
        folder = self.options.out / "shares" / f"{number}.{attempt}"
        folder.mkdir(parents=True)
        known = folder / "known.toml"
        known.write_text(self._known + "".join(map(_known, self._found.values())), "utf-8")
        seconds = max(1.0, min(SHARE_SECONDS, self._left()))
        words = ["fuzz", "--seed", str(derived_seed(self.summary.seed, number) % SEED_LIMIT)]
        words += ["--max-time", f"{seconds:.0f}s", "--profile", self.options.profile]
        words += ["--known", str(known), "--out", str(folder / "campaign"), "--json"]
        if self._qemu is not None:
            words += ["--qemu", self._qemu]
        if (examples := self._examples_left()) is not None:
            words += ["--max-examples", str(-(-examples // self._jobs))]
        if self.options.focus:
            words += ["--focus", ",".join(self.options.focus)]
        if self.options.stop_on_finding:
            words.append("--stop-on-finding")
        return Share(
            number=number,
            attempt=attempt,
            began=time.monotonic() - self._start,
            folder=folder,
            words=tuple(words),
        )

    def _begin(self, pool: Executor, share: Share) -> None:
        self._under_way[pool.submit(self._workers.run, share)] = share

    def end(self, pool: Executor, ended: Ended) -> None:
        """Take over what a share leaves behind; begin it again when its process died."""
        share = ended.share
        summary = self._take(share)
        if ended.code in (0, 1, 130) and summary is not None:
            self._done.append(summary)
            if self.options.stop_on_finding and not all(f.known for f in self._found.values()):
                self._workers.stop()
            shutil.rmtree(share.folder, ignore_errors=True)
            return
        if ended.code == 2:
            problem = EnvironmentProblem if summary is None else QbpropError
            raise problem(ended.said.removeprefix("qbprop: "))
        if self._workers.stopping:
            return
        if share.attempt + 1 == ATTEMPTS:
            raise QbpropError(
                f"share {share.number} died {ATTEMPTS} times (exit code {ended.code}); "
                f"what it said is in {share.folder / 'log'}"
            )
        self._progress.note(f"a worker died (exit code {ended.code}); its share is done again")
        self._begin(pool, self.share(share.number, share.attempt + 1))

    def _take(self, share: Share) -> Summary | None:
        """Keep the findings of a share that has ended, however it did; what it did."""
        summary = Summary.read(share.folder / "campaign")
        for record in summary.findings if summary else ():
            self._meet(record, share)
        return summary

    def _meet(self, record: FindingRecord, share: Share) -> None:
        """Keep a finding, with the shortest trace that was seen."""
        before = self._found.get(record.id)
        if before is None:
            self._progress.note(f"{'known' if record.known else 'NEW'} {record.id}  {record.title}")
        better = before is None or _worth(record) > _worth(before)
        seconds = share.began + record.seconds_to_find
        self._found[record.id] = replace(
            record if before is None or better else before,
            seconds_to_find=min(seconds, before.seconds_to_find) if before else seconds,
            count=record.count + (before.count if before else 0),
            known=before.known if before else record.known,
        )
        if better:
            folder = share.folder / "campaign" / "findings" / record.id
            _take_over(folder, self.options.out / "findings" / record.id)

    def _summaries(self) -> list[Summary]:
        running = (Summary.read(each.folder / "campaign") for each in self._under_way.values())
        return [*self._done, *(each for each in running if each is not None)]

    def refresh(self) -> None:
        """Bring the summary up to date."""
        summary, parts = self.summary, self._summaries()
        summary.seconds = time.monotonic() - self._start
        summary.commands = sum(each.commands for each in parts)
        summary.statistics = type(summary.statistics)()
        for each in parts:
            summary.statistics.add(each.statistics)
        summary.findings = list(self._found.values())

    def _describe(self) -> str:
        text = f"{len(self._under_way)} of {self._jobs} workers"
        return describe(self.summary, text, self.options.max_seconds)

    def _write(self) -> None:
        self.refresh()
        self.summary.write(self.options.out)

    def stop(self) -> None:
        """End the campaign in order, as its user wishes."""
        self._stop_asked = True
        self._workers.stop()


def _worth(record: FindingRecord) -> tuple[float, int]:
    """A trace that comes back more often is better, then a shorter one."""
    return record.rate or 0.0, -record.operations


def _take_over(source: Path, target: Path) -> None:
    """Copy a finding's folder, in the place of one that is there; each is whole at any time."""
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _known(record: FindingRecord) -> str:
    """An entry for a list of known findings."""
    return f"\n[[finding]]\nid = {json.dumps(record.id)}\ntitle = {json.dumps(record.title)}\n"
