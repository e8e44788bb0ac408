"""The folder of a campaign: whose it is, and that what was killed leaves no half of a file."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qbprop.campaign.corpus import CORPUS
from qbprop.campaign.growth import Growth
from qbprop.campaign.summary import Summary
from qbprop.errors import EnvironmentProblem
from qbprop.report.campaign import write_report

HELD_SECONDS = 10.0
"""How long a campaign that was killed may take to let go of its folder."""

REPORT_SECONDS = 60.0
"""Time between two pages of a campaign that goes on."""


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Let no other campaign write into a folder meanwhile; what a killed one began there goes.

    :raises EnvironmentProblem: another campaign is at work there.
    """
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(folder, out)
        _sweep(out)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, out: Path) -> None:
    end = time.monotonic() + HELD_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            raise EnvironmentProblem(f"a campaign is at work in {out}; wait for it, or stop it")
        time.sleep(0.1)


def _sweep(out: Path) -> None:
    """Remove files and folders that were not finished: their names begin with a dot."""
    findings = out / "findings"
    for place in (out, out / CORPUS, findings, *findings.glob("[!.]*")):
        for leftover in place.glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


class Recorder:
    """Writes what the folder of a campaign of ``max_seconds`` tells, the page now and then."""

    def __init__(self, summary: Summary, out: Path, max_seconds: float) -> None:
        self._summary = summary
        self._out = out
        self._growth = Growth(out, max_seconds)
        self._next_report = summary.seconds + REPORT_SECONDS

    def write(self) -> None:
        """Write the summary as it is, a point of its growth and the page when it is time.

        :raises OSError: it cannot be written.
        """
        self._summary.write(self._out)
        self._growth.note(self._summary)
        if self._summary.seconds >= self._next_report:
            self._next_report = self._summary.seconds + REPORT_SECONDS
            write_report(self._out)


@contextmanager
def concluding(summary: Summary, out: Path, write: Callable[[], None]) -> Iterator[None]:
    """Write summary and report at the end of a campaign; one that an exception ends has failed.

    :raises EnvironmentProblem: the folder cannot be written.
    """
    try:
        try:
            yield
        except BaseException:
            summary.status = "failed"
            with suppress(OSError):
                write()
                write_report(out)
            raise
        write()
        write_report(out)
    except OSError as error:
        raise unwritable(out, error) from error


def unwritable(out: Path, error: OSError) -> EnvironmentProblem:
    """What to tell when a campaign's folder cannot be written any more."""
    return EnvironmentProblem(
        f"{error.filename or out}: {error.strerror or error}; what was found so far is kept; "
        f"when that is mended, `qbprop fuzz --resume {out}` goes on"
    )
