"""The findings of a campaign: in memory for the summary, on disk as soon as they are met."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qbprop.atomic import write_atomically
from qbprop.campaign.certificate import Certificate, Examples
from qbprop.campaign.summary import FindingRecord
from qbprop.findings import KINDS, Finding
from qbprop.trace import FindingHeader, Header, Trace, dump_trace, read_trace, write_trace

STDERR_TAIL = 4000
"""Characters of QEMU's standard error that ``finding.json`` keeps."""

HISTORY = "history.jsonl"
"""What the same QEMU had performed before, until the finding is confirmed."""


@dataclass
class Entry:
    """A finding and the best that is known of it; ``certificate`` once it was replayed.

    ``history`` holds the examples that the same QEMU had performed before ``trace``; ``met`` is
    the finding as it was met first.
    """

    record: FindingRecord
    finding: Finding
    trace: Trace
    history: Examples
    stderr: str
    met: Finding
    certificate: Certificate | None = None


class Book:
    """All findings by id. ``header`` is what their traces have in common."""

    def __init__(self, folder: Path, header: Header) -> None:
        self._folder = folder / "findings"
        self._header = header
        self.entries: dict[str, Entry] = {}

    @property
    def records(self) -> list[FindingRecord]:
        """For the summary, in the order in which they were met."""
        return [entry.record for entry in self.entries.values()]

    def meet(
        self, finding: Finding, *, history: Examples, stderr: str, seconds: float, known: bool
    ) -> bool:
        """Note a finding that was just met, ``seconds`` after the start.

        It is written at once, and True returned, when it is new or its trace is simpler than
        the one there was.

        :raises OSError: it cannot be written.
        """
        finding = finding.without_traceback()
        entry = self.entries.get(finding.id)
        trace = self._trace(finding, (finding.trace,))
        if entry is None:
            record = FindingRecord(
                id=finding.id,
                kind=finding.kind,
                title=finding.title,
                operations=trace.length,
                seconds_to_find=seconds,
                known=known,
            )
            entry = Entry(record, finding, trace, history, stderr, finding)
            self.entries[finding.id] = entry
            self._write_first(entry)
            return True
        if entry.record.rate is None and _complexity(trace) < _complexity(entry.trace):
            entry.finding, entry.trace = finding, trace
            entry.history, entry.stderr = history, stderr
            self._write(entry, self.folder(finding.id))
            return True
        return False

    def confirm(
        self,
        finding: Finding,
        examples: Examples,
        certificate: Certificate,
        accompany: Callable[[Entry, Path], None] = lambda *_: None,
    ) -> None:
        """Replace the trace of a finding by one that was replayed on a fresh QEMU.

        ``finding`` is what the replay showed. From now on the trace stays as it is.
        ``accompany`` puts what else there is into the folder, before the certificate tells that
        the finding is done with.

        :raises OSError: it cannot be written.
        """
        entry = self.entries[finding.id]
        folder = self.folder(finding.id)
        entry.finding = finding.without_traceback()
        entry.trace = self._trace(finding, examples)
        entry.record.operations = entry.trace.length
        write_trace(folder / "trace.jsonl", entry.trace)
        accompany(entry, folder)
        entry.record.rate, entry.certificate = certificate.rate, certificate
        self._write(entry, folder)
        (folder / HISTORY).unlink(missing_ok=True)

    def resume(self, records: Iterable[FindingRecord]) -> None:
        """Take up what was found before; ``records`` tell of it, but perhaps not of the last."""
        known = {record.id: record for record in records}
        found = [_read(path) for path in self._folder.glob("*/finding.json")]
        for entry in sorted(found, key=lambda entry: entry.record.seconds_to_find):
            entry.record = known.get(entry.record.id, entry.record)
            self.entries[entry.record.id] = entry

    def folder(self, identity: str) -> Path:
        """Where a finding's files are."""
        return self._folder / identity

    def _trace(self, finding: Finding, examples: Examples) -> Trace:
        named = FindingHeader(id=finding.id, kind=finding.kind, title=finding.title)
        return Trace(examples, replace(self._header, finding=named))

    def _write_first(self, entry: Entry) -> None:
        """Make the folder of a finding; it is never there in part."""
        folder = self.folder(entry.record.id)
        fresh = folder.with_name(f".{folder.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        if entry.history and not entry.record.known:
            write_trace(fresh / HISTORY, Trace(entry.history, self._header))
        self._write(entry, fresh)
        fresh.rename(folder)

    def _write(self, entry: Entry, folder: Path) -> None:
        record, finding = entry.record, entry.finding
        record.operations = entry.trace.length
        write_trace(folder / "trace.jsonl", entry.trace)
        about = {
            "id": record.id,
            "kind": record.kind,
            "title": record.title,
            "operation": finding.operation,
            "aspect": finding.aspect,
            "symptom": finding.symptom,
            "qemu_version": self._header.qemu_version,
            "operations": record.operations,
            "seconds_to_find": round(record.seconds_to_find, 3),
            "expected": finding.expected,
            "observed": finding.observed,
            "bitmap": finding.bitmap,
            "image": finding.image,
            "lost": finding.lost,
            "spare": finding.spare,
            "functions": finding.functions,
            "stderr": entry.stderr[-STDERR_TAIL:],
            "rate": record.rate,
            "known": record.known,
            "certificate": entry.certificate and entry.certificate.to_record(record.id),
        }
        write_atomically(folder / "finding.json", json.dumps(about, indent=2) + "\n")


def _read(path: Path) -> Entry:
    """What the folder of a ``finding.json`` holds; a certificate tells no more than its rate."""
    about: dict[str, Any] = json.loads(path.read_text("utf-8"))
    trace = read_trace(path.with_name("trace.jsonl"))
    before = path.with_name(HISTORY)
    finding = KINDS[about["kind"]](
        operation=about["operation"],
        aspect=about["aspect"],
        expected=about["expected"],
        observed=about["observed"],
        trace=trace.examples[-1],
        symptom=about["symptom"],
        bitmap=tuple(about["bitmap"]) if about["bitmap"] else None,
        image=about["image"],
        lost=tuple(map(tuple, about["lost"])),
        spare=tuple(map(tuple, about["spare"])),
        functions=tuple(about["functions"]),
    )
    record = FindingRecord(
        id=about["id"],
        kind=about["kind"],
        title=about["title"],
        operations=trace.length,
        seconds_to_find=about["seconds_to_find"],
        count=1,
        rate=about["rate"],
        known=about["known"],
    )
    history = read_trace(before).examples if before.exists() else ()
    return Entry(record, finding, trace, history, about["stderr"], finding)


def _complexity(trace: Trace) -> tuple[int, int]:
    """Shorter is simpler, then what takes less to write down."""
    return trace.length, len(dump_trace(trace))
