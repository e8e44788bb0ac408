"""One QEMU process: launched with nothing in it but a monitor, watched, and ended for certain.

QEMU runs in a folder of its own, so that commands name images by plain file names. It never
outlives the Python process that launched it, whatever ends that.
"""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from qbprop.errors import EnvironmentProblem
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.features import Features, probe
from qbprop.qemu.monitor import Command, Error, EventFlood, Monitor, QemuDied, QemuGone, QemuSilent
from qbprop.qemu.patience import patiently

__all__ = ["EventFlood", "QemuDied", "QemuGone", "QemuProcess", "QemuSilent"]

LAUNCH_SECONDS = 20.0
"""Longest time from the start of the program to its greeting; it is 0.05 s on an idle machine."""

EXIT_SECONDS = 2.0
"""Longest time from a lost connection to the exit code."""

KILL_SECONDS = 20.0
"""Longest time from SIGKILL to the end of the process."""

LOG_LIMIT = 1 << 20
"""Bytes read at once from one of QEMU's outputs: the last ones, when there are more."""

ROOM = 1 << 20
"""Bytes that must be free in the folder for a launch to make sense."""


TRACE = "qemu.trace"
"""The file that QEMU writes its trace events into."""

TRACED = tuple(
    f"{family}_*"
    for family in (
        *("backup", "bdrv", "blk", "block_copy", "commit"),
        *("hbitmap", "job", "mirror", "qcow2", "stream"),
    )
)
"""The trace events of the block layer, its bitmaps and jobs."""

_EVENT = re.compile(r"^(?:\d+@[\d.]+:)?(\w+) (?:job .*\((\w+)-->(\w+)\)$)?", re.MULTILINE)
"""A line of trace; before QEMU 6.2 the process and the time stand before the event's name.

That of a job's transition ends with the states.
"""

_HINT = re.compile(
    r"^Try block-dirty-bitmap-remove to delete this bitmap from disk\n?", re.MULTILINE
)
"""What follows a complaint about an inconsistent bitmap; 5.2 keeps it back for its next words."""

_TERMINATED = re.compile(r"^\S+: terminating on signal 15 from pid .*\n", re.MULTILINE)
"""What QEMU says when it is told by SIGTERM to end."""


class QemuProcess:
    """A running QEMU, its monitor and its outputs; as a context manager it is killed at the end.

    ``timeout`` (seconds) is the monitor's. The files ``qemu.stdout``, ``qemu.stderr`` and
    ``qemu.trace`` in the folder are those of the last launch. A system emulator makes its standard
    output line-buffered by itself, so that what HMP ``qemu-io`` prints can be read when it returns.

    ``features`` are those of the same QEMU, if it has been asked for them before. ``options`` are
    the emulator's.

    Must be created in the main thread: Linux ties QEMU's life to the *thread* that starts it.
    Raises EnvironmentProblem when QEMU cannot be started or is too old.
    """

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        timeout: float = 10.0,
        features: Features | None = None,
        options: Sequence[str] = (),
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("create QemuProcess in the main thread: QEMU dies with its thread")
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EnvironmentProblem("setpriv is not in PATH: install util-linux")
        with ExitStack() as on_failure:
            try:
                self._stdout = on_failure.enter_context(closing(_Log(folder / "qemu.stdout")))
                self._stderr = on_failure.enter_context(closing(_Log(folder / "qemu.stderr")))
                self._trace = on_failure.enter_context(closing(_Log(folder / TRACE)))
                self._stderr.make_sure_of(ROOM)
                ours, theirs = socket.socketpair()
                on_failure.enter_context(ours)
                with theirs:
                    self._process = subprocess.Popen(
                        [
                            *(setpriv, "--pdeathsig", "KILL"),
                            *binaries.launch_with(theirs.fileno(), TRACE, *options),
                        ],
                        cwd=folder,
                        stdin=subprocess.DEVNULL,
                        stdout=self._stdout.file,
                        stderr=self._stderr.file,
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                    )
            except OSError as error:
                raise EnvironmentProblem(
                    f"cannot run QEMU in {folder}: {error.strerror}; make room there, or set "
                    "TMPDIR to a folder that can be written"
                ) from error
            _forbid_core_dump(self.pid)
            self.monitor = Monitor(timeout=max(timeout, LAUNCH_SECONDS), died=self._died)
            on_failure.callback(self.kill)
            try:
                self.monitor.connect(ours)
                self.features: Features = features or probe(self.monitor)
            except QemuGone as gone:
                said = self.all_stderr().strip().partition("\n")[0]
                raise EnvironmentProblem(
                    f"{binaries.system} does not run as QEMU: {said or gone}"
                ) from gone
            self.monitor.timeout = timeout
            self.tracing = False
            on_failure.pop_all()

    def __enter__(self) -> Self:
        """The process itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill it."""
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As in :mod:`subprocess`: minus the signal's number after a signal, None while alive."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether it still exists, be it stopped or silent."""
        return self.returncode is None

    def stdout_text(self) -> str:
        """What it wrote to standard output since the last call."""
        return self._stdout.new()

    def stderr_text(self) -> str:
        """What it wrote to standard error since the last call, but for hints."""
        return _HINT.sub("", self._stderr.new())

    def all_stdout(self) -> str:
        """All it wrote to standard output; `stdout_text` is not affected."""
        return self._stdout.all()

    def all_stderr(self) -> str:
        """All it wrote to standard error; `stderr_text` is not affected."""
        return self._stderr.all()

    def trace_events(self) -> tuple[str, ...]:
        """The names of the trace events that it can be told to write, in order."""
        if not self.features.trace_events:
            return ()
        asked = [Command("trace-event-get-state", {"name": name}) for name in TRACED]
        answers = [each for each in self.monitor.execute_all(asked) if not isinstance(each, Error)]
        events = [event for answer in answers for event in answer]
        return tuple(sorted(each["name"] for each in events if each["state"] != "unavailable"))

    def trace(self, *, on: bool) -> None:
        """Let it write its trace events from now on, or no more; raises the gone exceptions."""
        if self.features.trace_events and on != self.tracing:
            states = [{"name": name, "enable": on} for name in TRACED]
            self.monitor.execute_all([Command("trace-event-set-state", each) for each in states])
            self.tracing = on

    def traced(self) -> frozenset[str]:
        """The names of the trace events that it wrote since the last call.

        A job's transition is told with its states: "job_state_transition.created.running".
        """
        found = _EVENT.findall(self._trace.new())
        return frozenset(".".join(filter(None, each)) for each in found)

    def kill(self) -> None:
        """End it at once, also when it is stopped, and reap it; then its outputs can still be read.

        Does nothing when called again.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(KILL_SECONDS)
        self.monitor.close()
        self._stdout.close()
        self._stderr.close()
        self._trace.close()

    def quit(self) -> int:
        """Let it end in order, its images closed; kill it if it does not within the time-out.

        Returns its exit code: 0 after an orderly end, -9 when it had to be killed.
        """
        with suppress(QemuSilent, EventFlood, subprocess.TimeoutExpired):
            with suppress(QemuDied):
                self.monitor.execute(Command("quit"))
            patiently(self._process.wait, self.monitor.timeout)
        self.kill()
        assert self._process.returncode is not None
        return self._process.returncode

    def end(self, how: Literal["quit", "terminate", "kill"]) -> str:
        """End it, by the command ``quit``, by SIGTERM or SIGKILL; what it said by standard error.

        Raises QemuSilent when it does not end in time, QemuDied when it ends with an error.
        """
        seconds = self.monitor.timeout
        if how == "kill":
            self.kill()
            return self.stderr_text()
        if how == "quit":
            with suppress(QemuDied):
                self.monitor.execute(Command("quit"))
        else:
            self._process.terminate()
        try:
            code = patiently(self._process.wait, seconds)
        except subprocess.TimeoutExpired:
            raise QemuSilent(how, seconds) from None
        if code:
            raise self._died()
        self.kill()
        return _TERMINATED.sub("", self.stderr_text())

    def _died(self) -> QemuDied:
        """The exception to raise when the connection is lost: the exit code follows at once."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        return QemuDied(self.returncode, self.all_stderr())


def _forbid_core_dump(pid: int) -> None:
    """While a dump is written a crashed QEMU looks like a silent one.

    A limit of one byte also keeps the kernel from starting a program that collects dumps, which a
    limit of zero does not (see fs/coredump.c of Linux).
    """
    with suppress(OSError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        if hard != 0:
            resource.prlimit(pid, resource.RLIMIT_CORE, (1, hard))


class _Log:
    """An output of QEMU: a file that it appends to, read from this side by position."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.file = path.open("a+b", buffering=0)
        self._taken = 0
        self._kept, self._kept_from = b"", 0

    def new(self) -> str:
        start, self._taken = self._taken, self._size()
        return self._text(start)

    def all(self) -> str:
        return self._text(0)

    def make_sure_of(self, room: int) -> None:
        """Raise OSError unless so many bytes fit into the file system."""
        os.posix_fallocate(self.file.fileno(), 0, room)
        self.file.truncate(0)

    def close(self) -> None:
        """Keep the last of the text and let the file go."""
        if not self.file.closed:
            start = max(0, self._size() - LOG_LIMIT)
            self._kept, self._kept_from = self._bytes(start), start
            self.file.close()

    def _size(self) -> int:
        if self.file.closed:
            return self._kept_from + len(self._kept)
        return os.fstat(self.file.fileno()).st_size

    def _text(self, start: int) -> str:
        size = self._size()
        data = self._bytes(max(start, size - LOG_LIMIT)) if size > start else b""
        return data.decode(errors="replace")

    def _bytes(self, start: int) -> bytes:
        if self.file.closed:
            return self._kept[max(0, start - self._kept_from) :]
        return os.pread(self.file.fileno(), LOG_LIMIT, start)
