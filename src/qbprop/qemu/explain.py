"""Which bytes QEMU holds for dirty, range by range: for people, after a disagreement.

A digest only tells that two sets differ. The bitmap is exported over NBD and ``qemu-img map``
reads it (semantics 2.3), which needs no libnbd.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from qbprop.qemu.monitor import Command, Error, Monitor
from qbprop.qemu.nbd_server import SOCKET, START, context

Ranges = Sequence[tuple[int, int]]
SHOWN = 8
"""Ranges shown of a set; more are counted."""

EXPORT = "explain"


def dirty_ranges(
    monitor: Monitor, qemu_img: Path, folder: Path, node: str, bitmap: str
) -> list[tuple[int, int]] | None:
    """The dirty byte ranges ``(start, end)`` of a bitmap; None where QEMU does not tell.

    Leaves an export behind. Raises the gone exceptions.
    """
    monitor.execute(START)
    options: dict[str, object] = {"type": "nbd", "id": EXPORT, "node-name": node, "name": EXPORT}
    options |= {"bitmaps": [bitmap], "writable": True}
    if isinstance(monitor.execute(Command("block-export-add", options)), Error):
        return None
    command = [str(qemu_img), *map_arguments(EXPORT, bitmap)]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=monitor.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    return [
        (extent["start"], extent["start"] + extent["length"])
        for extent in json.loads(done.stdout)
        if not extent["data"]
    ]


def map_arguments(export: str, bitmap: str) -> tuple[str, ...]:
    """The arguments of ``qemu-img`` for a map of an exported bitmap (semantics 2.3)."""
    image = {
        "driver": "nbd",
        "server": {"type": "unix", "path": SOCKET},
        "export": export,
        "x-dirty-bitmap": context(bitmap),
    }
    return ("map", "--output=json", f"json:{json.dumps(image)}")


def subtract(ranges: Ranges, other: Ranges) -> Ranges:
    """The bytes of ascending ``ranges`` that are in none of ``other``, as ascending ranges."""
    left = list(ranges)
    for start, end in other:
        left = [
            piece
            for s, e in left
            for piece in ((s, min(e, start)), (max(s, end), e))
            if piece[0] < piece[1]
        ]
    return left


def show(ranges: Ranges) -> str:
    """Byte ranges for people: "0–65536, 131072–196608"."""
    if not ranges:
        return "nothing"
    shown = ", ".join(f"{start}–{end}" for start, end in ranges[:SHOWN])
    more = len(ranges) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
