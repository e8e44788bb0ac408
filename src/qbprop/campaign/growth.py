"""How a campaign grew: an append-only log of what it had done at a time."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qbprop.campaign.summary import Summary
from qbprop.records import RecordError, structure

POINTS = 500
"""About so many points are written over the time of a campaign."""

LEAST_SECONDS = 1.0
"""Shortest time between two points."""

NAME = "growth.jsonl"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What had been done so many seconds after the start; ``cells`` that were reached.

    ``memory`` are the bytes that the campaign and all processes below it had in memory then.
    """

    seconds: float
    examples: int
    steps: int
    cells: int
    findings: int
    memory: int = 0


class Growth:
    """Writes the log in the folder of a campaign of ``max_seconds``."""

    def __init__(self, out: Path, max_seconds: float) -> None:
        self._path = out / NAME
        self._every = max(LEAST_SECONDS, max_seconds / POINTS)
        self._next = 0.0

    def note(self, summary: Summary) -> None:
        """Add a point, when it is time for one or the campaign is over.

        :raises OSError: it cannot be written.
        """
        if summary.seconds < self._next and summary.status == "running":
            return
        self._next = summary.seconds + self._every
        counts = summary.statistics
        point = Point(
            seconds=round(summary.seconds, 3),
            examples=counts.examples,
            steps=counts.steps,
            cells=counts.cells_reached,
            findings=len(summary.findings),
            memory=summary.memory,
        )
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as log:
            log.write("\n" * torn + json.dumps(asdict(point)) + "\n")


def read_growth(out: Path) -> list[Point]:
    """All points in order; a line that a killed campaign did not finish is left out."""
    path = out / NAME
    points = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            points.append(structure(json.loads(line), Point))
        except (json.JSONDecodeError, RecordError):
            continue
    return points
