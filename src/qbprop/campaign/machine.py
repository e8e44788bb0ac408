"""On which kind of machine a campaign runs."""

import os
import platform


def describe_machine() -> str:
    """Its system, processors and memory on one line; nothing that names it."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return (
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} "
        f"processors, {pages * size >> 30} GiB of memory, Python {platform.python_version()}"
    )
