"""``campaign.json``: what a campaign did and found, as far as it has come."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from qbprop.atomic import write_atomically
from qbprop.campaign.statistics import ALL_NAMES, Statistics, by_operation

Status = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class QemuRecord:
    """A QEMU that was tested."""

    version: str
    path: str


@dataclass(kw_only=True)
class FindingRecord:
    """One distinct finding.

    ``operations`` is the length of its shortest trace; ``seconds_to_find`` the time from the
    start to its first sight, before shrinking; ``count`` how often it was met while
    generating; ``rate`` the share of replays on a fresh QEMU that showed it again, or None
    while that is not known; ``known`` whether a list of known findings has it.
    """

    id: str
    kind: str
    title: str
    operations: int
    seconds_to_find: float
    count: int = 0
    rate: float | None = None
    known: bool = False

    @property
    def racy(self) -> bool:
        """Whether some replays showed it again, and others did not."""
        return self.rate is not None and 0 < self.rate < 1


@dataclass(kw_only=True)
class DifferenceRecord:
    """In what two QEMUs differed that performed the same example, and how often.

    ``what``: "reply" (a refusal's reason, or "ok"), "text" (of a refusal), "bitmaps", "sizes" or
    "bits" behind the operation; or "model": the second one disagreed with it, which is ``known``
    where a list of known findings has it. ``qemus`` and ``outcomes`` are in the same order.
    """

    id: str
    operation: str
    what: str
    qemus: list[str]
    outcomes: list[str]
    count: int = 0
    known: bool = True


@dataclass(frozen=True, kw_only=True)
class CanaryRecord:
    """Whether the mistake that was planted was found, how soon, and as what."""

    found: bool
    seconds: float
    title: str


@dataclass(kw_only=True)
class SequencesRecord:
    """How far an exhaustive search is.

    There are ``all`` sequences of up to ``length`` operations; the ``longest`` of them begin
    with the others. Of these so many are ``done``, with ``unjudged`` that the model cannot judge.
    """

    length: int
    all: int
    longest: int
    done: int = 0
    unjudged: int = 0


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """The share that a worker is at, for so many seconds; without ``activity`` it searches."""

    share: int
    seconds: float
    steps: int
    activity: str


@dataclass(kw_only=True)
class Summary:
    """Everything in ``campaign.json``; later versions only add.

    ``commands`` counts QMP round trips: commands that went together are one. ``jobs`` is the
    number of workers. ``rounds`` are those that were begun, ``request`` what the user asked for;
    ``skipped`` says what is not tested, and why; ``canary`` is None where none was planted.
    ``warnings`` tell what went wrong around it; ``sequences`` how far an exhaustive search is;
    ``memory`` are the bytes that the campaign and all processes below it had in memory last;
    ``differences`` in what several QEMUs differed that performed the same examples;
    ``trace_events`` are those that QEMU can write, ``news_seconds`` tells when something was
    reached first the last time; ``activity`` is what goes on beside the search, ``workers`` what
    each one does.
    """

    qbprop: str
    qemus: list[QemuRecord]
    guest_io: str
    profile: str
    seed: int
    status: Status = "running"
    seconds: float = 0.0
    commands: int = 0
    memory: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    findings: list[FindingRecord] = field(default_factory=list)
    jobs: int = 1
    rounds: int = 0
    request: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    skipped: list[str] = field(default_factory=list)
    canary: CanaryRecord | None = None
    warnings: list[str] = field(default_factory=list)
    sequences: SequencesRecord | None = None
    differences: list[DifferenceRecord] = field(default_factory=list)
    trace_events: list[str] = field(default_factory=list)
    news_seconds: float = 0.0
    activity: str = ""
    workers: list[WorkerRecord] = field(default_factory=list)
    _reached: int = 0

    def look(self, seconds: float) -> None:
        """Note that so many seconds have passed, and whether something was reached meanwhile."""
        self.seconds = seconds
        if (reached := self.statistics.reached) != self._reached:
            self._reached, self.news_seconds = reached, seconds

    @property
    def never_traced(self) -> list[str]:
        """The trace events that were never met."""
        met = {event.partition(".")[0] for _, event in self.statistics.traced}
        return sorted(set(self.trace_events) - met)

    @property
    def new_findings(self) -> list[FindingRecord]:
        """The findings that no list of known findings has."""
        return [finding for finding in self.findings if not finding.known]

    @property
    def new_differences(self) -> list[DifferenceRecord]:
        """Those in which a QEMU disagreed with the model that no list of known findings has."""
        return [difference for difference in self.differences if not difference.known]

    @property
    def blind(self) -> bool:
        """Whether a mistake that was planted was not found."""
        return self.canary is not None and not self.canary.found

    @property
    def steps_per_second(self) -> float:
        """All steps, those of shrinking too, over the whole time."""
        steps = self.statistics.steps + self.statistics.shrink_steps
        return steps / self.seconds if self.seconds else 0.0

    def to_record(self) -> dict[str, Any]:
        """The object of ``campaign.json``."""
        counts = self.statistics
        outcomes = {
            name: {"ok": counts.succeeded[name], "refused": counts.refused[name]}
            for name in ALL_NAMES
        }
        return {
            "qbprop": self.qbprop,
            "qemus": [asdict(qemu) for qemu in self.qemus],
            "machine": self.machine,
            "guest_io": self.guest_io,
            "profile": self.profile,
            "jobs": self.jobs,
            "seed": self.seed,
            "request": dict(self.request),
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "examples": counts.examples,
            "steps": counts.steps,
            "shrink_steps": counts.shrink_steps,
            "commands": self.commands,
            "memory": self.memory,
            "rounds": self.rounds,
            "operations": {name: sum(both.values()) for name, both in outcomes.items()},
            "outcomes": outcomes,
            "partial_backup_examples": counts.partial_backups,
            "bitmaps_per_example": round(counts.bitmaps / max(counts.examples, 1), 2),
            "reach": counts.reach_by_heading(),
            "steps_in_flight": counts.in_flight,
            "job_states": counts.job_state_table(),
            "cells": counts.cell_table(),
            "traced": by_operation(counts.traced),
            "reasons": by_operation(counts.reasons),
            "trace_events": self.trace_events,
            "news_seconds": round(self.news_seconds, 3),
            "activity": self.activity,
            "workers": [asdict(worker) for worker in self.workers],
            "skipped": self.skipped,
            "warnings": self.warnings,
            "sequences": self.sequences and asdict(self.sequences),
            "canary": self.canary and asdict(self.canary),
            "findings": [_finding(finding) for finding in self.findings],
            "differences": [asdict(difference) for difference in self.differences],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Summary":
        """The summary that the object of ``campaign.json`` tells."""
        return cls(
            qbprop=record["qbprop"],
            qemus=[QemuRecord(**qemu) for qemu in record["qemus"]],
            guest_io=record["guest_io"],
            profile=record["profile"],
            seed=record["seed"],
            status=record["status"],
            seconds=record["seconds"],
            commands=record["commands"],
            memory=record.get("memory", 0),
            statistics=Statistics.from_record(record),
            findings=[FindingRecord(**finding) for finding in record["findings"]],
            jobs=record["jobs"],
            rounds=record["rounds"],
            request=record["request"],
            machine=record["machine"],
            skipped=record["skipped"],
            warnings=record["warnings"],
            sequences=SequencesRecord(**record["sequences"]) if record["sequences"] else None,
            canary=CanaryRecord(**record["canary"]) if record["canary"] else None,
            differences=[DifferenceRecord(**each) for each in record.get("differences", ())],
            trace_events=record.get("trace_events", []),
            news_seconds=record.get("news_seconds", 0.0),
            activity=record.get("activity", ""),
            workers=[WorkerRecord(**worker) for worker in record.get("workers", ())],
        )

    @classmethod
    def read(cls, folder: Path) -> "Summary | None":
        """What ``campaign.json`` in a folder tells, None before the first one is written."""
        try:
            text = (folder / "campaign.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        return cls.from_record(json.loads(text))

    def write(self, folder: Path) -> None:
        """Write ``campaign.json`` into the campaign directory, atomically.

        :raises OSError: it cannot be written.
        """
        text = json.dumps(self.to_record(), indent=2) + "\n"
        write_atomically(folder / "campaign.json", text)


def _finding(finding: FindingRecord) -> dict[str, Any]:
    return asdict(finding) | {"seconds_to_find": round(finding.seconds_to_find, 3)}
