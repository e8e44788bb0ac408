"""Recorded traffic sent again by a client that does nothing else: no model, no check, no queue.

QMP goes over a plain socket, guest I/O through libnbd's blocking calls. The time for it is the
least that the same questions to QEMU cost.

Jobs race: an example in which QEMU does not what it did before is left out on both sides.
"""

import json
import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Timer
from typing import Any

import nbd
from benchmarks.wire import (
    AwaitEvent,
    Close,
    Connect,
    DeleteFiles,
    End,
    Entry,
    FinishWrite,
    Group,
    HoldWrite,
    Launch,
    NbdRequest,
    RunProgram,
    Silence,
    WriteFile,
    command_bytes,
    event_key,
)

from qbprop.lab import scratch_folder
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.guest_nbd import DEPTH, STATUS_AHEAD
from qbprop.qemu.images import Images
from qbprop.qemu.monitor import Command
from qbprop.qemu.nbd_server import SOCKET, START
from qbprop.qemu.observation import RequestRefused
from qbprop.qemu.process import QemuProcess

REPLIES = (b'{"return"', b'{"error"')

SERVER = command_bytes([START])
"""What a driver sends to each QEMU once; sent again it is refused."""

REPLY_SECONDS = 10.0
"""Longest wait for a reply."""

EVENT_SECONDS = 1.0
"""Longest wait for an event."""

END_SECONDS = 0.0002
"""Time between two looks whether QEMU has ended."""

SIGNALS = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}
"""How QEMU is ended that is not told to quit."""


class Qemu:
    """A running QEMU, and what has been read of its replies and events; closed with ``stack``."""

    def __init__(self, process: QemuProcess, limit: float, stack: ExitStack) -> None:
        self.process = process
        self.received = 0
        self.events: Counter[str] = Counter()
        self._buffer = b""
        stack.enter_context(process)
        self._socket = stack.enter_context(socket.socket(fileno=os.dup(process.monitor.fileno())))
        self._socket.settimeout(REPLY_SECONDS)
        watchdog = Timer(limit, os.kill, (process.pid, signal.SIGKILL))
        watchdog.start()
        stack.callback(watchdog.cancel)

    def send(self, payload: bytes) -> None:
        """Send commands."""
        self._socket.sendall(payload)

    def receive(self, replies: int) -> None:
        """Read until so many replies have come; with none due, until anything has."""
        while True:
            new = self._socket.recv(1 << 20)
            if not new:
                raise ConnectionError("QEMU went away")
            self.received += len(new)
            *lines, self._buffer = (self._buffer + new).split(b"\r\n")
            for line in lines:
                if line.startswith(REPLIES):
                    replies -= 1
                else:
                    event = json.loads(line)
                    self.events[event_key(event["event"], event.get("data", {}))] += 1
            if replies <= 0 and lines:
                return

    def await_event(self, event: str, count: int) -> None:
        """Read until an event has come so often."""
        self._socket.settimeout(EVENT_SECONDS)
        try:
            while self.events[event] < count:
                self.receive(0)
        finally:
            self._socket.settimeout(REPLY_SECONDS)

    def end(self, how: str) -> None:
        """Wait until it has ended."""
        if how == "quit":
            self.send(command_bytes([Command("quit")]))
        else:
            os.kill(self.process.pid, SIGNALS[how])
        while self.process.alive:
            time.sleep(END_SECONDS)


class Bare:
    """The client. ``seconds`` is what the traffic took.

    A launch of QEMU takes none, but where an operation wants it. ``left_out`` says how many
    examples were left out, and ``left_out_seconds`` how long they took in the campaign.
    """

    def __init__(self, binaries: Binaries, folder: Path, limit: float) -> None:
        self.seconds = 0.0
        self.left_out = 0
        self.left_out_seconds = 0.0
        self._binaries = binaries
        self._folder = folder
        self._limit = limit
        self._images = Images(binaries, folder, REPLY_SECONDS)
        self._stack = ExitStack()
        self._qemus: dict[int, Qemu] = {}
        self._before = 0
        self._handles: dict[str, Any] = {}
        self._held: dict[str, int] = {}
        self._asked: deque[tuple[Any, int]] = deque()
        self._launching = 0.0

    @property
    def received(self) -> int:
        """Bytes that came over QMP."""
        return self._before + sum(qemu.received for qemu in self._qemus.values())

    def replay(self, entries: Iterable[Entry]) -> None:
        """Send it all, example by example."""
        began = 0.0
        with self._stack:
            for example, end in _examples(entries):
                start, launching = time.perf_counter(), self._launching
                try:
                    for entry in example:
                        self._do(entry)
                except (OSError, nbd.Error):
                    self.left_out += 1
                    self.left_out_seconds += end.at - began
                    self._images.delete_all()
                    self._launch(Launch(end.qemu))
                    self._do(Group(end.qemu, SERVER, 1))
                    self._qemus[end.qemu].events = Counter(end.events)
                else:
                    self.seconds += time.perf_counter() - start - (self._launching - launching)
                began = end.at

    def _do(self, entry: Entry) -> None:
        if isinstance(entry, NbdRequest) and entry.kind == "status":
            handle = self._handles[entry.export]
            self._asked.append(
                (handle, handle.aio_block_status(entry.length, entry.offset, lambda *_: 0))
            )
            if len(self._asked) < STATUS_AHEAD:
                return
        while self._asked:
            _await(*self._asked.popleft())
        match entry:
            case NbdRequest(kind="status"):
                pass
            case Group(number, payload, commands):
                self._qemus[number].send(payload)
                self._qemus[number].receive(commands)
            case NbdRequest():
                with suppress(nbd.Error):
                    _perform(self._handles[entry.export], entry)
            case HoldWrite(export, offset, data):
                self._held[export] = self._handles[export].aio_pwrite(data, offset)
                while not any(map(_suspended, self._qemus.values())):
                    self._handles[export].poll(1)
            case FinishWrite(export):
                _await(self._handles[export], self._held[export])
            case AwaitEvent(number, event, count):
                self._qemus[number].await_event(event, count)
            case Connect(export):
                self._handles[export] = self._connect(export)
            case Close(exports):
                for export in exports:
                    self._handles.pop(export, None)
            case WriteFile():
                self._write(entry)
            case RunProgram(program):
                with suppress(RequestRefused):
                    self._images.run(program)
            case DeleteFiles():
                self._images.delete_all()
            case Silence(seconds):
                self.seconds += seconds
            case End(number, how):
                self._qemus[number].end(how)
            case Launch():
                self._launch(entry)

    def _launch(self, launch: Launch) -> None:
        start = time.perf_counter()
        earlier = self._qemus[max(self._qemus)] if launch.operation else None
        if not launch.beside:
            self._stack.close()
            self._before = self.received
            self._qemus.clear()
            self._handles.clear()
            self._asked.clear()
        features = earlier.process.features if earlier else None
        process = QemuProcess(
            self._binaries, self._folder, features=features, options=launch.options
        )
        self._qemus[launch.qemu] = Qemu(process, self._limit, self._stack)
        if not launch.operation:
            self._launching += time.perf_counter() - start

    def _connect(self, export: str) -> Any:
        handle = nbd.NBD()
        handle.set_strict_mode(0)
        handle.set_pread_initialize(False)
        handle.set_export_name(export)
        for context in (nbd.CONTEXT_BASE_ALLOCATION, DEPTH):
            handle.add_meta_context(context)
        handle.connect_unix(str(self._folder / SOCKET))
        return handle

    def _write(self, entry: WriteFile) -> None:
        with (self._folder / entry.name).open("wb", buffering=0) as file:
            file.truncate(entry.length)
            for offset, data in entry.data:
                os.pwrite(file.fileno(), data, offset)


def _examples(entries: Iterable[Entry]) -> Iterator[tuple[list[Entry], DeleteFiles]]:
    """What was done for each example, and its end."""
    example = []
    for entry in entries:
        example.append(entry)
        if isinstance(entry, DeleteFiles):
            yield example, entry
            example = []


def _suspended(qemu: Qemu) -> bool:
    return "Suspended request" in qemu.process.stdout_text()


def _perform(handle: Any, request: NbdRequest) -> None:
    offset, length = request.offset, request.length
    match request.kind:
        case "read":
            handle.pread(length, offset, flags=nbd.CMD_FLAG_DF)
        case "write":
            handle.pwrite(request.data, offset)
        case "write_zeroes":
            handle.zero(length, offset, flags=0 if request.unmap else nbd.CMD_FLAG_NO_HOLE)
        case "discard":
            handle.trim(length, offset)
        case "flush":
            handle.flush()


def _await(handle: Any, cookie: int) -> None:
    with suppress(nbd.Error):
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)


def bare_time(binaries: Binaries, entries: Iterable[Entry], limit: float) -> Bare:
    """The traffic sent to a fresh QEMU, which lives for ``limit`` seconds at most."""
    with scratch_folder() as folder:
        bare = Bare(binaries, folder, limit)
        bare.replay(entries)
    return bare
