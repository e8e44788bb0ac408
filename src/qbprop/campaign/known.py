"""Known findings: bugs of QEMU that are written down already and fail no campaign.

A list is a TOML file of entries like::

    [[finding]]
    id = "3f09ac51"                  # as in findings/ID of the campaign that met it
    title = "resize loses the last partial cluster"
    qemu = ["6.2", "7.0..8.1"]       # version prefixes and ranges; left out: every QEMU
    feature = "blockdev_reopen"      # only QEMUs that have it ("!name": that lack it); optional
    upstream = "https://…"           # the bug's report or its fix; optional
    document = "docs/findings/…"     # what is known of it; optional
    trace = "name"                   # its certified trace, a file of qbprop/known_traces; optional
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path

from qbprop.errors import EnvironmentProblem
from qbprop.hazards import Hazard, known_hazards
from qbprop.qemu.features import Features
from qbprop.records import RecordError, structure
from qbprop.trace import Trace, parse_trace
from qbprop_model.operations import InvalidOperationError

TRIED = ("5.2", "7.2", "10.0", "11.1")
"""The QEMUs on which all entries of the shipped list were tried."""


@dataclass(frozen=True, kw_only=True)
class KnownFinding:
    """A finding that is written down.

    ``qemu`` holds version prefixes and ranges of them ("5.2..8.0", both ends included), None
    means every one; ``feature`` is a field of Features that a QEMU must have, or with "!" lack.
    """

    id: str
    title: str
    qemu: tuple[str, ...] | None = None
    feature: str = ""
    upstream: str = ""
    document: str = ""
    trace: str = ""

    def __post_init__(self) -> None:
        name = self.feature.removeprefix("!")
        if name and name not in {field.name for field in fields(Features)} - {"version"}:
            raise InvalidOperationError(f"there is no feature {name!r}")

    def concerns(self, version: str, features: Features | None = None) -> bool:
        """Whether the QEMU of this version, with these features if they are known, has it."""
        if self.feature and features is not None:
            wanted = not self.feature.startswith("!")
            if getattr(features, self.feature.removeprefix("!")) != wanted:
                return False
        return self.qemu is None or any(_within(version, each) for each in self.qemu)

    def read_trace(self) -> Trace:
        """The certified trace of an entry of the shipped list that has one."""
        resource = files("qbprop.known_traces").joinpath(f"{self.trace}.jsonl")
        return parse_trace(resource.read_bytes(), resource.name)


@dataclass(frozen=True, kw_only=True)
class _KnownFile:
    """The whole TOML file."""

    finding: tuple[KnownFinding, ...] = ()


@cache
def shipped_known() -> tuple[KnownFinding, ...]:
    """The list that comes with qbprop."""
    text = files("qbprop").joinpath("known.toml").read_text("utf-8")
    return _parse(text, "known.toml")


def read_known(path: Path) -> tuple[KnownFinding, ...]:
    """A list of the user's own.

    :raises EnvironmentProblem: it cannot be read, or is not such a list.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: {error.strerror}; give --known a TOML list of findings"
        ) from error
    except UnicodeDecodeError as error:
        raise EnvironmentProblem(f"{path}: not UTF-8; give --known a TOML file") from error
    return _parse(text, str(path))


def known_ids(
    entries: Iterable[KnownFinding], version: str, features: Features | None = None
) -> dict[str, str]:
    """Titles by id of the entries that concern the QEMU of this version and features."""
    return {entry.id: entry.title for entry in entries if entry.concerns(version, features)}


def known_to(qemus: Iterable[Features], entries: Iterable[KnownFinding]) -> dict[str, str]:
    """Titles by id of the entries that concern any of several QEMUs."""
    every = tuple(entries)
    return {
        key: title
        for features in qemus
        for key, title in known_ids(every, features.version, features).items()
    }


def harmless_to(qemus: Iterable[Features], entries: Iterable[KnownFinding]) -> frozenset[Hazard]:
    """The hazards that lead some QEMU astray and, as far as entries were tried, none of these."""
    every, series = tuple(entries), tuple(qemus)
    if not all(any(_within(each.version, tried) for tried in TRIED) for each in series):
        return frozenset()
    return known_hazards({entry.id for entry in every}) - known_hazards(known_to(series, every))


def _within(version: str, wanted: str) -> bool:
    """Whether a version begins like ``wanted``, or lies in the range that it is."""
    first, dots, last = wanted.partition("..")
    if not dots:
        return version.split(".")[: wanted.count(".") + 1] == wanted.split(".")
    number, low, high = map(_numbers, (version, first, last))
    return low <= number[: len(low)] and number[: len(high)] <= high


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _parse(text: str, name: str) -> tuple[KnownFinding, ...]:
    try:
        return structure(tomllib.loads(text), _KnownFile).finding
    except (tomllib.TOMLDecodeError, RecordError) as error:
        raise EnvironmentProblem(f"{name}: {error}; correct the list of known findings") from error
