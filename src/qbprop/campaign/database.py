"""Where Hypothesis keeps examples: folders, and Redis, which many machines share.

What one worker has seen enough of may be news to another: an example is taken out of the folders
alone, and vanishes from Redis when nobody has asked for a long time.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    MultiplexedDatabase,
)

from qbprop.errors import EnvironmentProblem

EXPIRY = timedelta(days=365)
"""How long Redis keeps examples that nobody asks for."""

PATIENCE_SECONDS = 2.0
"""Longest wait for Redis."""

RETRY_SECONDS = 5.0
"""Time from a failure of Redis to the next try."""

MISSED_KEYS = b"qbprop.missed"
"""What the keys are kept with of which Redis has missed something."""

SCHEMES = ("redis://", "rediss://", "unix://")


def absolute(place: str) -> str:
    """A place that means the same from every folder."""
    return place if place.startswith(SCHEMES) else str(Path(place).absolute())


def open_database(places: Sequence[str], out: Path, told: Callable[[str], None]) -> ExampleDatabase:
    """The database that is in all these places: folders, and URLs of Redis.

    What is in Redis is also in a folder, in ``out`` if none is given; ``told`` hears when Redis
    is lost and when it is back.

    :raises EnvironmentProblem: a place makes no sense, or the client of Redis is not installed.
    """
    folders = _folders(places, out)
    database: ExampleDatabase = MultiplexedDatabase(*map(DirectoryBasedExampleDatabase, folders))
    for url in _urls(places):
        database = SharedDatabase(database, _missed(url, places, out), url, told)
    return database


def add_missed(share: Path, out: Path) -> None:
    """Add what Redis has missed of a share's campaign to that of the whole one.

    :raises OSError: it cannot be written.
    """
    for folder in share.glob("missed-*"):
        shutil.copytree(folder, out / folder.name, dirs_exist_ok=True)


def catch_up(database: ExampleDatabase, places: Sequence[str], out: Path) -> None:
    """Give Redis what shares could not that have ended; the arguments are as it was opened."""
    for url in _urls(places):
        missed = _missed(url, places, out)
        for key in set(missed.fetch(MISSED_KEYS)):
            if any(missed.fetch(key)):
                database.fetch(key)
            else:
                missed.delete(MISSED_KEYS, key)


def _urls(places: Sequence[str]) -> list[str]:
    return [place for place in places if place.startswith(SCHEMES)]


def _folders(places: Sequence[str], out: Path) -> list[Path]:
    return [Path(each) for each in places if not each.startswith(SCHEMES)] or [out / "examples"]


def _missed(url: str, places: Sequence[str], out: Path) -> ExampleDatabase:
    """What a Redis is still to be given."""
    name = f"missed-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    return DirectoryBasedExampleDatabase(_folders(places, out)[0].with_name(name))


class SharedDatabase(ExampleDatabase):
    """A ``local`` database and one in Redis; where Redis is away the local one does.

    What Redis has ``missed`` it is given when it is asked next for what was kept with it.
    """

    def __init__(
        self,
        local: ExampleDatabase,
        missed: ExampleDatabase,
        url: str,
        told: Callable[[str], None],
    ) -> None:
        super().__init__()
        try:
            from hypothesis.extra.redis import RedisExampleDatabase
            from redis import Redis, RedisError
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise EnvironmentProblem(
                "--database with Redis needs its client: pip install 'qbprop[redis]'"
            ) from error
        try:
            client = Redis.from_url(
                url,
                socket_timeout=PATIENCE_SECONDS,
                socket_connect_timeout=PATIENCE_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise EnvironmentProblem(f"--database {url}: {error}") from error
        self._errors = (RedisError, OSError)
        self._local = local
        self._missed = missed
        self._redis = RedisExampleDatabase(client, expire_after=EXPIRY)
        self._url = url
        self._told = told
        self._lost = False
        self._retry_at = 0.0

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """All examples of a key, of both databases."""
        ours = set(self._local.fetch(key))
        theirs = self._ask(partial(self._redis.fetch, key))
        if theirs is None:
            return ours
        for value in {*self._missed.fetch(key), *ours} - theirs:
            if self._ask(partial(self._redis.save, key, value)) is not None:
                self._missed.delete(key, value)
        return ours | theirs

    def save(self, key: bytes, value: bytes) -> None:
        """Save an example in both."""
        self._local.save(key, value)
        if self._ask(partial(self._redis.save, key, value)) is None:
            self._missed.save(MISSED_KEYS, key)
            self._missed.save(key, value)

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        """Move an example in both."""
        self._local.move(src, dest, value)
        if self._ask(partial(self._redis.move, src, dest, value)) is None:
            self._missed.save(MISSED_KEYS, dest)
            self._missed.move(src, dest, value)

    def delete(self, key: bytes, value: bytes) -> None:
        """Delete an example from the local one alone."""
        self._local.delete(key, value)

    def _ask(self, what: Callable[[], Iterable[bytes] | None]) -> set[bytes] | None:
        """What Redis answers, or None when it does not."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            answer = set(what() or ())
        except self._errors:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._lost:
                self._told(f"{self._url} does not answer; going on with the local database")
            self._lost = True
            return None
        if self._lost:
            self._told(f"{self._url} is back; it is given what it has missed")
        self._lost = False
        return answer
