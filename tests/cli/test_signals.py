"""Campaigns that are interrupted, stopped and killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.run import start_qbprop

WAIT_SECONDS = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def steps(out: Path) -> int:
    path = out / "campaign.json"
    return int(json.loads(path.read_text())["steps"]) if path.exists() else 0


def emulator(process: subprocess.Popen[str]) -> int:
    """The process id of the campaign's only QEMU, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found[:] = [int(pid) for pid in children if command(pid).startswith("qemu-system")]
        return len(found) == 1

    wait_until(look)
    return found[0]


def command(pid: str) -> str:
    """Which of QEMU's programs a process runs, through a loader or not; nothing once it ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((name for word in words if (name := Path(word).name).startswith("qemu-")), "")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def campaign(out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A campaign that has performed some steps."""
    with start_qbprop("fuzz", "--out", out, "--max-time", "10m", *options) as process:
        try:
            wait_until(lambda: process.poll() is not None or steps(out) > 0)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            process.kill()


def two_seconds() -> float:
    """Two seconds of a machine that does nothing else; more where others are at work."""
    return max(2.0, os.getloadavg()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_within_two_seconds(tmp_path: Path, number: int) -> None:
    with campaign(tmp_path) as process:
        qemu = emulator(process)
        start = time.monotonic()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
        assert time.monotonic() - start < two_seconds()
    assert process.returncode == 130
    assert "interrupted after" in stdout
    assert "Traceback" not in stderr
    assert json.loads((tmp_path / "campaign.json").read_text())["status"] == "interrupted"
    assert not lives(qemu)


def test_a_signal_ends_it_while_qemu_is_silent(tmp_path: Path) -> None:
    with campaign(tmp_path) as process:
        qemu = emulator(process)
        os.kill(qemu, signal.SIGSTOP)
        time.sleep(0.3)  # the campaign now waits for a reply
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=15)
        assert time.monotonic() - start < two_seconds()
    assert process.returncode == 130
    assert "interrupted after" in stdout
    assert not lives(qemu)


def test_json_is_all_that_stdout_has(tmp_path: Path) -> None:
    with campaign(tmp_path, "--json") as process:
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=10)
    assert json.loads(stdout) == json.loads((tmp_path / "campaign.json").read_text())


def test_nothing_survives_the_death_of_the_tester(tmp_path: Path) -> None:
    with campaign(tmp_path) as process:
        qemu = emulator(process)
        process.kill()
        process.wait()
        wait_until(lambda: not lives(qemu))
    assert json.loads((tmp_path / "campaign.json").read_text())["status"] == "running"
