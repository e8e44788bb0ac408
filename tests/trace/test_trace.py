"""A trace file holds what was written to it, and nothing else is read as a trace."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.trace.vocabulary import operations, values

from qbprop.errors import TraceError
from qbprop.trace import FindingHeader, Header, Trace, dump_trace, parse_trace, read_trace
from qbprop.trace import write_trace as write
from qbprop.trace_schema import schema
from qbprop_model.operations import (
    Abort,
    AddDisk,
    BitmapMerge,
    Flush,
    Layer,
    MergeSource,
    Operation,
    Pattern,
    Read,
    Transaction,
)

EXAMPLES = (
    (
        AddDisk(
            node="drive0", layers=(Layer(size=512, data=(Pattern(offset=0, length=3, fill=0),)),)
        ),
        BitmapMerge(node="drive0", target="ü\n'\"\\", sources=(MergeSource(name="a", node="b"),)),
    ),
    (),
    (Transaction(actions=(Abort(),)),),
)

without_hurry = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
"""Whole traces take long to draw on a busy machine."""

traces = st.builds(
    Trace,
    st.lists(st.lists(operations(), max_size=4).map(tuple), min_size=1, max_size=3)
    .map(tuple)
    .filter(any),
    values(Header).map(lambda header: Header(**{**vars(header), "qbprop_trace": 1})),
)


@without_hurry
@given(traces)
@example(Trace(EXAMPLES))
def test_a_trace_comes_back_as_it_was(trace: Trace) -> None:
    assert parse_trace(dump_trace(trace).encode(), "trace") == trace


VALIDATOR = Draft202012Validator(schema())


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())


@without_hurry
@given(traces)
@example(Trace(EXAMPLES))
def test_every_line_satisfies_the_schema(trace: Trace) -> None:
    for line in dump_trace(trace).splitlines():
        VALIDATOR.validate(json.loads(line))


@without_hurry
@given(operations(), st.data())
def test_the_schema_and_the_reader_refuse_the_same(
    operation: Operation, data: st.DataObject
) -> None:
    """One field of a valid line is spoilt: both must see it, or both let it pass."""
    line = json.loads(dump_trace(Trace(((operation,),))).splitlines()[1])
    field = data.draw(st.sampled_from(sorted(line)))
    line[field] = data.draw(
        st.sampled_from([True, "text", 1.5, [], {}, None, ["x"], [{"size": "1"}]])
    )
    text = f'{{"qbprop_trace": 1}}\n{json.dumps(line)}'
    assert VALIDATOR.is_valid(line) == _reads(text)


def _reads(text: str) -> bool:
    """Whether a trace is read; what the classes check among several values is no schema's."""
    try:
        parse_trace(text.encode(), "trace")
    except TraceError as error:
        return "give exactly one" in str(error) or "at least one layer" in str(error)
    return True


def test_defaults_are_left_out_and_op_comes_first() -> None:
    line = dump_trace(Trace(((Read(node="drive0", offset=0, length=512),),))).splitlines()[1]
    assert line == '{"op": "read", "node": "drive0", "offset": 0, "length": 512}'


def test_the_header_has_every_field() -> None:
    finding = FindingHeader(id="12", kind="count", title="bits lost")
    header = Header(
        qemu_version="7.2.0", transport="nbd", seed=5, created="2026-01-01", finding=finding
    )
    assert json.loads(dump_trace(Trace((), header)).splitlines()[0]) == {
        "qbprop_trace": 1,
        "qemu_version": "7.2.0",
        "engine": "qemu-system",
        "transport": "nbd",
        "seed": 5,
        "created": "2026-01-01",
        "finding": {"id": "12", "kind": "count", "title": "bits lost"},
    }


def test_a_header_written_by_hand_needs_the_version_alone() -> None:
    trace = parse_trace(b'{"qbprop_trace": 1}\r\n\n{"op": "flush", "node": "drive0"}', "trace")
    assert trace == Trace(((Flush(node="drive0"),),))


def test_examples_are_separated_by_resets() -> None:
    assert [json.loads(line).get("op") for line in dump_trace(Trace(EXAMPLES)).splitlines()] == [
        None,
        "add_disk",
        "bitmap_merge",
        "reset",
        "reset",
        "transaction",
    ]
    assert Trace(EXAMPLES).length == 3


HEADER = b'{"qbprop_trace": 1}'
READ = b'{"op": "read", "node": "drive0", "offset": 0, "length": 512}'


@pytest.mark.parametrize(
    ("raw", "line", "text"),
    [
        (b"", None, "empty"),
        (b"\n \n", None, "empty"),
        (HEADER, 1, "cut short"),
        (HEADER + b'\n{"op": "reset"}', 2, "cut short"),
        (HEADER + b"\n" + READ[:30], 2, "cut short"),
        (READ, 1, "header is missing"),
        (b'{"qbprop_trace": 2}\n' + READ, 1, "newer qbprop"),
        (b'{"qbprop_trace": 0}\n' + READ, 1, "no trace format 0"),
        (b'{"qbprop_trace": true}\n' + READ, 1, "'qbprop_trace': must be an integer"),
        (b'{"qbprop_trace": 1, "author": 1}\n' + READ, 1, "unknown field 'author'"),
        (b'{"qbprop_trace": 1, "finding": {"id": "x"}}\n' + READ, 1, "'finding.kind'"),
        (HEADER + b"\n" + READ + b"\nhello", 3, "not a JSON object"),
        (HEADER + b"\n[]", 2, "not a JSON object"),
        (HEADER + b"\n" + b"[" * 100_000, 2, "not a JSON object"),
        (HEADER + b'\n{"op": "read", "length": ' + b"1" * 5000 + b"}", 2, "not a JSON object"),
        (HEADER + b'\n{"op": "\xff"}', 2, "byte 9 is not UTF-8"),
        (HEADER + b'\n{"op": "raed"}', 2, "unknown operation 'raed'; did you mean 'read'"),
        (HEADER + b'\n{"op": "frobnicate"}', 2, "unknown operation 'frobnicate'"),
        (HEADER + b'\n{"op": "abort"}', 2, "'abort' stands only among the actions"),
        (HEADER + b'\n{"op": ["read"]}', 2, "'op' must be a string"),
        (HEADER + b"\n{}", 2, "'op' is missing"),
        (HEADER + b'\n{"op": "reset", "node": "drive0"}', 2, "'reset' takes no fields"),
        (HEADER + b"\n" + READ.replace(b"length", b"lenght"), 2, "'length': the field is missing"),
        (HEADER + b"\n" + READ.replace(b"}", b', "flags": 1}'), 2, "unknown field 'flags'"),
        (HEADER + b"\n" + READ.replace(b"}", b', "length": 1}'), 2, "given twice"),
        (HEADER + b"\n" + READ.replace(b"512", b"-512"), 2, "length must lie between"),
        (HEADER + b"\n" + READ.replace(b"512", b'"512"'), 2, "'length': must be an integer"),
        (HEADER + b"\n" + READ.replace(b"512", b"512.0"), 2, "'length': must be an integer"),
        (HEADER + b"\n" + READ.replace(b"512", b"true"), 2, "'length': must be an integer"),
        (HEADER + b"\n" + READ.replace(b'"drive0"', b"7"), 2, "'node': must be a string"),
        (HEADER + b"\n" + READ.replace(b"drive0", b"\\ud800"), 2, "'node': must not hold half"),
        (
            HEADER + b'\n{"op": "add_disk", "node": "a", "layers": [{"size": 1, "format": "vdi"}]}',
            2,
            "'layers[0].format': must be one of 'qcow2', 'raw', not 'vdi'",
        ),
        (
            HEADER + b'\n{"op": "transaction", "actions": [{"op": "abort"}, {"op": "flush"}]}',
            2,
            "'actions[1]': 'flush' cannot stand in a transaction",
        ),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(raw: bytes, line: int | None, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace(raw, "my.jsonl")
    message = str(caught.value)
    assert message.startswith("my.jsonl: " if line is None else f"my.jsonl:{line}: ")
    assert text in message
    assert "\n" not in message
    assert len(message) < 300


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(TraceError, match=str(path)):
            read_trace(path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    write(path, Trace(EXAMPLES))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(path, Trace(((Flush(node="other"),),)))
    assert read_trace(path) == Trace(EXAMPLES)
    assert list(tmp_path.iterdir()) == [path]
