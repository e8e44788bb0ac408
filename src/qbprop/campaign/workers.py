"""A share of a campaign as a process of its own, and the workers on this machine."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from qbprop.campaign.memory import resident, show, worker_limit
from qbprop.campaign.runner import Options

KNOWN = "known.toml"
CAMPAIGN = "campaign"
LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What the process of a share is told.

    ``known`` is the list of known findings, ``words`` are the other options; it is killed after so
    many ``seconds``, which is long after it should have ended.
    """

    number: int
    seed: int
    words: tuple[str, ...]
    known: str
    seconds: float


@dataclass(frozen=True)
class Ended:
    """How the process of a share ended, and the last line that it said.

    ``too_large`` tells that it was killed for the memory that it took.
    """

    share: Share
    code: int
    said: str
    too_large: bool = False


class Workers(Protocol):
    """Whoever does the shares of a campaign; ``stopping`` once they are asked to end."""

    stopping: bool

    def __enter__(self) -> Self:
        """The workers themselves."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all shares."""

    @property
    def places(self) -> int:
        """How many shares can be under way."""

    def databases(self, options: Options) -> Iterator[str]:
        """Where shares keep examples."""

    def submit(self, share: Share, folder: Path) -> Future[Ended]:
        """Do a share, which leaves its campaign directory in a folder."""

    def pulse(self) -> None:
        """Give a sign of life; called often."""

    def stop(self) -> None:
        """Ask all shares to end in order."""

    def kill(self) -> None:
        """End all shares at once."""


class LocalWorkers:
    """Does shares on this machine, each by a process; one that takes too much memory is killed.

    ``limit`` are the bytes that each may take with its QEMU.
    """

    def __init__(self, jobs: int, limit: int | None = None) -> None:
        self.places = jobs
        self._limit = worker_limit(jobs) if limit is None else limit
        self._swollen: set[int] = set()
        self._pool = ThreadPoolExecutor(jobs)
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.stopping = False

    def __enter__(self) -> Self:
        """The workers themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all processes at once, and wait for that."""
        self.kill()
        self._pool.shutdown()

    def databases(self, options: Options) -> Iterator[str]:
        """Where shares keep examples: together, unless there is to be no database."""
        if options.database or options.seed is None:
            yield str((options.out / "examples").absolute())
        yield from options.database

    def submit(self, share: Share, folder: Path) -> Future[Ended]:
        """Do a share in a folder, as soon as a worker is free."""
        return self._pool.submit(self._run, share, folder)

    def _run(self, share: Share, folder: Path) -> Ended:
        """Do a share; its process ends with this one, whatever ends that."""
        with (folder / LOG).open("wb") as log:
            process = start(share, folder, log.fileno())
        self.running[share.number] = process
        if self.stopping:
            _interrupt(process)
        code = finish(process, share.seconds)
        del self.running[share.number]
        too_large = share.number in self._swollen
        self._swollen.discard(share.number)
        said = f"it took more than {show(self._limit)} of memory"
        return Ended(share, code, said if too_large else last_line(folder), too_large)

    def pulse(self) -> None:
        """Kill what takes too much memory; all else ends with the process that started it."""
        for number, process in list(self.running.items()):
            if resident(process.pid) > self._limit:
                self._swollen.add(number)
                process.kill()

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


def start(share: Share, folder: Path, log: int) -> subprocess.Popen[bytes]:
    """Start the process of a share, or let it go on; it never outlives the thread that does."""
    (folder / KNOWN).write_text(share.known, "utf-8")
    own = folder / CAMPAIGN
    if (own / "campaign.json").exists():
        where = ["--resume", str(own)]
    else:
        shutil.rmtree(own, ignore_errors=True)
        where = ["--out", str(own), "--seed", str(share.seed)]
    fuzz = (sys.executable, "-m", "qbprop", "fuzz", "--known", str(folder / KNOWN), "--json")
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *fuzz, *where, *share.words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of a process; it is killed when it takes longer than so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def last_line(folder: Path) -> str:
    """What the process of a share said last."""
    lines = (folder / LOG).read_text("utf-8", "replace").splitlines()
    return lines[-1] if lines else ""


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
