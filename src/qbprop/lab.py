"""A place to test in: a folder for images, a QEMU in it, and a session that judges it."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qbprop.autopsy import Autopsy
from qbprop.campaign.known import harmless_to, known_to, shipped_known
from qbprop.errors import EnvironmentProblem
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.driver import Driver
from qbprop.qemu.scratch import scratch_root
from qbprop.session import Session
from qbprop_model.rules import Rules

PREFIX = "qbprop-scratch-"
"""Nobody else makes folders of that name: an empty one is what a killed removal has left."""

_LOCK = "lock"
_IMAGES = "images"

ROOM = 16 << 20
"""Bytes that must be free for images to be written without running into the end."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new empty folder for a QEMU and its images, removed afterwards.

    Whatever a killed qbprop left behind is removed as well: a folder in use is locked.

    :raises EnvironmentProblem: it cannot be made, or there is no room for images.
    """
    root = scratch_root()
    _sweep(root)
    try:
        with ExitStack() as stack:
            folder = _claimed(root, stack) / _IMAGES
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            check_room(folder)
            yield folder
    except OSError as error:
        if error.filename is not None and Path(error.filename).is_relative_to(root):
            raise EnvironmentProblem(
                f"{root} is no place for images ({error.strerror}); "
                "set TMPDIR to a folder that can be written"
            ) from error
        raise


def check_room(folder: Path) -> None:
    """Make sure that images find room in a folder.

    :raises EnvironmentProblem: they do not.
    """
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise EnvironmentProblem(
            f"{folder} has {free >> 20} MiB free, too little for images; "
            "make room there, or set TMPDIR to another folder"
        )


def _claimed(root: Path, stack: ExitStack) -> Path:
    """A new folder that is locked; before it was, another process may have swept it away."""
    while True:
        whole = tempfile.TemporaryDirectory(prefix=PREFIX, dir=root, ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(whole))
        with suppress(FileNotFoundError):
            lock = stack.enter_context((folder / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / _LOCK).exists():
                return folder


def _sweep(root: Path) -> None:
    """Remove folders that nobody holds any more.

    The lock goes after the images: who is killed between the two leaves nothing that stays.
    """
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder / _IMAGES, ignore_errors=True)
            shutil.rmtree(folder)
        with suppress(OSError):
            folder.rmdir()


@dataclass(frozen=True)
class Lab:
    """Which QEMU to test, and how.

    ``others`` are QEMUs that operations may launch instead. ``transport`` None takes the fastest
    guest I/O there is; ``timeout`` is the longest wait for one reply, in seconds.
    """

    binaries: Binaries
    transport: Literal["nbd", "hmp"] | None = None
    timeout: float = 10.0
    others: tuple[Binaries, ...] = ()

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        """A QEMU that was just launched and ends with the context.

        :raises EnvironmentProblem: it cannot be launched, or there is no room for images.
        """
        with (
            scratch_folder() as folder,
            self._driver(folder) as driver,
        ):
            yield driver

    def _driver(self, folder: Path) -> Driver:
        return Driver(
            self.binaries,
            folder,
            transport=self.transport,
            timeout=self.timeout,
            others=self.others,
        )

    @contextmanager
    def session(self, rules: Rules | None = None) -> Iterator[Session]:
        """A session on a QEMU of its own, of which it knows what the shipped list does.

        ``rules`` None means the model as it is.

        :raises EnvironmentProblem: as :meth:`driver`.
        """
        with self.driver() as driver:
            session = Session(driver, rules)
            session.locate = Autopsy(self, rules)
            qemus, entries = driver.every_features, shipped_known()
            session.know(known_to(qemus, entries), harmless_to(qemus, entries))
            yield session
