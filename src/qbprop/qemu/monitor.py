"""QMP: commands to QEMU and events from it, one synchronous call at a time.

:class:`Monitor` is a facade over qemu.qmp's asyncio client. Its event loop runs only inside
a call, every wait is bounded, and the ways in which QEMU can fail to answer have names:

    QemuGone
    ├── QemuDied      the process has gone, or has closed the connection
    ├── QemuSilent    it is there and does not answer in time
    └── EventFlood    it sends events without end

After one of these, and after Ctrl-C in a wait, all that is left to do with a monitor is to
close it: every other call raises.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from qemu.qmp import ConnectError, Message, QMPClient
from qemu.qmp.models import ErrorResponse

from qbprop.qemu.patience import SLICE_SECONDS, Patience

EVENT_LIMIT = 10_000
"""Untaken events a monitor keeps before it reports a flood."""

PASSED_OVER = frozenset({"MIGRATION_PASS"})
"""Events that nobody waits for, and of which any number may come.

QEMU 11.1 looks thousands of times what is left to migrate until it has measured its speed.
"""

CLOSE_SECONDS = 2.0
"""Longest time that closing a monitor may take."""

_log = logging.getLogger("qbprop.qmp")
_log.disabled = True  # all that qemu.qmp has to tell becomes an exception or a reply


class QemuGone(Exception):  # noqa: N818 (the name is part of the interface)
    """QEMU can no longer be tested: it has to be killed and launched again."""


class QemuDied(QemuGone):
    """QEMU has ended, or has closed its monitor, without being asked to.

    ``returncode`` is as in :mod:`subprocess`: minus the signal's number after a signal, and
    None when the process still exists. ``stderr`` is all it wrote to standard error.
    """

    def __init__(self, returncode: int | None, stderr: str) -> None:
        super().__init__(returncode, stderr)
        self.returncode = returncode
        self.stderr = stderr

    def __str__(self) -> str:
        """One line, with the last line of standard error."""
        match self.returncode:
            case None:
                text = "QEMU closed its monitor and still runs"
            case code if code < 0:
                text = f"QEMU died from signal {-code}"
            case code:
                text = f"QEMU ended with exit code {code}"
        lines = self.stderr.strip().splitlines()
        return f"{text}: {lines[-1]}" if lines else text


class QemuSilent(QemuGone):
    """No answer to ``what`` within ``seconds``."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, seconds)
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        """One line."""
        return f"QEMU was silent for {self.seconds:g} s: {self.what}"


class EventFlood(QemuGone):
    """More than ``limit`` events were sent before they were taken; ``last`` is the last kept."""

    def __init__(self, limit: int, last: str) -> None:
        super().__init__(limit, last)
        self.limit = limit
        self.last = last

    def __str__(self) -> str:
        """One line."""
        return f"QEMU sent more than {self.limit} events, at last {self.last}"


@dataclass(frozen=True, slots=True)
class Command:
    """A QMP command; the arguments must be JSON values."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Error:
    """QEMU's refusal of a command: the error's class and its text (``desc``)."""

    error_class: str
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """A QMP event without its time."""

    name: str
    data: Mapping[str, Any]


Reply = Any | Error
"""What a command returned (a JSON value), or QEMU's refusal."""


class Monitor:
    """A QMP session over a connected socket.

    ``timeout`` bounds any single wait, in seconds, and may be set at any time.
    ``round_trips`` counts how often commands were sent; several at once are one. ``died`` is
    asked for the exception to raise when the connection is lost. More than ``event_limit``
    untaken events are a flood: further ones are dropped. Those of PASSED_OVER are never kept.
    """

    def __init__(
        self,
        *,
        timeout: float,
        event_limit: int = EVENT_LIMIT,
        died: Callable[[], QemuGone] = lambda: QemuDied(None, ""),
    ) -> None:
        self.timeout = timeout
        self.round_trips = 0
        self._died = died
        self._gone: QemuGone | None = None
        self._sent: Sequence[Command] = ()
        self._interrupted = QemuSilent("an earlier wait was interrupted", 0)
        self._connection: socket.socket | None = None
        self._client = _Client(event_limit)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)

    def connect(self, connection: socket.socket) -> None:
        """Start the session on a connected socket, which the monitor then owns.

        Raises QemuDied, or QemuSilent when QEMU does not greet in time.
        """
        self._connection = connection
        connecting = asyncio.wait_for(self._client.connect(connection), self.timeout)
        try:
            self._loop.run_until_complete(connecting)
        except TimeoutError:
            raise QemuSilent("no greeting", self.timeout) from None
        except ConnectError:
            raise self._died() from None

    def fileno(self) -> int:
        """The descriptor of the connection."""
        assert self._connection is not None, "not connected"
        return self._connection.fileno()

    def execute(self, command: Command) -> Reply:
        """Send a command and wait for its reply. A refusal is returned, not raised."""
        return self.execute_all([command])[0]

    def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Send all commands at once and wait for all replies, in the order of the commands.

        QEMU performs them one after the other, and a refused one does not stop the next.
        """
        self.send(commands)
        return self.receive()

    def send(self, commands: Sequence[Command]) -> None:
        """Send all commands at once; nothing but `receive` or `close` may come next."""
        self._check()
        messages = [_message(command) for command in commands]
        if messages:
            self._gone = self._interrupted
            self._client.send(messages)
            self.round_trips += 1
        self._sent = commands

    def receive(self) -> list[Reply]:
        """Wait for the replies to what was sent, as `execute_all` does."""
        commands, self._sent = self._sent, ()
        if not commands:
            return []
        client = self._client
        self._run_until(
            lambda: len(client.replies) == len(commands),
            lambda: f"no reply to {commands[len(client.replies)].name}",
            Patience(self.timeout),
        )
        replies, client.replies = client.replies, []
        return [_reply(message) for message in replies]

    def events(self) -> list[Event]:
        """Take all events read so far, in order: at least those sent before the last reply."""
        events, self._client.inbox = self._client.inbox, []
        return events

    def wait(self, done: Callable[[Event], bool]) -> None:
        """Wait until an event, untaken or to come, satisfies ``done``; all stay untaken."""
        self._check()
        inbox, seen = self._client.inbox, 0
        patience = Patience(self.timeout)
        while not any(map(done, inbox[seen:])):
            seen = len(inbox)
            self._run_until(
                partial(_is_longer, inbox, seen),
                lambda: "an awaited event did not come",
                patience,
            )

    def close(self) -> None:
        """Drop the connection, whatever state it is in; once closed, do nothing."""
        if self._loop.is_closed():
            return
        self._gone = QemuSilent("the monitor is closed", 0)
        self._client.stop_when(lambda: False, lambda: None)
        try:
            self._loop.run_until_complete(self._client.abort())
        finally:
            self._loop.close()
            if self._connection is not None:
                self._connection.close()

    def _check(self) -> None:
        """Raise again what ended the session: a late reply must not pass for the next one."""
        if self._gone is not None:
            raise self._gone

    def _look_up(self) -> None:
        """End a slice of waiting; what an interrupted wait has left disturbs no closing."""
        if self._gone is self._interrupted:
            self._loop.stop()

    def _run_until(
        self, met: Callable[[], bool], what: Callable[[], str], patience: Patience
    ) -> None:
        """Let messages come in until ``met()``; ``what`` tells what was missed in the end.

        The loop is stopped by hand, which saves the poll that a future would cost.
        """
        client, loop = self._client, self._loop
        self._gone = self._interrupted
        client.stop_when(met, loop.stop)
        while not (met() or client.lost or client.flood or patience.over):
            timer = loop.call_later(min(patience.left, SLICE_SECONDS), self._look_up)
            loop.run_forever()
            timer.cancel()
        if client.flood is not None:
            self._gone = client.flood
        elif met():
            self._gone = None
        elif client.lost:
            self._gone = self._died()
        else:
            self._gone = QemuSilent(what(), self.timeout)
        self._check()


class _Client(QMPClient):
    """qemu.qmp's client with short cuts: no debug texts, no queues, no task for each command.

    Commands carry no id: they are all in-band, so QEMU replies to them in order.
    """

    def __init__(self, event_limit: int) -> None:
        super().__init__()
        self.logger = _log
        self.inbox: list[Event] = []
        self.replies: list[Message] = []
        self.lost = False
        self.flood: EventFlood | None = None
        self._event_limit = event_limit
        self._met: Callable[[], bool] = lambda: False
        self._stop: Callable[[], None] = lambda: None

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages without a detour through the writer's task."""
        assert self._writer is not None, "not connected"
        self._writer.write(b"".join(map(bytes, messages)))

    def stop_when(self, met: Callable[[], bool], stop: Callable[[], None]) -> None:
        """Call ``stop`` after a message that makes ``met()`` true, or when the session fails."""
        self._met, self._stop = met, stop

    async def abort(self) -> None:
        """Cut the connection without sending what is left, and end all tasks of the loop."""
        if self._writer is not None:
            self._writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)  # in which the transport closes its socket
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _on_message(self, msg: Message) -> None:
        if "event" not in msg:
            self.replies.append(msg)
        elif msg["event"] in PASSED_OVER:
            return
        elif len(self.inbox) < self._event_limit:
            self.inbox.append(Event(str(msg["event"]), cast("dict[str, Any]", msg.get("data", {}))))
        else:
            self.flood = EventFlood(self._event_limit, str(msg["event"]))
            self._stop()
        if self._met():
            self._stop()

    def _schedule_disconnect(self) -> None:
        super()._schedule_disconnect()
        self.lost = True
        self._stop()


def _message(command: Command) -> Message:
    return Message({"execute": command.name, "arguments": command.arguments})


def _reply(message: Message) -> Reply:
    if "return" in message:
        return message["return"]
    error = ErrorResponse(message).error
    return Error(error.class_, error.desc)


def _is_longer(events: list[Event], seen: int) -> bool:
    return len(events) > seen
