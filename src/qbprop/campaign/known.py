"""Known findings: bugs of QEMU that are written down already and fail no campaign.

A list is a TOML file of entries like::

    [[finding]]
    id = "3f09ac51"                  # as in findings/ID of the campaign that met it
    title = "resize loses the last partial cluster"
    qemu = ["6.2", "7.2"]            # version prefixes; left out: every QEMU
    document = "docs/findings/…"     # optional
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from qbprop.errors import EnvironmentProblem
from qbprop.records import RecordError, structure


@dataclass(frozen=True, kw_only=True)
class KnownFinding:
    """A finding that is written down. ``qemu`` holds version prefixes, None means every one."""

    id: str
    title: str
    qemu: tuple[str, ...] | None = None
    document: str = ""

    def concerns(self, version: str) -> bool:
        """Whether the QEMU of this version has it."""
        if self.qemu is None:
            return True
        parts = version.split(".")
        return any(parts[: p.count(".") + 1] == p.split(".") for p in self.qemu)


@dataclass(frozen=True, kw_only=True)
class _KnownFile:
    """The whole TOML file."""

    finding: tuple[KnownFinding, ...] = ()


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


def known_ids(entries: Iterable[KnownFinding], version: str) -> dict[str, str]:
    """Titles by id of the entries that concern the QEMU of this version."""
    return {entry.id: entry.title for entry in entries if entry.concerns(version)}


def _parse(text: str, name: str) -> tuple[KnownFinding, ...]:
    try:
        return structure(tomllib.loads(text), _KnownFile).finding
    except (tomllib.TOMLDecodeError, RecordError) as error:
        raise EnvironmentProblem(f"{name}: {error}; correct the list of known findings") from error
