"""How much memory a campaign takes, with all its workers and their QEMUs."""

import ctypes
import gc
import os

import psutil

WORKER_LIMIT = 4 << 30
"""Bytes that a worker may have in memory, with its QEMU."""

SHARE_OF_MACHINE = 0.8
"""What all workers may have together, of the machine's memory."""


def resident(pid: int | None = None) -> int:
    """Bytes in memory of a process, by default this one, and of all below it; 0 once it is gone.

    What they share, code above all, counts once for each.
    """
    try:
        process = psutil.Process(pid or os.getpid())
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for each in tree:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def give_back() -> None:
    """Let go of what this process holds in circles, and of what its allocator holds free.

    The C library keeps what is free between things in use, more and more of it; glibc can be told
    not to.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def worker_limit(workers: int) -> int:
    """Bytes that each of so many workers may take on this machine."""
    part = int(psutil.virtual_memory().total * SHARE_OF_MACHINE) // workers
    return min(WORKER_LIMIT, part)


def show(size: int) -> str:
    """Bytes for people, such as "412 MiB"."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
