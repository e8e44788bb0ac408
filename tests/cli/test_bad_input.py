"""Wrong usage and trouble around qbprop: one clear line, no traceback, the right exit code."""

import subprocess
from pathlib import Path

import pytest
from tests.cli.run import mounted, qbprop

TRACE = '{"qbprop_trace": 1}\n{"op": "flush", "node": "drive0"}\n'


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    assert done.returncode == code, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("qbprop: ")
    for text in texts:
        assert text in lines[0]


@pytest.fixture
def not_qemu(tmp_path: Path) -> Path:
    path = tmp_path / "qemu-system-x86_64"
    path.write_text("#!/bin/sh\necho hello\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("command", ["fuzz", "replay"])
def test_no_qemu_to_use(command: str, tmp_path: Path, not_qemu: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE)
    rest: list[str | Path] = ["--out", tmp_path / "out"] if command == "fuzz" else [trace]
    code = 2 if command == "fuzz" else 125
    assert_one_line(qbprop(command, "--qemu", tmp_path / "none", *rest), code, "does not exist")
    assert_one_line(qbprop(command, "--qemu", not_qemu, *rest), code, "no QEMU emulator")
    not_qemu.chmod(0o644)
    assert_one_line(qbprop(command, "--qemu", not_qemu, *rest), code, "cannot be executed")
    assert_one_line(qbprop(command, *rest, PATH="/nowhere"), code, "--qemu PATH")


def test_a_qemu_that_dies_at_once(tmp_path: Path, not_qemu: Path) -> None:
    for name, kind in (("qemu-img", "qemu-img"), ("qemu-io", "qemu-io")):
        companion = tmp_path / name
        companion.write_text(f"#!/bin/sh\necho {kind} version 7.2.0\n")
        companion.chmod(0o755)
    not_qemu.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo QEMU emulator version 7.2.0; exit; }\n'
        "echo no room >&2; exit 1\n"
    )
    done = qbprop("fuzz", "--qemu", not_qemu, "--out", tmp_path / "out")
    assert_one_line(done, 2, "does not run as QEMU", "no room")


def test_doctor_tells_what_is_missing(tmp_path: Path) -> None:
    done = qbprop("doctor", "--qemu", tmp_path / "none")
    assert done.returncode == 2
    assert "does not exist" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("text", ["nonsense", "60", "0s", "-5s"])
def test_max_time(text: str) -> None:
    done = qbprop("fuzz", f"--max-time={text}")
    assert done.returncode == 2
    assert "60s, 10m" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("fuzz", "--unknown"),
        ("fuzz", "--seed", "-1"),
        ("fuzz", "--max-examples", "0"),
        ("fuzz", "--profile", "mine"),
        ("fuzz", "--focus", "jobs,mine"),
        ("fuzz", "surplus"),
        ("replay",),
        ("replay", "--known", "x", "trace.jsonl"),
        ("trace",),
        ("unknown",),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = qbprop(*arguments)
    assert done.returncode == 2
    assert "Usage: qbprop" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_out_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert_one_line(qbprop("fuzz", "--out", tmp_path), 2, "is not empty", "--out")
    assert_one_line(qbprop("fuzz", "--out", tmp_path / "notes.txt"), 2, "another --out")


def test_a_list_of_known_findings_that_is_none(tmp_path: Path) -> None:
    done = qbprop("fuzz", "--known", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert_one_line(done, 2, "none.toml", "--known")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (TRACE[:-20], "cut short"),
        (TRACE.replace("1}", "2}"), "newer qbprop"),
        (TRACE.replace("flush", "explode"), "unknown operation 'explode'"),
        (TRACE.replace('"flush"', '"resize", "size": -1'), "between 0 and"),
    ],
)
def test_a_trace_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(text)
    assert_one_line(qbprop("replay", trace), 125, says, "trace.jsonl")


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    assert_one_line(qbprop("replay", tmp_path / "none.jsonl"), 125, "none.jsonl", "No such file")


@pytest.mark.parametrize("command", ["fuzz", "replay"])
def test_a_temporary_folder_that_is_missing(command: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE)
    rest: list[str | Path] = ["--out", tmp_path / "out"] if command == "fuzz" else [trace]
    done = qbprop(command, *rest, TMPDIR=str(tmp_path / "none"))
    assert_one_line(done, 2 if command == "fuzz" else 125, "TMPDIR")


def test_a_temporary_folder_that_is_full_or_read_only(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE)
    with mounted(tmp_path / "small", "1M") as small:
        done = qbprop("fuzz", "--out", tmp_path / "out", TMPDIR=str(small))
        assert_one_line(done, 2, "too little for images", "TMPDIR")
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        assert_one_line(qbprop("replay", trace, TMPDIR=str(small)), 125, "Read-only", "TMPDIR")
