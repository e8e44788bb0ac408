"""Folders for images, and what is left of those whose process was killed."""

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from qbprop.lab import scratch_folder

KILLED_WHILE_IT_REMOVES = """
import os, signal, sys
from qbprop.lab import scratch_folder

left = int(sys.argv[1])

def hook(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

with scratch_folder() as folder:
    (folder / "disk.img").touch()
    (folder / "qemu.stdout").touch()
    sys.addaudithook(hook)
"""


def test_whenever_its_process_is_killed_a_folder_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for removals in count():
        words = [sys.executable, "-c", KILLED_WHILE_IT_REMOVES, f"{removals}"]
        ended = subprocess.run(words, check=False).returncode
        with scratch_folder() as folder:
            assert list(tmp_path.iterdir()) == [folder.parent]
        assert list(tmp_path.iterdir()) == []
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert removals == 5


def test_a_folder_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with scratch_folder() as first, scratch_folder() as second:
        assert first.is_dir()
        assert second.is_dir()
