"""The little that is read from an image file itself: its format and its backing file.

The layout is QEMU's published specification of qcow2 (docs/interop/qcow2.txt): the magic
number, at byte 8 the place and length of the backing file's name, at byte 24 the size, at byte
36 the entries of the L1 table and its place.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"QFI\xfb"
BACKING_LENGTH_FIELD = 16
"""Where the length of the backing file's name stands: 4 bytes, big-endian."""

SIZE_FIELD = 24
"""Where the virtual size stands: 8 bytes, big-endian."""

L1_SIZE_FIELD = 36
"""Where the number of entries of the L1 table stands: 4 bytes, big-endian."""

L1_ENTRY = 8
"""Bytes of an entry of the L1 table."""

_START = struct.Struct(">4sIQI")
_L1 = struct.Struct(">IQ")


def format_of(path: Path) -> str:
    """The format "qcow2" or "raw"; "raw" too for a file that cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return "qcow2" if file.read(len(MAGIC)) == MAGIC else "raw"
    except OSError:
        return "raw"


def l1_table(header: bytes) -> tuple[int, int]:
    """Offset and length of the L1 table, in bytes, from the first 48 bytes of an image."""
    entries, offset = _L1.unpack_from(header, L1_SIZE_FIELD)
    return offset, entries * L1_ENTRY


def chain(path: Path) -> Iterator[Path]:
    """The file and those behind it, as far as they exist; backing names are relative to it."""
    seen: set[Path] = set()
    while path.exists() and path not in seen:
        yield path
        seen.add(path)
        name = _backing(path)
        if name is None:
            return
        path = path.parent / name
    yield path


def backing_name(header: bytes) -> tuple[int, int]:
    """Offset and length of the backing file's name, in bytes; both 0 where there is none."""
    if len(header) < _START.size or not header.startswith(MAGIC):
        return 0, 0
    _, _, offset, length = _START.unpack_from(header)
    return offset, length


def _backing(path: Path) -> str | None:
    with path.open("rb") as file:
        offset, length = backing_name(file.read(_START.size))
        if not offset:
            return None
        file.seek(offset)
        return file.read(length).decode()


def is_whole(path: Path) -> bool:
    """Whether the file and every file behind it exist."""
    return all(each.exists() for each in chain(path))
