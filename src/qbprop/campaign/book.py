"""The findings of a campaign: in memory for the summary, on disk as soon as they are met."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from qbprop.atomic import write_atomically
from qbprop.campaign.certificate import Certificate, Examples
from qbprop.campaign.summary import FindingRecord
from qbprop.findings import Finding
from qbprop.trace import FindingHeader, Header, Trace, dump_trace, write_trace

STDERR_TAIL = 4000
"""Characters of QEMU's standard error that ``finding.json`` keeps."""


@dataclass
class Entry:
    """A finding and the best that is known of it; ``certificate`` once it was replayed.

    ``history`` holds the examples that the same QEMU had performed before ``trace``.
    """

    record: FindingRecord
    finding: Finding
    trace: Trace
    history: Examples
    stderr: str
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
            entry = Entry(record, finding, trace, history, stderr)
            self.entries[finding.id] = entry
            self._write(entry)
            return True
        if entry.record.rate is None and _complexity(trace) < _complexity(entry.trace):
            entry.finding, entry.trace = finding, trace
            entry.history, entry.stderr = history, stderr
            self._write(entry)
            return True
        return False

    def confirm(self, finding: Finding, examples: Examples, certificate: Certificate) -> None:
        """Replace the trace of a finding by one that was replayed on a fresh QEMU.

        ``finding`` is what the replay showed. From now on the trace stays as it is.

        :raises OSError: it cannot be written.
        """
        entry = self.entries[finding.id]
        entry.finding, entry.trace = finding, self._trace(finding, examples)
        entry.record.rate, entry.certificate = certificate.rate, certificate
        self._write(entry)

    def folder(self, identity: str) -> Path:
        """Where a finding's files are."""
        return self._folder / identity

    def _trace(self, finding: Finding, examples: Examples) -> Trace:
        named = FindingHeader(id=finding.id, kind=finding.kind, title=finding.title)
        return Trace(examples, replace(self._header, finding=named))

    def _write(self, entry: Entry) -> None:
        record, finding = entry.record, entry.finding
        record.operations = entry.trace.length
        folder = self.folder(record.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_trace(folder / "trace.jsonl", entry.trace)
        about = {
            "id": record.id,
            "kind": record.kind,
            "title": record.title,
            "qemu_version": self._header.qemu_version,
            "operations": record.operations,
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


def _complexity(trace: Trace) -> tuple[int, int]:
    """Shorter is simpler, then what takes less to write down."""
    return trace.length, len(dump_trace(trace))
