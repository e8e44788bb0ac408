"""Guest requests with ``qemu-io`` of the human monitor: nothing but QEMU is needed.

The results go to QEMU's standard output, its errors too; three errors come back as the reply
(semantics 10.1). A success is believed only when the reply is empty and the standard output
ends with the line that reports the whole length.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qbprop.qemu.graph import CONFLICT, topmost
from qbprop.qemu.guest import RANGE_LIMIT, TRANSFER_LIMIT, Source, pieces
from qbprop.qemu.monitor import Command, Error
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop.qemu.primitives import GuestRequest
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.query import NODES_QUERY, accepted
from qbprop_model.data import Bytes, Fill

DUMP_LIMIT = 1 << 17
"""Most bytes read at once: each becomes five characters of standard output."""

DATA_FILE = "guest-data.bin"
"""The file that holds the data of one write, beside the images."""

SCAN_LIMIT = 1 << 32
"""Bytes of a disk that are looked at for data which the model knows nothing of."""

SCAN_STEP = 1 << 22

_DUMP_LINE = re.compile(r"^[0-9a-f]+:  ((?:[0-9a-f]{2} ){1,16})", re.MULTILINE)
_ERROR_NUMBERS = {os.strerror(number): name for number, name in errno.errorcode.items()}
_VERBS = {
    "read": "read",
    "write": "wrote",
    "write_compressed": "wrote",
    "write_zeroes": "wrote",
    "discard": "discard",
}
_LIMITS = {"read": DUMP_LIMIT, "write_zeroes": RANGE_LIMIT, "discard": RANGE_LIMIT}


class HmpGuest:
    """Guest requests as ``qemu-io`` commands of the human monitor. Flushes that fail look fine."""

    name = "hmp"

    def __init__(self, process: QemuProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder

    def attach(self, node: str, drive: str | None = None, *, writable: bool = True) -> None:
        """Nothing to do: the monitor reaches every node."""

    def detach(self, name: str) -> None:
        """Nothing to do: a disk is only held for the time of a request."""

    def reattach(self, name: str) -> None:
        """Nothing to do."""

    def release(self, name: str) -> None:
        """Nothing to do."""

    def detach_all(self) -> None:
        """Nothing to do."""

    def perform(self, request: GuestRequest) -> Bytes | None:
        """Send a request, in pieces where it is too long, and await its end."""
        if request.kind == "flush":
            self.command(request.node, "flush", None)
            return None
        limit = _LIMITS.get(request.kind, TRANSFER_LIMIT)
        read: list[Bytes] = []
        for offset, length in pieces(request.offset, request.length, limit):
            line = words(request, offset, length, self._source(request, offset, length))
            output = self._through_filters(request.node, line, report(request, offset, length))
            if request.kind == "read":
                read.append(_dumped(output))
        return np.concatenate(read[::-1]) if read else None

    def allocated(self, _name: str) -> None:
        """The human monitor does not tell."""

    def hold(self, request: GuestRequest) -> None:
        """Not to be had: the monitor would wait for the write."""
        raise NotImplementedError("the human monitor holds no write")

    def go_on(self, name: str) -> None:
        """Not to be had, as `hold`."""
        raise NotImplementedError("the human monitor holds no write")

    def source(self, name: str) -> Source:
        """A disk's bytes. Outside what was written, only the first SCAN_LIMIT are looked at."""
        return _HmpSource(self, name, self._size(name))

    def _through_filters(self, node: str, what: str, reported: str) -> str:
        """As `command`; a job's filter takes what the disk below it may not take from others."""
        try:
            return self.command(node, what, reported)
        except RequestRefused as request:
            if not request.refused.text.startswith(CONFLICT) or what.startswith("write -c"):
                raise
        return self.command(topmost(self._process.monitor, node), what, reported)

    def command(self, node: str, what: str, reported: str | None) -> str:
        """The new standard output, which must report success if ``reported`` is given."""
        line = f'qemu-io {node} "{what}"'
        self._process.stdout_text()
        command = Command("human-monitor-command", {"command-line": line})
        reply = self._process.monitor.execute(command)
        if isinstance(reply, Error):
            raise RequestRefused(Refused("guest", reply.error_class, reply.text))
        output = self._process.stdout_text()
        if reply or (reported is not None and reported not in output):
            text = str(reply).strip() or output.strip() or f"no report of success: {what}"
            raise RequestRefused(Refused("guest", _error_number(text), text))
        return output

    def _size(self, name: str) -> int:
        for node in accepted(self._process.monitor.execute(NODES_QUERY)):
            if node["node-name"] == name:
                size: int = node["image"]["virtual-size"]
                return size
        raise RequestRefused(Refused("guest", "ENOENT", f"no disk is called '{name}'"))

    def _source(self, request: GuestRequest, offset: int, length: int) -> str:
        """The option for a write's data; data that is no single byte goes through a file."""
        if isinstance(request.data, Fill):
            return f" -P {request.data.byte}"
        if request.data is None or not length:
            return ""
        (self._folder / DATA_FILE).write_bytes(request.data.render(offset, length).tobytes())
        return f" -s {DATA_FILE}"


class _HmpSource:
    """A disk's bytes through ``qemu-io``; it cannot tell what is allocated, so it looks."""

    def __init__(self, guest: HmpGuest, node: str, size: int) -> None:
        self._guest = guest
        self._node = node
        self.size = size

    def data_extents(self) -> Iterator[tuple[int, int]]:
        """The parts of the disk's first SCAN_LIMIT bytes that are not all zero."""
        end = min(self.size, SCAN_LIMIT)
        for start in range(0, end, SCAN_STEP):
            length = min(SCAN_STEP, end - start)
            reported = f"read {length}/{length} bytes at offset {start}"
            if "failed" in self._guest.command(self._node, f"read -P 0 {start} {length}", reported):
                yield start, start + length

    def read(self, offset: int, length: int) -> Bytes:
        """The bytes of a range."""
        data = self._guest.perform(GuestRequest(self._node, "read", offset, length))
        assert data is not None
        return data


def words(request: GuestRequest, offset: int, length: int, source: str = "") -> str:
    """The ``qemu-io`` command for one piece; ``source`` is the option for a write's data."""
    match request.kind:
        case "write_compressed":
            verb = f"write -c{source}"
        case "write_zeroes":
            verb = "write -z -u" if request.unmap else "write -z"
        case "read":
            verb = "read -v"
        case "flush":
            return "flush"
        case kind:
            verb = f"{kind}{source}"
    return f"{verb} {offset} {length}"


def report(request: GuestRequest, offset: int, length: int) -> str:
    """What ``qemu-io`` prints when one piece succeeded; nothing for a flush."""
    if request.kind == "flush":
        return ""
    return f"{_VERBS[request.kind]} {length}/{length} bytes at offset {offset}"


def _error_number(text: str) -> str:
    """The error's symbol: "EIO" for "write failed: Input/output error"; else "qemu-io"."""
    return _ERROR_NUMBERS.get(text.rpartition("failed: ")[2], "qemu-io")


def _dumped(output: str) -> Bytes:
    """The bytes in the hexadecimal dump of ``read -v``."""
    return np.frombuffer(bytes.fromhex("".join(_DUMP_LINE.findall(output))), np.uint8)
