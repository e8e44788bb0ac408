"""The memory of the tester and of QEMU in a long campaign."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, Literal

SAMPLE_SECONDS = 0.2


def memory(early: int, late: int, *, seed: int = 1) -> dict[str, Any]:
    """Resident megabytes around two numbers of steps: the medians of what was seen there.

    Around means within half of ``early``.
    """
    around = early // 2
    seen: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = ("-m", "qbprop", "fuzz", "--max-time", "10h", "--seed", str(seed))
        campaign = subprocess.Popen(
            [sys.executable, *words, "--out", f"{folder}/out", "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            steps = 0
            while steps <= late + around and campaign.poll() is None:
                time.sleep(SAMPLE_SECONDS)
                steps = _steps(Path(folder, "out", "campaign.json"))
                for mark in (early, late):
                    if abs(steps - mark) <= around:
                        for name, size in _sizes(campaign.pid).items():
                            seen.setdefault((mark, name), []).append(size)
        finally:
            campaign.send_signal(signal.SIGINT)
            campaign.wait(60)
    sizes = {
        name: [median(seen[mark, name]) for mark in (early, late)] for name in ("tester", "qemu")
    }
    return {
        "steps": [early, late],
        "tester_mb": sizes["tester"],
        "qemu_mb": sizes["qemu"],
        "growth": {name: last / first for name, (first, last) in sizes.items()},
    }


def _steps(path: Path) -> int:
    return int(json.loads(path.read_text())["steps"]) if path.exists() else 0


def _sizes(pid: int) -> dict[str, float]:
    """Resident megabytes of the campaign and of its QEMU."""
    sizes = {"tester": resident(pid)}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        status = Path(f"/proc/{child}/comm")
        if status.exists() and status.read_text().startswith("qemu-system"):
            with suppress(StopIteration, FileNotFoundError):  # it may end meanwhile
                sizes["qemu"] = resident(int(child))
    return sizes


def resident(pid: int, field: Literal["VmRSS", "VmHWM"] = "VmRSS") -> float:
    """Resident megabytes of a process: now, or with VmHWM at its highest."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith(field))
    return int(kilobytes) / 1000
