"""Where images live while they are tested: in memory, where the machine allows it."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only a place in which others make safe folders)

MOUNTS = Path("/proc/self/mounts")
"""The mounted file systems, see proc(5)."""

ROOM = 256 << 20
"""Bytes that must be free in memory for images to be put there."""


def scratch_root(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which to make temporary folders for QEMU and its images.

    It is TMPDIR where that is set, else a tmpfs with room enough, else the system's default.
    """
    if environ.get("TMPDIR"):
        return Path(environ["TMPDIR"])
    if (
        file_system(SHARED_MEMORY) == "tmpfs"
        and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
        and shutil.disk_usage(SHARED_MEMORY).free >= ROOM
    ):
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, such as "tmpfs"; empty if unknown."""
    mounts = [line.split() for line in MOUNTS.read_text().splitlines()] if MOUNTS.exists() else []
    types = {Path(fields[1]): fields[2] for fields in mounts}
    place = folder.resolve()
    return next((types[at] for at in (place, *place.parents) if at in types), "")
