"""A guest's requests to a disk, without a guest: over NBD, or with HMP ``qemu-io``.

Both ways are semantics 10. A transport knows disks by node name and, where they have one, by
drive name.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from qbprop.qemu.primitives import GuestRequest
from qbprop_model.data import Bytes

TRANSFER_LIMIT = 1 << 25
"""Most bytes of data in one request: QEMU's NBD server takes no more than 32 MiB."""

RANGE_LIMIT = 1 << 30
"""Most bytes in one request without data: ``qemu-io`` takes no 2 GiB, NBD no 4 GiB."""


class Source(Protocol):
    """Bytes that can be read for a comparison. Reading raises RequestRefused when refused."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def data_extents(self) -> Iterable[tuple[int, int]]:
        """Ranges (start, end), ascending, outside which every byte is said to be zero."""

    def read(self, offset: int, length: int) -> Bytes:
        """The bytes of a range of at most TRANSFER_LIMIT bytes."""


class GuestIo(Protocol):
    """A way for guest requests to reach QEMU. All methods raise the gone exceptions."""

    name: str

    def attach(self, node: str, drive: str | None = None, *, writable: bool = True) -> None:
        """Make a node reachable, as ``node`` and as ``drive``. Raises RequestRefused."""

    def detach(self, name: str) -> None:
        """Take the access to a disk away, so that it can be resized; unknown names are fine.

        Raises RequestRefused.
        """

    def reattach(self, name: str) -> None:
        """Undo `detach`. Raises RequestRefused."""

    def release(self, name: str) -> None:
        """Undo `attach` of the node that has this name. Raises RequestRefused."""

    def detach_all(self) -> None:
        """Take the access to every disk away, and forget their names. Raises RequestRefused."""

    def perform(self, request: GuestRequest) -> Bytes | None:
        """Send a request and await its end; the bytes of a read. Raises RequestRefused."""

    def hold(self, request: GuestRequest) -> None:
        """Send a write, and return once it is held within QEMU; see `go_on`."""

    def go_on(self, name: str) -> None:
        """Let the write that is held at a disk go on, and await its end. Raises RequestRefused."""

    def source(self, name: str) -> Source:
        """A disk's bytes, for a comparison. Raises RequestRefused."""

    def allocated(self, name: str) -> Sequence[tuple[int, int]] | None:
        """The ranges (start, end), ascending, that a disk's top layer has itself.

        None where this way does not tell. Raises RequestRefused.
        """


def pieces(offset: int, length: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut a range that is longer than ``limit`` at the multiples of that.

    (offset, length) of each piece, from last to first: so a range that passes the disk's end is
    refused before anything was done.
    """
    if length <= limit:
        yield offset, length
        return
    start = offset + length
    while True:
        end = start
        start = max(offset, (end - 1) // limit * limit)
        yield start, end - start
        if start <= offset:
            return
