"""Campaigns that are killed, or have no room left, and go on."""

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.run import mounted, qbprop, start_qbprop, wrong_model
from tests.cli.test_jobs import children, record
from tests.cli.test_signals import campaign, lives, steps, wait_until

FEW = ("--max-time", "10m", "--profile", "qbprop-dev", "--max-examples")


def descendants(pid: int) -> list[int]:
    """The processes that have come of a process; those that end meanwhile have none."""
    try:
        its = children(pid)
    except FileNotFoundError:
        return []
    return [*its, *(each for child in its for each in descendants(child))]


def found(out: Path) -> set[str]:
    return {each.name for each in (out / "findings").glob("[!.]*")}


def kill_at_some_moment(
    out: Path, chance: random.Random, words: tuple[str, ...], environment: dict[str, str]
) -> None:
    """Start a campaign, and kill it with nothing but its first process."""
    before = steps(out)
    with start_qbprop("fuzz", *words, **environment) as process:
        if chance.random() < 0.7:
            wait_until(lambda: process.poll() is not None or steps(out) > before)
        time.sleep(chance.uniform(0, 0.8))
        its = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not any(map(lives, its)))


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_random_moments_nothing_is_lost_or_counted_twice(
    tmp_path: Path, jobs: int
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    environment = wrong_model(tmp_path / "wrong") | {"TMPDIR": str(scratch)}
    chance = random.Random(jobs)
    words: tuple[str, ...] = ("--out", str(out), "--jobs", str(jobs), *FEW, "40")
    seen: set[str] = set()
    examples = 0
    for _ in range(3):
        kill_at_some_moment(out, chance, words, environment)
        if not (out / "campaign.json").exists():
            continue
        told = record(out)
        assert told["examples"] >= examples
        assert found(out) >= seen
        examples, seen = told["examples"], found(out)
        words = ("--resume", str(out))
    with start_qbprop("fuzz", "--resume", out, "--json", **environment) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    told = record(out)
    assert json.loads(stdout) == told
    assert told["status"] == "finished"
    assert told["examples"] == 40 if jobs == 1 else told["examples"] >= 40
    assert told["steps"] == sum(n for name, n in told["operations"].items() if "." not in name)
    identities = [each["id"] for each in told["findings"]]
    assert sorted(identities) == sorted(found(out))
    assert seen <= set(identities)
    for each in told["findings"]:
        folder = out / "findings" / each["id"]
        assert each["rate"] == 1.0
        assert {path.name for path in folder.iterdir()} >= {"finding.json", "reproduce.sh"}
    assert list(out.rglob(".*.*")) == []
    assert list(scratch.iterdir()) == []


def test_a_campaign_that_is_over_goes_on_with_more(tmp_path: Path) -> None:
    few = ("--profile", "qbprop-dev", "--max-examples", "5", "--seed", "3")
    assert qbprop("fuzz", *few, "--out", tmp_path).returncode == 0
    before = record(tmp_path)
    assert qbprop("fuzz", "--resume", tmp_path).returncode == 0
    assert record(tmp_path)["examples"] == before["examples"] == 5
    assert qbprop("fuzz", "--resume", tmp_path, "--max-examples", "8").returncode == 0
    told = record(tmp_path)
    assert (told["examples"], told["seed"], told["profile"]) == (8, 3, "qbprop-dev")
    assert told["seconds"] > before["seconds"]
    assert told["commands"] > before["commands"]
    assert told["rounds"] == before["rounds"] + 1
    assert told["request"] == before["request"] | {"max_examples": 8}
    assert (
        qbprop("fuzz", "--resume", tmp_path, "--max-examples", "10", "--jobs", "2").returncode == 0
    )
    assert record(tmp_path)["examples"] >= 10


def test_what_cannot_go_on_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = qbprop("fuzz", "--resume", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"qbprop: {tmp_path} has no campaign.json; ")
    done = qbprop("fuzz", "--resume", tmp_path, "--seed", "1")
    assert done.returncode == 2
    assert "keeps its --out and its --seed" in done.stderr
    monkeypatch.setattr("qbprop.campaign.folder.HELD_SECONDS", 0.0)
    with campaign(tmp_path / "out"):
        done = qbprop("fuzz", "--resume", tmp_path / "out")
    assert done.returncode == 2
    assert "a campaign is at work in" in done.stderr


def stopped(process: subprocess.Popen[str]) -> str:
    """The one line that a campaign ends with, beside those that tell how far it is."""
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert stderr.count("qbprop: ") == 1, stderr
    return stderr.splitlines()[-1]


@pytest.mark.parametrize(("jobs", "trouble"), [(2, "full"), (1, "read-only")])
def test_no_room_midway_keeps_what_was_found(tmp_path: Path, jobs: int, trouble: str) -> None:
    environment = wrong_model(tmp_path / "wrong")
    with mounted(tmp_path / "small", "1M") as small:
        out = small / "out"
        options: Any = ("--out", out, "--jobs", jobs, "--max-time", "10m")
        with start_qbprop("fuzz", *options, **environment) as process:
            wait_until(lambda: process.poll() is not None or bool(list(out.rglob("reproduce.sh"))))
            if trouble == "full":
                fill(small / "filling")
            else:
                wait_until(lambda: remount(small, "ro"))  # not while a file is being written
            line = stopped(process)
        assert {"full": "No space left", "read-only": "Read-only"}[trouble] in line
        assert f"`qbprop fuzz --resume {out}` goes on" in line
        assert "what was found so far is kept" in line
        before = {each.parent.name for each in out.rglob("findings/[!.]*/finding.json")}
        assert before
        if trouble == "full":
            (small / "filling").unlink()
        else:
            assert remount(small, "rw")
        with start_qbprop("fuzz", "--resume", out, "--max-time", "1s", **environment) as process:
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        told = record(out)
        assert {each["id"] for each in told["findings"]} == before
        assert found(out) == before


def remount(folder: Path, how: str) -> bool:
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
