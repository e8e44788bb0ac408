"""Workers on other machines: those of a Dask scheduler, through its executor interface."""

import io
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from zipfile import ZIP_DEFLATED, ZipFile

from qbprop.campaign.database import SCHEMES
from qbprop.campaign.runner import Options
from qbprop.campaign.workers import CAMPAIGN, LOG, Ended, Share, last_line, start
from qbprop.errors import EnvironmentProblem
from qbprop.lab import scratch_folder

CONNECT_SECONDS = 10.0
"""Longest wait for the scheduler."""

PULSE_SECONDS = 30.0
"""A share ends when its campaign has given no sign of life for so long."""

LOOK_SECONDS = 0.5
"""Time between two looks of a worker at its share."""

STOP = -1
"""The pulse that tells shares to end in order."""

T = TypeVar("T")


class ClusterWorkers:
    """Does shares on whatever workers the scheduler at an address has at a time.

    Each share has a worker's thread to itself. Dask does the share of a worker that is lost again
    on another one.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, Variable
        except ImportError as error:
            raise EnvironmentProblem(
                "--cluster needs Dask: pip install 'qbprop[cluster]'"
            ) from error
        self._address = address
        self._client: Any = self._ask(
            lambda: Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        )
        self._executor = self._client.get_executor(pure=False)
        self._name = f"qbprop-{uuid.uuid4().hex}"
        self._variable = Variable(self._name, client=self._client)
        self._beats = 0
        self.stopping = False
        self.pulse()

    def __enter__(self) -> Self:
        """The workers themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell all shares to end; do not wait for it."""
        self.stop()
        with suppress(EnvironmentProblem):
            self.pulse()
        self._client.close()

    def _ask(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvironmentProblem(
                f"the scheduler at {self._address} does not answer ({error}); "
                "start one with `dask scheduler`, or give another --cluster"
            ) from error

    @property
    def places(self) -> int:
        """How many shares can be under way, as workers join and leave."""
        threads: dict[str, int] = self._ask(self._client.nthreads)
        return sum(threads.values())

    def databases(self, options: Options) -> Iterator[str]:
        """Where shares keep examples: where all machines can."""
        return (place for place in options.database if place.startswith(SCHEMES))

    def submit(self, share: Share, folder: Path) -> Future[Ended]:
        """Do a share; what it leaves behind comes into a folder here."""
        done: Future[Ended] = Future()

        def arrived(result: Future[tuple[int, str, bytes]]) -> None:
            try:
                code, said, packed = result.result()
                _unpack(packed, folder)
            except Exception as error:  # noqa: BLE001 - whatever it is, the share is not done
                code, said = -signal.SIGKILL, f"{type(error).__name__}: {error}"
            done.set_result(Ended(share, code, said))

        before = _pack(folder)
        self._executor.submit(perform, share, before, self._name).add_done_callback(arrived)
        return done

    def pulse(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        self._ask(lambda: self._variable.set(STOP if self.stopping else self._beats))

    def stop(self) -> None:
        """Ask all shares to end in order."""
        self.stopping = True

    def kill(self) -> None:
        """Wait for no share any more; without a pulse they end."""
        self._executor.shutdown(wait=False)


def perform(share: Share, before: bytes, name: str) -> tuple[int, str, bytes]:
    """Do a share, on a worker: its exit code, what it said last, and its folder.

    ``before`` is the folder of a share that goes on, ``name`` that of the campaign's pulse.
    """
    with scratch_folder() as folder:
        _unpack(before, folder)
        with (folder / LOG).open("wb") as log:
            process = start(share, folder, log.fileno())
        try:
            code = _finish(process, share.seconds, name)
        finally:
            process.kill()
            process.wait()
        return code, last_line(folder), _pack(folder)


def _finish(process: subprocess.Popen[bytes], seconds: float, name: str) -> int:
    """The exit code of a process that is asked to end when its campaign says so, or is gone."""
    from distributed import Variable

    pulse = Variable(name)
    end = time.monotonic() + seconds
    beat, alive_until, asked = STOP, time.monotonic() + PULSE_SECONDS, False
    while (code := process.poll()) is None and time.monotonic() < min(end, alive_until):
        last, beat = beat, pulse.get(timeout=PULSE_SECONDS)
        if beat != last or beat == STOP:
            alive_until = time.monotonic() + PULSE_SECONDS
        if beat == STOP and not asked:
            process.send_signal(signal.SIGINT)
            asked = True
        time.sleep(LOOK_SECONDS)
    return -signal.SIGKILL if code is None else code


def _pack(folder: Path) -> bytes:
    """The campaign directory in the folder of a share, or nothing where there is none."""
    if not (folder / CAMPAIGN / "campaign.json").exists():
        return b""
    packed = io.BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for path in sorted((folder / CAMPAIGN).rglob("*")):
            archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    """Put a campaign directory in the place of the one in a folder, as a whole."""
    if not packed:
        return
    fresh = folder / f".{CAMPAIGN}"
    shutil.rmtree(fresh, ignore_errors=True)
    with ZipFile(io.BytesIO(packed)) as archive:
        for member in archive.infolist():
            Path(archive.extract(member, fresh)).chmod(member.external_attr >> 16)
    shutil.rmtree(folder / CAMPAIGN, ignore_errors=True)
    (fresh / CAMPAIGN).rename(folder / CAMPAIGN)
    fresh.rmdir()
