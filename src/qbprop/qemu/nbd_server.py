"""The NBD server of the QEMU under test, which guests and clients of exports share."""

from qbprop.qemu.monitor import Command, Error, Monitor
from qbprop.qemu.query import accepted

SOCKET = "nbd.sock"
"""The server's socket, beside the images."""

START = Command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": SOCKET}}})

_RUNNING = "NBD server already running"


def serve(monitor: Monitor) -> None:
    """Start the server unless it runs. Raises RequestRefused and the gone exceptions."""
    reply = monitor.execute(START)
    if not (isinstance(reply, Error) and reply.text.startswith(_RUNNING)):
        accepted(reply)


def context(bitmap: str) -> str:
    """The metadata context in which clients are told what is dirty in a bitmap."""
    return f"qemu:dirty-bitmap:{bitmap}"
