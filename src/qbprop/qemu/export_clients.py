"""Clients of the exports that operations make: what they are told of dirty bytes."""

from pathlib import Path
from typing import TYPE_CHECKING

from qbprop.qemu.monitor import Command, Event
from qbprop.qemu.nbd_server import context, serve
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.query import accepted
from qbprop_model.ranges import Ranges

if TYPE_CHECKING:
    from qbprop.qemu.guest_nbd import NbdConnection


class ExportClients:
    """Connections to exports, one for each bitmap that was asked for; they stay open.

    They need libnbd. Methods raise RequestRefused and the gone exceptions.
    """

    def __init__(self, process: QemuProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._serving = False
        self._connections: dict[tuple[str, str], NbdConnection] = {}

    def serve(self) -> None:
        """Start QEMU's NBD server, unless it runs already."""
        if not self._serving:
            serve(self._process.monitor)
            self._serving = True

    def dirty_extents(self, export: str, bitmap: str, offset: int, length: int) -> Ranges:
        """The parts of a range that are dirty in a bitmap of an export."""
        connection = self._connection(export, bitmap)
        if not connection.has_context(context(bitmap)):
            problem = f"export '{export}' has no bitmap '{bitmap}'"
            raise RequestRefused(Refused("guest", "ENOENT", problem))
        return connection.dirty_extents(context(bitmap), offset, length)

    def await_gone(self, export: str) -> None:
        """Wait until an export is deleted, and forget its connections."""
        gone = Event("BLOCK_EXPORT_DELETED", {"id": export})
        self._process.monitor.wait(gone.__eq__)
        self._connections = {
            key: each for key, each in self._connections.items() if key[0] != export
        }

    def delete(self, export: str) -> None:
        """Delete an export, whoever uses it."""
        command = Command("block-export-del", {"id": export, "mode": "hard"})
        accepted(self._process.monitor.execute(command))
        self.await_gone(export)

    def _connection(self, export: str, bitmap: str) -> "NbdConnection":
        import nbd

        from qbprop.qemu.guest_nbd import NbdConnection, raise_if_gone, refused_by

        key = (export, bitmap)
        if key not in self._connections:
            try:
                wanted = (context(bitmap),)
                connection = NbdConnection(self._process, self._folder, export, wanted)
            except nbd.Error as error:
                raise_if_gone(self._process)
                raise refused_by(error) from error
            self._connections[key] = connection
        return self._connections[key]
