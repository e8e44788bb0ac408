"""Tests of how long QEMU is waited for: a pause of the tester itself takes nothing of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qbprop.qemu.patience import SLICE_SECONDS, Patience, patiently

STANDS_STILL = """
import os, signal
from pathlib import Path
from tempfile import TemporaryDirectory
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.monitor import Command, QemuSilent
from qbprop.qemu.process import QemuProcess

with TemporaryDirectory() as folder:
    with QemuProcess(find_binaries(None), Path(folder), 2.0) as qemu:
        os.kill(qemu.pid, signal.SIGSTOP)
        print(qemu.pid, flush=True)
        try:
            qemu.monitor.execute(Command("query-version"))
            print("answered")
        except QemuSilent:
            print("silent")
"""


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize(("freezes", "said"), [(True, "answered"), (False, "silent")])
def test_who_stands_still_with_qemu_goes_on_waiting(*, freezes: bool, said: str) -> None:
    command = (sys.executable, "-c", STANDS_STILL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tester:
        assert tester.stdout is not None
        qemu = int(tester.stdout.readline())
        if freezes:
            os.kill(tester.pid, signal.SIGSTOP)
            while not stopped(tester.pid):
                time.sleep(0.01)
        time.sleep(3.0)
        for pid in (qemu, tester.pid) if freezes else ():
            os.kill(pid, signal.SIGCONT)
        assert tester.communicate(timeout=60)[0] == f"{said}\n"


def test_only_a_slice_is_lost_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    patience = Patience(1.0)
    for passed, left in ((0.25, 0.75), (900.0, 0.75 - SLICE_SECONDS)):
        now += passed
        assert not patience.over
        assert patience.left == left
    now += 0.25
    assert patience.over


def test_a_wait_is_begun_again_until_the_time_is_used_up() -> None:
    asked: list[float] = []

    def wait(seconds: float) -> str:
        asked.append(seconds)
        if len(asked) < 3:
            raise subprocess.TimeoutExpired("program", seconds)
        return "ended"

    assert patiently(wait, 100.0) == "ended"
    assert asked == [SLICE_SECONDS] * 3
    with pytest.raises(subprocess.TimeoutExpired):
        patiently(wait_in_vain, 0.01)


def wait_in_vain(seconds: float) -> None:
    time.sleep(seconds)
    raise subprocess.TimeoutExpired("program", seconds)
