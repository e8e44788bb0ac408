"""Tests of what a campaign tells of its memory."""

import subprocess
import sys

import pytest

from qbprop.campaign.memory import WORKER_LIMIT, give_back, resident, show, worker_limit

GREEDY = "taken = bytearray(b'1') * (100 << 20); print('taken', flush=True); input()"


def test_the_processes_below_count_too_and_what_is_gone_does_not() -> None:
    alone = resident()
    command = (sys.executable, "-c", GREEDY)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "taken\n"
        assert resident(child.pid) >= 100 << 20
        assert resident() >= alone + (100 << 20)
        child.communicate("\n")
    assert resident(child.pid) == 0
    assert resident() < alone + (100 << 20)


def test_what_is_free_between_things_in_use_is_given_back() -> None:
    pieces = [bytearray(b"1") * 10_000 for _ in range(10_000)]
    kept = pieces[::10]
    del pieces
    before = resident()
    give_back()
    assert resident() < before - (50 << 20)
    assert len(kept) == 1000


def test_workers_share_the_machine() -> None:
    assert worker_limit(1) <= WORKER_LIMIT
    assert worker_limit(1 << 20) < worker_limit(1)


@pytest.mark.parametrize(("size", "text"), [(412 << 20, "412 MiB"), (3 << 29, "1.5 GiB")])
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert show(size) == text
