"""Which known findings the QEMU at hand still has: each certified trace is tried."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from qbprop.campaign.known import KnownFinding
from qbprop.lab import Lab
from qbprop.replay import play
from qbprop_model.operations import InvalidOperationError

TRIES = 5
"""Tries of a trace that shows nothing: some findings are racy."""

HANG_SECONDS = 2.0
"""How long QEMU may be silent here: what hangs never comes back."""


@dataclass(frozen=True)
class Tried:
    """What became of a known finding: it is there, it is fixed, or another one came.

    ``listed`` tells whether the list says that this QEMU has it. It is untried where this QEMU
    cannot do what the trace does.
    """

    entry: KnownFinding
    listed: bool
    outcome: Literal["there", "fixed", "another", "untried"]

    def line(self) -> str:
        """For people."""
        surprise = "" if self.listed == (self.outcome == "there") else ", against the list"
        return f"{self.outcome:8} {self.entry.id}  {self.entry.title}{surprise}"


def try_known(
    lab: Lab,
    entries: Iterable[KnownFinding],
    told: Callable[[str], None] = lambda _: None,
) -> Iterator[Tried]:
    """Try each entry that has a trace; ``told`` hears which one is next.

    A bug that shows itself in several ways has an entry for each, with one document.

    :raises EnvironmentProblem: QEMU cannot be launched.
    """
    every = list(entries)
    for entry in every:
        if not entry.trace:
            continue
        told(entry.title)
        family = {each.id for each in every if each == entry or _same_bug(each, entry)}
        yield _try(replace(lab, timeout=HANG_SECONDS), entry, family)


def _same_bug(one: KnownFinding, other: KnownFinding) -> bool:
    return bool(one.document) and one.document == other.document


def _try(lab: Lab, entry: KnownFinding, family: set[str]) -> Tried:
    examples = entry.read_trace().examples
    listed, outcome = False, "fixed"
    for _ in range(TRIES):
        with lab.session() as session:
            driver = session.driver
            listed = entry.concerns(driver.version, driver.features)
            try:
                finding = play(session, examples)
            except InvalidOperationError:
                return Tried(entry, listed, "untried")
        if finding is not None:
            outcome = "there" if finding.id in family else "another"
            break
    return Tried(entry, listed, outcome)  # type: ignore[arg-type]
