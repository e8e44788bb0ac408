"""Recorded traffic sent again by a client that does nothing else: no model, no check, no queue.

QMP goes over a plain socket, guest I/O through libnbd's blocking calls. The time for it is the
least that the same questions to QEMU cost.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable
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
    Entry,
    Group,
    Launch,
    NbdRequest,
    RunProgram,
    Silence,
    WriteFile,
    event_key,
)

from qbprop.lab import scratch_folder
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.guest_nbd import DEPTH
from qbprop.qemu.images import Images
from qbprop.qemu.nbd_server import SOCKET
from qbprop.qemu.observation import RequestRefused
from qbprop.qemu.process import QemuProcess

REPLIES = (b'{"return"', b'{"error"')


EVENT_SECONDS = 1.0
"""Longest wait for an event."""


class Bare:
    """The client. ``seconds`` is what the traffic took; a launch of QEMU takes none.

    ``received`` counts the bytes that came over QMP, ``missed`` the events that did not come this
    time, as jobs raced in another way; waiting for them takes no time.
    """

    def __init__(self, binaries: Binaries, folder: Path, limit: float) -> None:
        self.seconds = 0.0
        self.received = 0
        self.missed = 0
        self._binaries = binaries
        self._folder = folder
        self._limit = limit
        self._images = Images(binaries, folder, limit)
        self._stack = ExitStack()
        self._socket = socket.socket()
        self._handles: dict[str, Any] = {}
        self._buffer = b""
        self._events: Counter[str] = Counter()

    def replay(self, entries: Iterable[Entry]) -> None:
        """Send it all. QEMU is killed, and so an error raised, when it takes too long."""
        with self._stack:
            for entry in entries:
                start = time.perf_counter()
                try:
                    self._do(entry)
                except TimeoutError:
                    if not isinstance(entry, AwaitEvent):
                        raise
                    self.missed += 1
                    self._events[entry.event] = entry.count
                    continue
                if not isinstance(entry, Launch):
                    self.seconds += time.perf_counter() - start

    def _do(self, entry: Entry) -> None:
        match entry:
            case Group(payload, commands):
                self._socket.sendall(payload)
                self._receive(commands)
            case NbdRequest():
                with suppress(nbd.Error):
                    _perform(self._handles[entry.export], entry)
            case AwaitEvent(event, count):
                self._socket.settimeout(EVENT_SECONDS)
                try:
                    while self._events[event] < count:
                        self._receive(0)
                finally:
                    self._socket.settimeout(self._limit)
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
            case Launch():
                self._launch()

    def _launch(self) -> None:
        self._stack.close()
        self._handles.clear()
        self._events.clear()
        self._buffer = b""
        process = self._stack.enter_context(QemuProcess(self._binaries, self._folder))
        self._socket = socket.socket(fileno=os.dup(process.monitor.fileno()))
        self._socket.settimeout(self._limit)
        self._stack.enter_context(self._socket)
        timer = Timer(self._limit, process.kill)
        timer.start()
        self._stack.callback(timer.cancel)

    def _receive(self, replies: int) -> None:
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
                    self._events[event_key(event["event"], event.get("data", {}))] += 1
            if replies <= 0 and lines:
                return

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


def _perform(handle: Any, request: NbdRequest) -> None:
    offset, length = request.offset, request.length
    match request.kind:
        case "read":
            handle.pread(length, offset)
        case "write":
            handle.pwrite(request.data, offset)
        case "write_zeroes":
            handle.zero(length, offset, flags=0 if request.unmap else nbd.CMD_FLAG_NO_HOLE)
        case "discard":
            handle.trim(length, offset)
        case "flush":
            handle.flush()
        case "status":
            handle.block_status(length, offset, lambda *_: 0)


def bare_time(binaries: Binaries, entries: Iterable[Entry], limit: float) -> Bare:
    """The traffic sent to a fresh QEMU, within about ``limit`` seconds for each launch."""
    with scratch_folder() as folder:
        bare = Bare(binaries, folder, limit)
        bare.replay(entries)
    return bare
