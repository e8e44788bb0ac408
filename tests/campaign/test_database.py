"""Examples that several campaigns share, in folders and in a real Redis."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.campaign.machines import ForgetsPartialCluster, run
from tests.campaign.redis_server import RedisServer, redis_server
from tests.cli.run import start_qbprop, wrong_model
from tests.cli.test_jobs import record
from tests.cli.test_signals import wait_until

from qbprop.campaign.database import absolute, open_database
from qbprop.errors import EnvironmentProblem

WEEK_SECONDS = 7 * 24 * 3600


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


def nothing(_: str) -> None:
    """Hear, and do nothing."""


def test_what_redis_missed_it_is_given_when_it_is_back(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.database.RETRY_SECONDS", 0.0)
    told: list[str] = []
    ours = open_database([redis.url], tmp_path / "ours", told.append)
    theirs = open_database([redis.url], tmp_path / "theirs", nothing)
    ours.save(b"key", b"before")
    assert set(theirs.fetch(b"key")) == {b"before"}
    redis.stop()
    ours.save(b"key", b"meanwhile")
    ours.move(b"key", b"other", b"before")
    ours.save(b"key", b"hidden")
    ours.delete(b"key", b"hidden")
    assert set(ours.fetch(b"key")) == {b"meanwhile"}
    assert told == [f"{redis.url} does not answer; going on with the local database"]
    redis.start()
    assert set(theirs.fetch(b"key")) == set()
    again = open_database([redis.url], tmp_path / "ours", told.append)
    assert set(again.fetch(b"key")) == {b"meanwhile"}
    assert set(ours.fetch(b"key")) == {b"meanwhile", b"hidden"}
    assert set(ours.fetch(b"other")) == {b"before"}
    assert told[1:] == [f"{redis.url} is back; it is given what it has missed"]
    assert set(theirs.fetch(b"key")) == {b"meanwhile", b"hidden"}
    assert set(theirs.fetch(b"other")) == {b"before"}
    assert len(told) == 2


def test_nothing_vanishes_in_a_week_or_because_one_has_seen_it(
    redis: RedisServer, tmp_path: Path
) -> None:
    ours = open_database([redis.url], tmp_path / "ours", nothing)
    ours.save(b"key", b"value")
    ours.delete(b"key", b"value")
    with redis.client() as client:
        keys = client.keys()
        assert len(keys) == 1
        assert client.ttl(keys[0]) > WEEK_SECONDS
    theirs = open_database([redis.url], tmp_path / "theirs", nothing)
    assert set(theirs.fetch(b"key")) == {b"value"}


@pytest.mark.parametrize("place", ["redis", "folder"])
def test_what_one_campaign_found_another_meets_first(
    place: str, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 10)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 2)
    database = (redis.url if place == "redis" else str(tmp_path / "examples"),)
    for name in ("first", "alone", "second"):
        (tmp_path / name).mkdir()
    rules = ForgetsPartialCluster()
    first = run(tmp_path / "first", rules=rules, database=database, stop_on_finding=True)
    assert len(first.findings) == 1
    one: dict[str, Any] = {"rules": rules, "seed": 3, "max_examples": 1}
    assert run(tmp_path / "alone", **one).findings == []
    second = run(tmp_path / "second", database=database, **one)
    assert [each.id for each in second.findings] == [first.findings[0].id]


def test_a_campaign_goes_on_while_redis_is_away_and_says_so(
    redis: RedisServer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    environment = wrong_model(tmp_path / "wrong")
    words = ("--out", out, "--jobs", "2", "--max-time", "10m", "--database", redis.url)

    def warned(text: str) -> bool:
        return any(text in warning for warning in record(out)["warnings"])

    redis.stop()
    with start_qbprop("fuzz", *words, **environment) as process:
        wait_until(lambda: (out / "campaign.json").exists() and bool(record(out)["findings"]))
        assert warned("does not answer")
        redis.start()
        wait_until(lambda: warned("is back"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert f"{redis.url} does not answer; going on with the local database" in stderr
    assert f"{redis.url} is back; it is given what it has missed" in stdout
    with redis.client() as client:
        assert client.keys()


def test_a_database_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="--database redis://here:port"):
        open_database(["redis://here:port"], tmp_path, nothing)
    assert absolute("redis://here") == "redis://here"
    assert absolute("examples") == str(Path.cwd() / "examples")
