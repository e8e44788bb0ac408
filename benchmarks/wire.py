"""The wire traffic of a campaign: what went to QEMU, in which groups, and what was waited for."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.clock import Clock
from qemu.qmp import Message

from qbprop.qemu.guest_hmp import DATA_FILE
from qbprop.qemu.guest_nbd import NbdConnection, NbdGuest
from qbprop.qemu.images import Images, data_extents
from qbprop.qemu.migration import INCOMING
from qbprop.qemu.monitor import Command, Event, Monitor, QemuSilent, Reply
from qbprop.qemu.primitives import GuestRequest, MakeImage, Program
from qbprop.qemu.process import QemuProcess


@dataclass(frozen=True)
class Launch:
    """A new QEMU, number ``qemu`` of all, launched with ``options``.

    An ``operation`` wants it, which has ended the one before or migrates from it (``beside``).
    """

    qemu: int
    options: tuple[str, ...] = ()
    operation: bool = False
    beside: bool = False


@dataclass(frozen=True)
class End:
    """QEMU ends as an operation says: "quit", "terminate" or "kill"."""

    qemu: int
    how: str


@dataclass(frozen=True)
class Group:
    """QMP commands sent at once; as many replies are due."""

    qemu: int
    payload: bytes
    commands: int


@dataclass(frozen=True)
class AwaitEvent:
    """An event (as `event_key`) to be waited for until it came ``count`` times since the launch."""

    qemu: int
    event: str
    count: int


@dataclass(frozen=True)
class Silence:
    """QEMU was silent for so many seconds, and gone then."""

    seconds: float


@dataclass(frozen=True)
class Connect:
    """A connection to an NBD export."""

    export: str


@dataclass(frozen=True)
class Close:
    """Connections that are closed."""

    exports: tuple[str, ...]


@dataclass(frozen=True)
class NbdRequest:
    """A request over NBD; ``kind`` is that of GuestRequest or "status"."""

    export: str
    kind: str
    offset: int
    length: int
    unmap: bool = False
    data: bytes = b""


@dataclass(frozen=True)
class HoldWrite:
    """A write over NBD that blkdebug suspends."""

    export: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class FinishWrite:
    """The end of an export's suspended write, awaited."""

    export: str


@dataclass(frozen=True)
class WriteFile:
    """A file written, sparse: (offset, bytes) of its data."""

    name: str
    length: int
    data: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class RunProgram:
    """A program run in the folder."""

    program: Program


@dataclass(frozen=True)
class DeleteFiles:
    """All image files deleted, as an example is over.

    By then the campaign took ``at`` seconds, and there was QEMU number ``qemu``, of which each of
    ``events`` (as `event_key`) came so often.
    """

    at: float
    qemu: int
    events: Mapping[str, int]


Entry = (
    Launch
    | End
    | Group
    | AwaitEvent
    | Silence
    | Connect
    | Close
    | NbdRequest
    | HoldWrite
    | FinishWrite
    | WriteFile
    | RunProgram
    | DeleteFiles
)

Around = Callable[..., Any]


class Recorder:
    """Keeps all traffic while `recording`; the time for it is left out of ``clock``.

    What QEMU did not answer, as it died, is left out. ``groups`` and ``commands`` count those of
    QMP.
    """

    def __init__(self, clock: Clock) -> None:
        self.entries: list[Entry] = []
        self._clock = clock
        self._files: dict[Monitor, Path] = {}
        self._numbers: dict[Monitor, int] = {}
        self._taken: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._sent: Sequence[Command] = ()

    @property
    def groups(self) -> int:
        """Groups of QMP commands, each one round trip."""
        return sum(isinstance(entry, Group) for entry in self.entries)

    @property
    def commands(self) -> int:
        """QMP commands."""
        return sum(entry.commands for entry in self.entries if isinstance(entry, Group))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record."""
        hooks: list[tuple[type, str, Around]] = [
            (QemuProcess, "__init__", self._launch),
            (QemuProcess, "end", self._end),
            (Monitor, "send", self._send),
            (Monitor, "receive", self._receive),
            (Monitor, "wait", self._wait),
            (Monitor, "events", self._events),
            (NbdConnection, "__init__", self._connect),
            (NbdConnection, "read", self._read),
            (NbdConnection, "change", self._change),
            (NbdConnection, "start", self._hold),
            (NbdConnection, "finish", self._finish),
            (NbdConnection, "_ask", self._status),
            (NbdGuest, "_delete", self._delete),
            (Images, "make", self._make),
            (Images, "run", self._run),
            (Images, "delete_all", self._delete_all),
        ]
        with ExitStack() as patches:
            for owner, name, around in hooks:
                function = getattr(owner, name)

                @wraps(function)
                def hooked(*args: Any, f: Any = function, a: Around = around, **named: Any) -> Any:
                    return a(f, *args, **named)

                patches.enter_context(patch.object(owner, name, hooked))
            yield

    def _keep(self, make: Callable[[], Entry]) -> None:
        with self._clock.paused():
            self.entries.append(make())

    def _number(self, monitor: Monitor) -> int:
        return self._numbers.setdefault(monitor, len(self._numbers))

    def _launch(self, function: Around, process: QemuProcess, *args: Any) -> None:
        mark = len(self.entries)
        function(process, *args)
        del self.entries[mark:]
        _, folder, _, _, options = args
        self._files[process.monitor] = folder
        number = self._number(process.monitor)
        beside = options[: len(INCOMING)] == INCOMING
        operation = beside or (bool(self.entries) and isinstance(self.entries[-1], End))
        self._keep(lambda: Launch(number, tuple(options), operation, beside))

    def _end(self, function: Around, process: QemuProcess, how: str) -> str:
        mark = len(self.entries)
        said: str = function(process, how)
        del self.entries[mark:]
        self._keep(lambda: End(self._number(process.monitor), how))
        return said

    def _send(self, function: Around, monitor: Monitor, commands: Sequence[Command]) -> None:
        folder = self._files.get(monitor)
        if folder is not None and any(DATA_FILE in str(each.arguments) for each in commands):
            self._keep(lambda: _written(folder / DATA_FILE))
        function(monitor, commands)
        self._sent = commands

    def _receive(self, function: Around, monitor: Monitor) -> list[Reply]:
        commands = self._sent
        try:
            replies: list[Reply] = function(monitor)
        except QemuSilent as silent:
            seconds = silent.seconds
            self._keep(lambda: Silence(seconds))
            raise
        if commands:
            number = self._number(monitor)
            self._keep(lambda: Group(number, command_bytes(commands), len(commands)))
        return replies

    def _wait(self, function: Around, monitor: Monitor, done: Callable[[Event], bool]) -> None:
        met: list[Event] = []

        def watched(event: Event) -> bool:
            if not done(event):
                return False
            met.append(event)
            return True

        try:
            function(monitor, watched)
        except QemuSilent as silent:
            seconds = silent.seconds
            self._keep(lambda: Silence(seconds))
            raise
        number, key = self._number(monitor), event_key(met[0].name, met[0].data)
        self._keep(lambda: AwaitEvent(number, key, self._taken[number][key] + 1))

    def _events(self, function: Around, monitor: Monitor) -> list[Event]:
        events: list[Event] = function(monitor)
        with self._clock.paused():
            number = self._number(monitor)
            taken = self._taken[number]
            taken.update([event_key(each.name, each.data) for each in events])
            ends = {event_key(each.name, each.data) for each in events if _is_end(each)}
            self.entries += [AwaitEvent(number, key, taken[key]) for key in ends]
        return events

    def _connect(self, function: Around, connection: NbdConnection, *args: Any) -> None:
        function(connection, *args)
        self._keep(lambda: Connect(args[2]))

    def _read(self, function: Around, connection: NbdConnection, offset: int, length: int) -> Any:
        try:
            return function(connection, offset, length)
        finally:
            self._keep(lambda: NbdRequest(connection.export, "read", offset, length))

    def _change(
        self,
        function: Around,
        connection: NbdConnection,
        request: GuestRequest,
        offset: int,
        length: int,
    ) -> None:
        try:
            function(connection, request, offset, length)
        finally:
            data = request.data
            self._keep(
                lambda: NbdRequest(
                    connection.export,
                    request.kind,
                    offset,
                    length,
                    request.unmap,
                    b"" if data is None else data.render(offset, length).tobytes(),
                )
            )

    def _hold(self, function: Around, connection: NbdConnection, request: GuestRequest) -> Any:
        data = request.data
        assert data is not None
        self._keep(
            lambda: HoldWrite(
                connection.export,
                request.offset,
                data.render(request.offset, request.length).tobytes(),
            )
        )
        return function(connection, request)

    def _finish(self, function: Around, connection: NbdConnection, cookie: int) -> None:
        try:
            function(connection, cookie)
        finally:
            self._keep(lambda: FinishWrite(connection.export))

    def _status(
        self, function: Around, connection: NbdConnection, context: str, start: int, end: int
    ) -> Any:
        try:
            return function(connection, context, start, end)
        finally:
            self._keep(lambda: NbdRequest(connection.export, "status", start, end - start))

    def _delete(self, function: Around, guest: NbdGuest, nodes: Sequence[str]) -> None:
        self._keep(lambda: Close(tuple(nodes)))
        function(guest, nodes)

    def _make(self, function: Around, images: Images, step: MakeImage) -> None:
        mark = len(self.entries)
        function(images, step)
        del self.entries[mark:]
        self._keep(lambda: _written(images.path(step.file)))

    def _run(self, function: Around, images: Images, program: Program) -> None:
        self._keep(lambda: RunProgram(program))
        function(images, program)

    def _delete_all(self, function: Around, images: Images) -> None:
        function(images)
        at, number = self._clock.total, max(self._numbers.values())
        self._keep(lambda: DeleteFiles(at, number, dict(self._taken[number])))


def _is_end(event: Event) -> bool:
    """Whether an event tells that something is gone; other events may come more or less often."""
    return event.name == "BLOCK_EXPORT_DELETED" or event.data.get("status") == "null"


def event_key(name: str, data: Mapping[str, Any]) -> str:
    """An event without its time."""
    return name + json.dumps(data, sort_keys=True)


def command_bytes(commands: Sequence[Command]) -> bytes:
    """Commands as they are sent."""
    messages = ({"execute": each.name, "arguments": each.arguments} for each in commands)
    return b"".join(bytes(Message(each)) for each in messages)


def _written(path: Path) -> WriteFile:
    with path.open("rb", buffering=0) as file:
        descriptor, length = file.fileno(), path.stat().st_size
        data = tuple(
            (start, os.pread(descriptor, end - start, start))
            for start, end in data_extents(descriptor, length)
        )
    return WriteFile(path.name, length, data)
