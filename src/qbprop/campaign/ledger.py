"""What the shares of a campaign did, on disk: from there it goes on when it was killed.

``OUT/shares/NUMBER/campaign`` is the folder of a share that is not counted yet, a campaign of its
own. ``OUT/shares/done.json`` tells what all shares did that are; their findings are in
``OUT/findings``, and their folders are gone.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qbprop.atomic import write_atomically
from qbprop.campaign.corpus import CORPUS, add_corpus
from qbprop.campaign.database import add_missed
from qbprop.campaign.statistics import Statistics
from qbprop.campaign.summary import FindingRecord, Summary, WorkerRecord

SHARES = "shares"
DONE = "done.json"


class Ledger:
    """The shares in the campaign directory ``out``; ``summary`` is the whole campaign's.

    ``told`` hears of each finding that is counted first.
    """

    def __init__(
        self, out: Path, summary: Summary, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._out = out
        self._told = told
        self._shares = out / SHARES
        self._open()
        self._began: dict[int, float] = {}
        self._counted: list[int] = []
        self._done = replace(summary, commands=0, statistics=Statistics(), findings=[], warnings=[])
        if (self._shares / DONE).exists():
            record = json.loads((self._shares / DONE).read_text("utf-8"))
            self._counted = record["counted"]
            self._done = Summary.from_record(record["summary"])
        for number in self._counted:
            shutil.rmtree(self._shares / str(number), ignore_errors=True)

    def _open(self) -> None:
        """Make the folder of shares; what a single worker did before becomes the first of them."""
        if self._shares.exists():
            return
        fresh = self._shares.with_name(f".{SHARES}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        if (self._out / "campaign.json").exists():
            first = fresh / "0" / "campaign"
            first.mkdir(parents=True)
            shutil.copy(self._out / "campaign.json", first)
            for name in ("findings", "examples", CORPUS):
                if (self._out / name).exists():
                    shutil.copytree(self._out / name, first / name)
        fresh.rename(self._shares)

    def unfinished(self) -> list[int]:
        """The shares that were begun and are not counted."""
        begun = {int(folder.name) for folder in self._shares.glob("[0-9]*")}
        return sorted(begun - set(self._counted))

    def next_number(self) -> int:
        """The number of a share that was never begun."""
        return max([*self.unfinished(), *self._counted], default=-1) + 1

    def begin(self, number: int, now: float) -> Path:
        """The folder of a share that is begun, or goes on, ``now`` seconds after the start."""
        folder = self._shares / str(number)
        folder.mkdir(exist_ok=True)
        before = Summary.read(self.folder(number))
        self._began[number] = now - before.seconds if before else now
        return folder

    def folder(self, number: int) -> Path:
        """The campaign directory of a share."""
        return self._shares / str(number) / "campaign"

    def count(self, number: int) -> None:
        """Count a share that has ended; its folder goes.

        To begin this again after a kill is no harm: the share counts once ``done.json`` is there.

        :raises OSError: that cannot be written.
        """
        share, done = Summary.read(self.folder(number)), self._done
        assert share is not None
        before = {record.id for record in done.findings}
        self.keep(number)
        done.findings = self._with_findings_of(done.findings, number, share)
        for found in done.findings:
            if found.id not in before:
                word = "known" if found.known else "NEW"
                self._told(f"{word} {found.id}  {found.title}")
        done.statistics.add(share.statistics)
        done.commands += share.commands
        done.warnings += share.warnings
        self._counted.append(number)
        record = {
            "counted": self._counted,
            "summary": done.to_record(),
        }
        write_atomically(self._shares / DONE, json.dumps(record) + "\n")
        shutil.rmtree(self._shares / str(number), ignore_errors=True)

    def keep(self, number: int) -> None:
        """Copy findings and corpus of a share to those of the campaign, where they tell more.

        So is what the share could not give to a database.

        :raises OSError: they cannot be written.
        """
        share = Summary.read(self.folder(number))
        add_corpus(self.folder(number), self._out)
        add_missed(self.folder(number), self._out)
        known = {record.id: record for record in self._done.findings}
        for record in share.findings if share else ():
            if _worth(record) > _worth(known.get(record.id)):
                source = self.folder(number) / "findings" / record.id
                _take_over(source, self._out / "findings" / record.id)

    def keep_all(self) -> None:
        """Copy the findings of all shares that are not counted."""
        for number in self.unfinished():
            self.keep(number)

    @property
    def known(self) -> list[FindingRecord]:
        """The findings of the shares that are counted."""
        return self._done.findings

    @property
    def examples(self) -> int:
        """The examples of all shares."""
        return self._done.statistics.examples + sum(
            share.statistics.examples for share in self._under_way().values()
        )

    def tell(self, summary: Summary) -> None:
        """Put what all shares did into a summary, those too that are not counted yet."""
        done = self._done
        summary.commands, summary.statistics = done.commands, Statistics()
        summary.statistics.add(done.statistics)
        summary.findings, summary.warnings = list(done.findings), list(done.warnings)
        summary.workers = []
        for number, share in self._under_way().items():
            summary.commands += share.commands
            summary.warnings += share.warnings
            summary.statistics.add(share.statistics)
            summary.findings = self._with_findings_of(summary.findings, number, share)
            summary.workers.append(_worker(number, share))

    def _under_way(self) -> dict[int, Summary]:
        every = {number: Summary.read(self.folder(number)) for number in self.unfinished()}
        return {number: summary for number, summary in every.items() if summary is not None}

    def _with_findings_of(
        self, records: list[FindingRecord], number: int, share: Summary
    ) -> list[FindingRecord]:
        found = {record.id: record for record in records}
        for record in share.findings:
            found[record.id] = _together(found.get(record.id), record, self._began.get(number, 0.0))
        return list(found.values())


def _worker(number: int, share: Summary) -> WorkerRecord:
    return WorkerRecord(
        share=number,
        seconds=share.seconds,
        steps=share.statistics.steps,
        activity=share.activity,
    )


def _together(before: FindingRecord | None, record: FindingRecord, began: float) -> FindingRecord:
    """What is known of a finding that a share met again that began so many seconds ago."""
    seconds = began + record.seconds_to_find
    if before is None:
        return replace(record, seconds_to_find=seconds)
    return replace(
        record if _worth(record) > _worth(before) else before,
        seconds_to_find=min(seconds, before.seconds_to_find),
        count=record.count + before.count,
        known=before.known,
    )


def _worth(record: FindingRecord | None) -> tuple[float, int]:
    """A trace that comes back more often is better, then a shorter one; none is worst."""
    if record is None:
        return -1.0, 0
    return record.rate or 0.0, -record.operations


def _take_over(source: Path, target: Path) -> None:
    """Copy a finding's folder, in the place of one that is there."""
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
