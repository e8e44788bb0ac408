"""Campaigns of several workers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.cli.run import qbprop
from tests.cli.test_signals import campaign, lives, wait_until


def children(pid: int) -> list[int]:
    """The processes that a process has started, by whichever thread."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in tasks for child in each.read_text().split()]


def workers_and_qemus(pid: int) -> tuple[list[int], list[int]]:
    workers = children(pid)
    return workers, [qemu for worker in workers for qemu in children(worker)]


def record(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "campaign.json").read_text())
    return read


def test_the_work_of_all_workers_counts_and_they_leave_nothing_else(tmp_path: Path) -> None:
    done = qbprop(
        "fuzz", "--jobs", "2", "--seed", "7", "--max-examples", "20", "--json", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = record(tmp_path)
    assert json.loads(done.stdout) == told
    assert (told["status"], told["jobs"], told["seed"]) == ("finished", 2, 7)
    assert 20 <= told["examples"] <= 30
    assert told["steps"] == sum(n for name, n in told["operations"].items() if "." not in name)
    assert [each.name for each in (tmp_path / "shares").iterdir()] == ["done.json"]


def test_another_worker_goes_on_where_one_died(tmp_path: Path) -> None:
    with campaign(tmp_path, "--jobs", "2") as process:
        wait_until(lambda: len(workers_and_qemus(process.pid)[1]) == 2)
        workers, _ = workers_and_qemus(process.pid)
        lost: list[int] = []

        def stopped_beside_a_qemu() -> bool:
            os.kill(workers[0], signal.SIGSTOP)
            lost.extend(children(workers[0]))
            os.kill(workers[0], signal.SIGKILL if lost else signal.SIGCONT)
            return bool(lost)

        wait_until(stopped_beside_a_qemu)  # a worker may be without, between two of them
        wait_until(lambda: workers[0] not in children(process.pid))
        wait_until(lambda: not any(map(lives, lost)))
        wait_until(lambda: len(workers_and_qemus(process.pid)[0]) == 2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "a worker died (exit code -9); another goes on with its share" in said
    assert record(tmp_path)["status"] == "interrupted"
    assert record(tmp_path)["steps"] > 0


def test_no_worker_outlives_the_campaign(tmp_path: Path) -> None:
    with campaign(tmp_path, "--jobs", "2") as process:
        wait_until(lambda: len(workers_and_qemus(process.pid)[1]) == 2)
        workers, qemus = workers_and_qemus(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(lives, [*workers, *qemus])))


def test_an_unusable_qemu_is_told_of_in_one_line(tmp_path: Path) -> None:
    done = qbprop("fuzz", "--jobs", "2", "--qemu", "/bin/true", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
