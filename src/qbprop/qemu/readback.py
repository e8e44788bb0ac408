"""The bytes of disks and targets read back and compared, over each way that there is."""

from typing import Literal

from qbprop.qemu.contents import Difference, RawFile, first_difference
from qbprop.qemu.guest import GuestIo
from qbprop.qemu.images import Images
from qbprop.qemu.monitor import Command, Monitor
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop.qemu.plan import image_options
from qbprop.qemu.primitives import resolve
from qbprop.qemu.query import accepted
from qbprop_model.expectation import Contents

READER_NODE = "reader"
"""The node that a target is opened as for reading."""


class Reader:
    """Compares contents. Every method raises the gone exceptions."""

    def __init__(self, monitor: Monitor, guest: GuestIo, images: Images) -> None:
        self._monitor = monitor
        self._guest = guest
        self._images = images

    def disk(self, node: str, expected: Contents) -> Difference | Refused | None:
        """Compare an open disk, as its guest sees it."""
        try:
            return first_difference(self._guest.source(node), expected)
        except RequestRefused as request:
            return request.refused

    def image(
        self, file: str, expected: Contents, through: Literal["qemu", "program"]
    ) -> Difference | Refused | None:
        """Compare what a file and its chain hold; no one may have the file open for writing."""
        try:
            if through == "qemu" and self._images.is_plain(file):
                with RawFile(self._images.path(file)) as source:
                    return first_difference(source, expected)
            if through == "program" or self._guest.name != "nbd":
                with RawFile(self._images.flatten(file), scratch=True) as source:
                    return first_difference(source, expected)
            return self._through_reader(file, expected)
        except RequestRefused as request:
            return request.refused

    def _through_reader(self, file: str, expected: Contents) -> Difference | Refused | None:
        """Compare through READER_NODE, opened read-only.

        A refusal leaves nothing open. All else leaves everything as it is, and asks nothing more
        of a QEMU that may be silent: the driver does not use it again.
        """
        options = image_options(READER_NODE, file) | {"read-only": True}
        options = resolve(options, self._images.format_of)
        accepted(self._monitor.execute(Command("blockdev-add", options)))
        self._guest.attach(READER_NODE, writable=False)
        found: Difference | Refused | None
        try:
            found = first_difference(self._guest.source(READER_NODE), expected)
        except RequestRefused as request:
            found = request.refused
        self._guest.detach(READER_NODE)
        accepted(self._monitor.execute(Command("blockdev-del", {"node-name": READER_NODE})))
        return found
