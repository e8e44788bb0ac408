"""``qbprop export``, ``replay`` on several QEMUs, ``fuzz --only-known``."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.cli.run import qbprop

from qbprop.export.iotest import EXPECTED_OUTPUT
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import Features
from qbprop.trace import FindingHeader, Header, Trace, write_trace
from qbprop_model.operations import AddDisk, BitmapAdd, Layer, Operation, Write

STEPS: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=131072),)),
    BitmapAdd(node="drive0", name="bitmap0"),
    Write(node="drive0", offset=0, length=512, fill=1),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    named = FindingHeader(id="0" * 12, kind="count", title="count after write: lost")
    write_trace(path, Trace((STEPS,), Header(finding=named)))
    return path


def test_the_script_runs_with_nothing_but_a_path(trace: Path, tmp_path: Path) -> None:
    script = tmp_path / "reproduce.sh"
    done = qbprop("export", trace, "--format", "sh", "-o", script)
    assert (done.returncode, done.stdout) == (0, "")
    assert "exit code 0" in done.stderr
    path = os.pathsep.join([str(find_binaries(None).system.parent), os.defpath])
    ran = subprocess.run(
        ["env", "-i", f"PATH={path}", "bash", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.endswith("RESULT: this QEMU behaves\n")
    assert ran.stderr == ""
    printed = qbprop("export", trace, "--format", "sh")
    assert printed.stdout == script.read_text()


def test_a_test_for_qemus_suite_has_its_output_beside_it(trace: Path, tmp_path: Path) -> None:
    test = tmp_path / "count"
    assert qbprop("export", trace, "--format", "iotest", "-o", test).returncode == 0
    compile(test.read_text(), "count", "exec")
    assert test.read_text().startswith("#!/usr/bin/env python3\n# group: rw quick\n")
    assert os.access(test, os.X_OK)
    assert (tmp_path / "count.out").read_text() == EXPECTED_OUTPUT


@pytest.mark.parametrize("text", ["", '{"qbprop_trace": 1}\n{"op": "no"}\n'])
def test_a_bad_trace_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    done = qbprop("export", path, "--format", "sh")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_format_that_is_none_is_wrong_usage(trace: Path) -> None:
    assert qbprop("export", trace, "--format", "perl").returncode == 2


def liar(folder: Path) -> Path:
    """A directory with a QEMU that refuses to add bitmaps with a name."""
    binaries = find_binaries(None)
    folder.mkdir()
    program = folder / "qemu-system-x86_64"
    program.write_text(
        f'#!/bin/bash\n[[ $1 != --version ]] || exec {binaries.system} "$@"\nexit 1\n'
    )
    program.chmod(0o755)
    return folder


def test_replay_on_several_qemus_says_which_behave(trace: Path, tmp_path: Path) -> None:
    good = str(find_binaries(None).system)
    done = qbprop("replay", trace, "--qemu", good, "--qemu", good)
    assert done.returncode == 0
    assert [" behaves " in line for line in done.stdout.splitlines()] == [True, True]
    broken = liar(tmp_path / "broken")
    done = qbprop("replay", trace, "--qemu", good, "--qemu", broken)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert " behaves " in first
    assert "cannot be tried" in second
    assert second.endswith(str(broken))
    assert qbprop("replay", trace, "--qemu", broken, "--qemu", broken).returncode == 125


def test_replay_on_several_qemus_exits_with_1_where_one_shows_it(tmp_path: Path) -> None:
    known = Path(__file__).parents[2] / "src/qbprop/known_traces/failed-enable.jsonl"
    good = str(find_binaries(None).system)
    done = qbprop("replay", known, "--qemu", good, "--qemu", tmp_path / "none")
    if " behaves " in done.stdout:
        pytest.skip("this QEMU does not have the bug")
    assert done.returncode == 1
    assert "shows the finding" in done.stdout


def test_each_known_finding_is_tried_and_named(tmp_path: Path, features: Features) -> None:
    done = qbprop("fuzz", "--only-known", "--json", "--out", tmp_path / "out")
    assert done.returncode == 0
    records = json.loads(done.stdout)
    assert len(records) >= 7
    tried = {"there", "fixed", "another"} | (set() if features.blockdev_reopen else {"untried"})
    assert {record["outcome"] for record in records} <= tried
    assert all(record["title"] for record in records)
    assert not (tmp_path / "out").exists()
