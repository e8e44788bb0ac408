"""Traces: sequences of operations as JSON Lines, strict about every field.

The first line is a header, every further line one operation. A line ``{"op": "reset"}``
separates examples: the block graph is empty again, QEMU is the same. A finding that needs
what an earlier example left behind is written as a trace of several examples.

Reading refuses whatever it does not know (a field, an operation, a newer format), so that a
trace never means something else than what was written. Defaults are left out when writing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qbprop.atomic import write_atomically
from qbprop.errors import TraceError
from qbprop.records import RecordError, operation_from_record, operation_to_record, structure
from qbprop_model.operations import Operation

FORMAT = 1
"""The version of the format this qbprop writes. It reads this one and older ones."""

RESET = "reset"
"""The ``op`` of the line that separates two examples."""


@dataclass(frozen=True, kw_only=True)
class FindingHeader:
    """Which finding a trace shows; ``id`` is what ``replay`` looks for."""

    id: str
    kind: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """Where a trace comes from. A trace written by hand needs ``qbprop_trace`` alone.

    ``transport`` is how guest I/O was done ("nbd" or "hmp"), ``seed`` that of the campaign,
    ``created`` a date and time in ISO 8601.
    """

    qbprop_trace: int = FORMAT
    qemu_version: str = ""
    engine: str = "qemu-system"
    transport: str = ""
    seed: int | None = None
    created: str = ""
    finding: FindingHeader | None = None


@dataclass(frozen=True)
class Trace:
    """One or more examples, each a sequence of operations on an empty block graph."""

    examples: tuple[tuple[Operation, ...], ...]
    header: Header = field(default_factory=Header)

    @property
    def length(self) -> int:
        """The number of operations."""
        return sum(map(len, self.examples))


def dump_trace(trace: Trace) -> str:
    """The text of a trace file (ASCII, every line ended)."""

    def records() -> Iterator[dict[str, Any]]:
        yield asdict(trace.header)
        for number, example in enumerate(trace.examples):
            if number:
                yield {"op": RESET}
            yield from map(operation_to_record, example)

    return "".join(json.dumps(record) + "\n" for record in records())


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace file, atomically.

    :raises OSError: the file cannot be written.
    """
    write_atomically(path, dump_trace(trace))


def read_trace(path: Path) -> Trace:
    """Read a trace file.

    :raises TraceError: it cannot be read, or is not a trace; names the file and the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}; give a trace.jsonl that exists") from error
    return parse_trace(raw, str(path))


def parse_trace(raw: bytes, name: str) -> Trace:
    """Read the bytes of a trace file called ``name``.

    :raises TraceError: they are not a trace; names the line.
    """
    lines = [(n, line) for n, line in enumerate(raw.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise TraceError(f"{name}: the trace is empty; it must begin with a header line")
    where, first = lines[0]
    try:
        header = _header(_load(first))
        examples: list[list[Operation]] = [[]]
        for where, line in lines[1:]:  # noqa: B007 (named in the error)
            operation = _step(_load(line))
            if operation is None:
                examples.append([])
            else:
                examples[-1].append(operation)
    except RecordError as error:
        raise TraceError(f"{name}:{where}: {error}") from error
    if not any(examples):
        raise TraceError(f"{name}:{where}: no operation follows the header; was it cut short?")
    return Trace(tuple(map(tuple, examples)), header)


def _step(record: dict[str, Any]) -> Operation | None:
    """The operation on a line, or None for a reset."""
    if record.get("op") != RESET:
        return operation_from_record(record)
    if len(record) > 1:
        raise RecordError("'reset' takes no fields; remove them")
    return None


def _load(line: bytes) -> dict[str, Any]:
    """The JSON object on a line."""
    try:
        text = line.decode("utf-8")
        record = json.loads(text, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise RecordError(f"byte {error.start + 1} is not UTF-8; is this a trace?") from error
    except json.JSONDecodeError as error:
        raise RecordError(
            f"not a JSON object ({error.msg} at column {error.colno}); "
            "the line was cut short or is not part of a trace"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a JSON object that a trace can hold ({error})") from error
    if not isinstance(record, dict):
        raise RecordError("not a JSON object; every line of a trace is one: {...}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise RecordError("a field is given twice; remove one of them")
    return result


def _header(record: dict[str, Any]) -> Header:
    version = record.get("qbprop_trace")
    if version is None:
        raise RecordError(
            'the header is missing; the first line must be like {"qbprop_trace": 1, ...}'
        )
    if isinstance(version, int) and not isinstance(version, bool):
        if version > FORMAT:
            raise RecordError(
                f"the trace has format {version}, newer than this qbprop's {FORMAT}; "
                "use a newer qbprop"
            )
        if version < 1:
            raise RecordError(f"there is no trace format {version}; formats begin at 1")
    return structure(record, Header)
