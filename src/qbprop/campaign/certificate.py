"""The certificate of a trace: how surely it shows its finding, and that nothing of it is spare."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from qbprop.findings import Finding
from qbprop_model.operations import InvalidOperationError, Operation

Examples = tuple[tuple[Operation, ...], ...]

Play = Callable[[Examples], Finding | None]
"""Performs examples on a QEMU: the finding that they end with, if any."""

REPLAYS = 20
"""Replays on a fresh QEMU that tell how surely a trace shows its finding."""

MISSED = 0.05
"""How often a shorter sequence may be given up although it shows a racy finding as often."""

PATIENCE = 8
"""Most replays of one shorter sequence of a racy finding."""

PASSES, SENSELESS = "passes", "makes no sense"


@dataclass(frozen=True)
class Certificate:
    """``disagreed`` of ``replays`` on a fresh QEMU showed the finding; fewer than all is racy.

    ``without`` tells for each operation what the trace does when it is left out: it "passes",
    it "makes no sense", or the id of the finding that it shows then. It is shorter than the
    trace where the time was over before.
    """

    replays: int
    disagreed: int
    operations: int = 0
    without: tuple[str, ...] = field(default=())

    @property
    def rate(self) -> float:
        """The share of replays that showed the finding."""
        return self.disagreed / self.replays if self.replays else 0.0

    @property
    def racy(self) -> bool:
        """Whether some replays did not show it."""
        return self.disagreed < self.replays

    def minimal(self, identity: str) -> bool:
        """Whether it is known that no single operation can be left out."""
        return len(self.without) == self.operations and identity not in self.without

    def to_record(self, identity: str) -> dict[str, object]:
        """The object in ``finding.json``."""
        return {
            "replays": self.replays,
            "disagreed": self.disagreed,
            "racy": self.racy,
            "minimal": self.minimal(identity),
            "without": list(self.without),
        }


def replays_needed(rate: float) -> int:
    """How many replays miss a finding of this rate seldom enough; at most PATIENCE."""
    if rate >= 1:
        return 1
    return min(PATIENCE, math.ceil(math.log(MISSED) / math.log(1 - rate))) if rate else PATIENCE


def certify(
    examples: Examples,
    identity: str,
    fresh: Play,
    expired: Callable[[], bool],
    told: Callable[[str], None] = lambda _: None,
) -> tuple[Certificate, Finding | None]:
    """Replay a trace, whole and without each of its operations in turn.

    One replay is made even if the time is ``expired``. ``told`` hears how far it is. Returns
    the finding that came last, too.
    """
    replays = disagreed = 0
    last: Finding | None = None
    while replays < REPLAYS and not (replays and expired()):
        told(f"replaying it, {replays + 1} of {REPLAYS}")
        finding = fresh(examples)
        replays += 1
        if finding is not None and finding.id == identity:
            disagreed, last = disagreed + 1, finding
    patience = replays_needed(disagreed / replays)
    total = sum(map(len, examples))
    without: list[str] = []
    for shorter in one_less(examples):
        if expired() or not disagreed:
            break
        told(f"leaving out operation {len(without) + 1} of {total}")
        without.append(_outcome(shorter, identity, fresh, patience))
    return Certificate(replays, disagreed, total, tuple(without)), last


def one_less(examples: Examples) -> Iterator[Examples]:
    """The examples without each of their operations in turn."""
    for i, example in enumerate(examples):
        for j in range(len(example)):
            yield (*examples[:i], example[:j] + example[j + 1 :], *examples[i + 1 :])


def _outcome(examples: Examples, identity: str, fresh: Play, patience: int) -> str:
    shown: list[str] = []
    if not any(examples):
        return PASSES
    for _ in range(patience):
        try:
            finding = fresh(examples)
        except InvalidOperationError:
            return SENSELESS
        if finding is not None:
            shown.append(finding.id)
        if identity in shown:
            return identity
    return shown[0] if shown else PASSES
