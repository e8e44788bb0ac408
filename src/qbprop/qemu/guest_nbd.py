"""Guest requests over an NBD export of the same QEMU, through libnbd (Debian: python3-libnbd).

The fast way, with true error numbers. Every wait is bounded, so that a QEMU that is stopped
or dead is told from one that refuses. libnbd's own checks are off: requests past the end and
of zero length reach QEMU.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import nbd
import numpy as np

from qbprop.qemu.graph import CONFLICT, topmost
from qbprop.qemu.guest import RANGE_LIMIT, TRANSFER_LIMIT, Source, pieces
from qbprop.qemu.guest_hmp import HmpGuest
from qbprop.qemu.monitor import Command, Event, QemuSilent
from qbprop.qemu.nbd_server import SOCKET, serve
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop.qemu.patience import Patience
from qbprop.qemu.primitives import GuestRequest
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.query import accepted
from qbprop.uninterrupted import uninterrupted
from qbprop_model.data import Bytes
from qbprop_model.ranges import Ranges, joined

SLICE_MILLISECONDS = 100
"""Longest single wait, which no signal ends."""

SERVE_MILLISECONDS = 1
"""Time given to what was sent; no reply is due that would end the wait."""

DEPTH = "qemu:allocation-depth"
"""The context that tells which layer has a range: 0 none, 1 the top one."""

HELD_AT = "pwritev"
"""The event of *blkdebug* at which a write is held: it has reached the filter and no further."""

STATUS_LIMIT = (1 << 32) - (1 << 21)
"""Most bytes in one question for the status; whole clusters of any size."""

STATUS_AHEAD = 16
"""Questions for the status that are under way at once: QEMU works on no more for one client."""

DIRTY = 1
"""The flag of dirty extents in the metadata contexts of bitmaps."""

FROZEN = "Cannot export read-only node as writable"
"""Of a disk that a job has left read-only; its guests see that when they write."""


@dataclass(frozen=True)
class Status:
    """A question for the status of bytes from ``start`` to ``end``.

    Its ``entries`` are in place once the server has answered: a length, its flags, and so on.
    """

    start: int
    end: int
    cookie: int
    entries: list[int]


class NbdConnection:
    """A connection to one export. Methods raise RequestRefused and the gone exceptions.

    ``export`` is its name; ``lost`` tells that the server closed the connection. The status of
    extents can be asked for in the metadata contexts ``contexts``.
    """

    def __init__(
        self,
        process: QemuProcess,
        folder: Path,
        export: str,
        contexts: Sequence[str] = (nbd.CONTEXT_BASE_ALLOCATION, DEPTH),
    ) -> None:
        """Connect; raises nbd.Error when the server refuses."""
        self._process = process
        self.export = export
        self.lost = False
        self._flying: dict[int, Bytes] = {}
        self._handle = nbd.NBD()
        self._handle.set_strict_mode(0)
        self._handle.set_pread_initialize(False)
        self._handle.set_export_name(export)
        for context in contexts:
            self._handle.add_meta_context(context)
        descriptor = os.open(folder, os.O_PATH)
        try:
            # The path of a Unix socket is limited to 107 bytes, that of the folder is not.
            self._handle.aio_connect_unix(f"/proc/self/fd/{descriptor}/{SOCKET}")
            while not self._handle.aio_is_ready():
                self._poll("connect")
        finally:
            os.close(descriptor)

    @property
    def size(self) -> int:
        """Length of the export in bytes."""
        size: int = self._handle.get_size()
        return size

    def close(self) -> None:
        """Take leave of the server: some QEMUs complain of one who just goes."""
        with suppress(nbd.Error):
            self._handle.aio_disconnect()
            while not (self._handle.aio_is_closed() or self._handle.aio_is_dead()):
                self._poll("disconnect")

    def read(self, offset: int, length: int) -> Bytes:
        """The bytes of a range of at most TRANSFER_LIMIT bytes.

        In one piece, which the server then reads all of: also what it knows to be zero.
        """
        data = np.empty(length, np.uint8)
        self._await("read", lambda: self._handle.aio_pread(data, offset, flags=nbd.CMD_FLAG_DF))
        return data

    def change(self, request: GuestRequest, offset: int, length: int) -> None:
        """Perform one piece of a request other than a read."""
        handle = self._handle
        match request.kind:
            case "write":
                assert request.data is not None
                data = request.data.render(offset, length)
                self._await("write", lambda: handle.aio_pwrite(data, offset))
            case "write_zeroes":
                flags = 0 if request.unmap else nbd.CMD_FLAG_NO_HOLE
                self._await("zero", lambda: handle.aio_zero(length, offset, flags=flags))
            case "discard":
                self._await("trim", lambda: handle.aio_trim(length, offset))
            case "flush":
                self._await("flush", handle.aio_flush)
            case kind:
                raise ValueError(f"NBD has no request {kind!r}")

    def has_context(self, context: str) -> bool:
        """Whether the export has one of the metadata contexts."""
        return bool(self._handle.can_meta_context(context))

    def start(self, request: GuestRequest) -> int:
        """Send a write and do not wait for its end; a number for `finish`."""
        assert request.data is not None
        data = request.data.render(request.offset, request.length)
        cookie: int = self._handle.aio_pwrite(data, request.offset)
        self._flying[cookie] = data
        return cookie

    def serve(self) -> None:
        """Let what was sent travel on, for a moment."""
        with uninterrupted():
            self._handle.poll(SERVE_MILLISECONDS)

    def finish(self, cookie: int) -> None:
        """Wait for the end of a request that was started."""
        try:
            self._await("write", lambda: cookie)
        finally:
            del self._flying[cookie]

    def data_extents(self) -> Ranges:
        """Ranges that are not said to read as zeroes."""
        return self._all(nbd.CONTEXT_BASE_ALLOCATION, lambda flags: not flags & nbd.STATE_ZERO)

    def allocated(self) -> Ranges | None:
        """Ranges of the top layer; None where QEMU does not tell."""
        return self._all(DEPTH, lambda depth: depth == 1) if self.has_context(DEPTH) else None

    def dirty_extents(self, context: str, offset: int, length: int) -> Ranges:
        """The parts of a range that a bitmap's context calls dirty."""
        return self._extents(context, offset, offset + length, lambda flags: bool(flags & DIRTY))

    def _all(self, context: str, wanted: Callable[[int], bool]) -> Ranges:
        return self._extents(context, 0, self.size, wanted) if self.size else ()

    def _extents(
        self, context: str, offset: int, end: int, wanted: Callable[[int], bool]
    ) -> Ranges:
        """Where a context says what is wanted; the server is asked until all is told."""
        told: list[tuple[int, int]] = []
        starts = range(offset, end, STATUS_LIMIT) if offset < end else (offset,)
        parts = ((start, min(start + STATUS_LIMIT, end)) for start in starts)
        asked = deque(self._ask(context, *part) for part in islice(parts, STATUS_AHEAD))
        while asked:
            status = asked.popleft()
            position = status.start
            for extent, flags in self._told(status):
                start, position = position, min(position + extent, status.end)
                if wanted(flags):
                    told.append((start, position))
            if position < status.end:
                if position == status.start:
                    problem = f"no status of byte {position} was told"
                    raise RequestRefused(Refused("guest", "EPROTO", problem))
                asked.appendleft(self._ask(context, position, status.end))
            else:
                asked.extend(self._ask(context, *part) for part in islice(parts, 1))
        return joined(told)

    def _ask(self, context: str, start: int, end: int) -> Status:
        """Ask for the status of a range."""
        entries: list[int] = []

        def take(name: str, _offset: int, new: list[int], _error: object) -> int:
            if name == context:
                entries.extend(new)
            return 0

        try:
            cookie = self._handle.aio_block_status(end - start, start, take)
        except nbd.Error as error:
            raise self._refusal(error) from error
        return Status(start, end, cookie, entries)

    def _told(self, status: Status) -> Iterable[tuple[int, int]]:
        """Lengths and flags of the extents from the start on; as many as the server tells."""
        self._await("status", lambda: status.cookie)
        return zip(status.entries[::2], status.entries[1::2], strict=True)

    def _await(self, what: str, send: Callable[[], int]) -> None:
        handle = self._handle
        try:
            cookie = send()
            while not handle.aio_command_completed(cookie):
                self._poll(what)
        except nbd.Error as error:
            raise self._refusal(error) from error

    def _refusal(self, error: nbd.Error) -> RequestRefused:
        """What the guest sees of an error. Raises QemuDied where QEMU went away."""
        self.lost = self._handle.aio_is_dead() or self._handle.aio_is_closed()
        if self.lost:
            raise_if_gone(self._process)
        return refused_by(error)

    def _poll(self, what: str) -> None:
        seconds = self._process.monitor.timeout
        patience = Patience(seconds)
        while True:
            with uninterrupted():
                if self._handle.poll(SLICE_MILLISECONDS):
                    return
            if patience.over:
                raise QemuSilent(f"NBD {what} of {self.export}", seconds)


def raise_if_gone(process: QemuProcess) -> None:
    """Raise QemuDied if QEMU went away, and not a connection alone."""
    process.monitor.execute(Command("query-version"))


def refused_by(error: nbd.Error) -> RequestRefused:
    """The refusal of a request that ended with this error."""
    return RequestRefused(Refused("guest", error.errno or "ENOTCONN", error.string))


class NbdGuest:
    """Guest requests over NBD; each disk has a writable export of its own.

    What NBD cannot do, compressed writes, goes through the human monitor. The server is
    started with the first export; an export and the connection to it are made with the first
    request.
    """

    name = "nbd"

    def __init__(self, process: QemuProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._hmp = HmpGuest(process, folder)
        self._started = False
        self._count = 0
        self._nodes: dict[str, str] = {}
        self._read_only: set[str] = set()
        self._exports: dict[str, str] = {}
        self._connections: dict[str, NbdConnection] = {}
        self._held: dict[str, int] = {}

    def attach(self, node: str, drive: str | None = None, *, writable: bool = True) -> None:
        """Know ``node``, under its own name and that of its drive."""
        self._nodes[node] = node
        if drive is not None:
            self._nodes[drive] = node
        if writable:
            self._read_only.discard(node)
        else:
            self._read_only.add(node)

    def reattach(self, name: str) -> None:
        """Nothing: the export is added again with the next request."""

    def detach(self, name: str) -> None:
        """Delete a disk's export and wait until it is gone."""
        self._delete([self._nodes[name]] if name in self._nodes else [])

    def release(self, name: str) -> None:
        """Delete a node's export, and forget the node."""
        self.detach(name)
        node = self._nodes[name]
        self._nodes = {key: each for key, each in self._nodes.items() if each != node}
        self._read_only.discard(node)

    def detach_all(self) -> None:
        """Delete all exports and wait until they are gone; no write is held any more."""
        for node in list(self._held):
            with suppress(RequestRefused):
                self.go_on(node)
        self._delete(list(self._exports))
        self._nodes.clear()
        self._read_only.clear()

    def perform(self, request: GuestRequest) -> Bytes | None:
        """Send a request, in pieces where it is too long, and await its end."""
        if request.kind == "write_compressed":
            return self._hmp.perform(request)
        connection = self._connection(request.node)
        if request.kind == "read":
            parts = pieces(request.offset, request.length, TRANSFER_LIMIT)
            read = [connection.read(*part) for part in parts]
            return read[0] if len(read) == 1 else np.concatenate(read[::-1])
        limit = TRANSFER_LIMIT if request.kind == "write" else RANGE_LIMIT
        for offset, length in pieces(request.offset, request.length, limit):
            connection.change(request, offset, length)
        return None

    def hold(self, request: GuestRequest) -> None:
        """Send a write and wait until *blkdebug* says that it has suspended it."""
        connection = self._connection(request.node)
        node = self._nodes[request.node]
        self._hmp.command(node, f"break {HELD_AT} {node}", None)
        self._held[node] = connection.start(request)
        seconds = self._process.monitor.timeout
        patience = Patience(seconds)
        while f"Suspended request '{node}'" not in self._process.stdout_text():
            if patience.over:
                raise QemuSilent(f"a write to {node} that is to be held", seconds)
            connection.serve()

    def go_on(self, name: str) -> None:
        """Resume a disk's write and await its end."""
        node = self._nodes.get(name, name)
        self._hmp.command(node, f"resume {node}", "Resuming")
        self._connections[node].finish(self._held.pop(node))

    def source(self, name: str) -> Source:
        """The bytes of an attached disk."""
        return self._connection(name)

    def allocated(self, name: str) -> Sequence[tuple[int, int]] | None:
        """The ranges of an attached disk's top layer."""
        return self._connection(name).allocated()

    def _export(self, node: str) -> None:
        if not self._started:
            serve(self._process.monitor)
            self._started = True
        self._count += 1
        identifier = f"{node}.{self._count}"
        options = {
            "type": "nbd",
            "id": identifier,
            "node-name": node,
            "name": node,
            "writable": node not in self._read_only,
            "allocation-depth": True,
        }
        try:
            self._execute([Command("block-export-add", options)])
        except RequestRefused as request:
            text = request.refused.text
            if text.startswith(CONFLICT):
                options["node-name"] = topmost(self._process.monitor, node)
            elif text == FROZEN:
                options["writable"] = False
            else:
                raise
            self._execute([Command("block-export-add", options)])
        self._exports[node] = identifier

    def _delete(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            if node in self._connections:
                self._connections.pop(node).close()
        identifiers = {self._exports.pop(node) for node in nodes if node in self._exports}
        self._execute(
            [Command("block-export-del", {"id": each, "mode": "hard"}) for each in identifiers]
        )
        for identifier in identifiers:
            gone = Event("BLOCK_EXPORT_DELETED", {"id": identifier})
            self._process.monitor.wait(gone.__eq__)

    def _execute(self, commands: Sequence[Command]) -> None:
        for reply in self._process.monitor.execute_all(commands) if commands else ():
            accepted(reply)

    def _connection(self, name: str) -> NbdConnection:
        """The connection to the disk called ``name``, made now if there is none."""
        node = self._nodes.get(name)
        if node is None:
            raise RequestRefused(Refused("guest", "ENOENT", f"no disk is called '{name}'"))
        if node not in self._exports:
            self._export(node)
        connection = self._connections.get(node)
        if connection is None or connection.lost:
            try:
                connection = NbdConnection(self._process, self._folder, node)
            except nbd.Error as error:
                raise_if_gone(self._process)
                raise refused_by(error) from error
            self._connections[node] = connection
        return connection
