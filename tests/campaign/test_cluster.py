"""Campaigns on a real Dask scheduler and its workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase
from tests.campaign.redis_server import redis_server
from tests.cli.run import qbprop, start_qbprop, wrong_model
from tests.cli.test_jobs import record
from tests.cli.test_resume import descendants, found
from tests.cli.test_signals import command, lives, wait_until

from qbprop.campaign.database import MISSED_KEYS, open_database


class Cluster:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._stack = stack
        self._file = folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--scheduler-file", str(self._file))
        wait_until(lambda: self._file.exists() and bool(self._file.read_text()))
        self.address = str(json.loads(self._file.read_text())["address"])

    def add_worker(self) -> subprocess.Popen[bytes]:
        place = ("--local-directory", str(self._folder), "--nthreads", "1", "--no-nanny")
        return self._start("worker", "--scheduler-file", str(self._file), *place)

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        words = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "dask", what]
        quiet = ("--host", "127.0.0.1", "--no-dashboard")
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*words, *quiet, *options], env=self._environment, stdout=log, stderr=log
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return wrong_model(tmp_path / "wrong")


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with ExitStack() as stack:
        yield Cluster(folder, environment, stack)


def qemus(worker: subprocess.Popen[bytes]) -> list[int]:
    return [each for each in descendants(worker.pid) if command(str(each)).startswith("qemu-sys")]


def test_workers_are_lost_and_join_and_all_work_is_done(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, second = cluster.add_worker(), cluster.add_worker()
    with redis_server(tmp_path / "redis") as redis:
        words = ("--out", out, "--cluster", cluster.address, "--database", redis.url)
        limits = ("--max-time", "10m", "--max-examples", "80", "--json")
        with start_qbprop("fuzz", *words, *limits, **environment) as process:
            wait_until(lambda: bool(qemus(first)) and bool(qemus(second)))
            lost = descendants(first.pid)
            first.kill()
            third = cluster.add_worker()
            wait_until(lambda: not any(map(lives, lost)))
            wait_until(lambda: bool(qemus(third)) or process.poll() is not None)
            stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 1, stderr
        second.kill()
        third.kill()
        fourth = cluster.add_worker()
        again = ("fuzz", "--cluster", cluster.address, "--max-examples", "1", "--seed", "3")
        alone = qbprop(*again, "--out", tmp_path / "alone", **environment)
        assert alone.returncode == 0, alone.stderr
        shared = ("--database", redis.url, "--out", tmp_path / "shared")
        assert qbprop(*again, *shared, **environment).returncode == 1
    assert found(tmp_path / "shared") <= found(out)
    told = record(out)
    assert json.loads(stdout) == told
    assert told["status"] == "finished"
    assert told["examples"] >= 80
    assert {each["id"] for each in told["findings"]} == found(out) != set()
    for each in told["findings"]:
        assert each["rate"] == 1.0
        assert os.access(out / "findings" / each["id"] / "reproduce.sh", os.X_OK)
    assert [each.name for each in (out / "shares").iterdir()] == ["done.json"]
    wait_until(lambda: not qemus(fourth))


def test_what_shares_could_not_give_to_redis_it_is_given_by_the_campaign(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cluster.add_worker()
    with redis_server(tmp_path / "redis") as redis:
        redis.stop()
        words = ("--cluster", cluster.address, "--database", redis.url, "--max-time", "10m")
        done = qbprop("fuzz", "--out", out, "--max-examples", "20", *words, **environment)
        assert done.returncode == 1, done.stderr
        assert [each.name for each in (out / "shares").iterdir()] == ["done.json"]
        (folder,) = out.glob("missed-*")
        missed = DirectoryBasedExampleDatabase(folder)
        kept = {key: set(missed.fetch(key)) for key in missed.fetch(MISSED_KEYS)}
        assert any(kept.values())
        redis.start()
        done = qbprop("fuzz", "--resume", out, **environment)
        assert done.returncode == 1, done.stderr
        theirs = open_database([redis.url], tmp_path / "theirs", print)
        assert all(set(theirs.fetch(key)) >= values for key, values in kept.items())
    assert not any(any(missed.fetch(key)) for key in kept)


def test_shares_end_with_their_campaign(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--out", out, "--cluster", cluster.address, "--max-time", "10m")
    with start_qbprop("fuzz", *words, **environment) as process:
        wait_until((out / "shares").exists)
        worker = cluster.add_worker()  # the campaign waits for one
        wait_until(lambda: bool(qemus(worker)))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert record(out)["status"] == "interrupted"
    wait_until(lambda: not qemus(worker))
    more = ("--jobs", "1", "--max-time", "1s")
    with start_qbprop("fuzz", "--resume", out, *more, **environment) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, 1), stderr
    assert record(out)["status"] == "finished"


def test_a_scheduler_that_is_not_there_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.cluster.CONNECT_SECONDS", 0.2)
    done = qbprop("fuzz", "--cluster", "tcp://127.0.0.1:1", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("qbprop: the scheduler at tcp://127.0.0.1:1 does not answer")
    assert "leave out --jobs" in qbprop("fuzz", "--cluster", "tcp://here", "--jobs", "2").stderr
    assert done.stderr.count("\n") == 1
