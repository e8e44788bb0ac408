"""Exported tests under QEMU's own ``check``: they fail where the bug is, and only there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.export.stories import HEALTHY, IN_FLIGHT
from tests.qemu_source.conftest import Sources

from qbprop.export import iotest
from qbprop.export.certify import export_iotest
from qbprop.export.iotest import EXPECTED_OUTPUT
from qbprop.export.story import About, tell
from qbprop.findings import KINDS
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.trace import read_trace

ROOT = Path(__file__).parents[2]
BUGS = sorted((ROOT / "src/qbprop/known_traces").glob("*.jsonl"))
WRONG = sorted((ROOT / "tests/export/variants").glob("*.jsonl"))

ABOUT = About(id="0123456789ab", kind="", title="a test")

STORIES = (
    [HEALTHY, HEALTHY[:3]],
    [HEALTHY[:3], IN_FLIGHT[:6]],
    [IN_FLIGHT[:9], HEALTHY[:3]],
    [IN_FLIGHT],
    [HEALTHY[:7]],
    [HEALTHY[:14]],
)
"""Some end with a guest's request that succeeds, or is refused."""

MISTAKES = (
    ("jobs", "['status'], 'pending'", "['status'], 'running'"),
    ("jobs", "set(['job0'])", "set([])"),
    ("events", "waiting pending", "waiting waiting pending"),
    ("count", "len(bitmaps), 2", "len(bitmaps), 1"),
    ("fields", "['busy'], True", "['busy'], False"),
)
"""Of a test with a job in flight: its kind, what it expects there, and what is wrong."""

CHECK_SECONDS = 600

WRAPPER = """\
#!/bin/bash
# The module iotests refuses a QEMU without virtio-blk, which no test here uses.
[[ $* != *"-device help"* ]] || echo 'name "virtio-blk-device", bus virtio-bus'
exec {qemu} "$@"
"""


@pytest.fixture
def suite(sources: Sources, tmp_path: Path) -> Path:
    """A copy of QEMU's suite, with what it needs of the source tree around it."""
    for part in ("tests/qemu-iotests", "python"):
        shutil.copytree(sources.source / part, tmp_path / "qemu" / part, symlinks=True)
    wrapper = tmp_path / "qemu-system-x86_64"
    wrapper.write_text(WRAPPER.format(qemu=sources.build / "qemu-system-x86_64"))
    wrapper.chmod(0o755)
    return tmp_path / "qemu/tests/qemu-iotests"


def check(suite: Path, sources: Sources, tests: list[str]) -> str:
    build = sources.build
    environment = os.environ | {
        "QEMU_PROG": str(suite.parents[2] / "qemu-system-x86_64"),
        "QEMU_IMG_PROG": str(build / "qemu-img"),
        "QEMU_IO_PROG": str(build / "qemu-io"),
        "QEMU_NBD_PROG": str(build / "qemu-nbd"),
        "QSD_PROG": str(build / "storage-daemon/qemu-storage-daemon"),
        "TEST_DIR": str(suite.parents[2] / "scratch"),
    }
    done = subprocess.run(
        [sys.executable, "check", "-qcow2", *tests],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


def put(suite: Path, name: str, text: str) -> str:
    """The test of this text in the suite; its name there."""
    test = suite / "tests" / f"qbprop-{name}"
    test.write_text(text)
    test.chmod(0o755)
    test.with_name(f"{test.name}.out").write_text(EXPECTED_OUTPUT)
    return test.name


def exported(suite: Path, lab: Lab, path: Path) -> str:
    return put(suite, path.stem, export_iotest(lab, read_trace(path)).text)


def test_a_test_fails_where_the_bug_is(
    suite: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iotest, "SECONDS", 10)
    lab = Lab(find_binaries(str(sources.build)), timeout=2.0)
    names = [exported(suite, lab, path) for path in BUGS]
    output = check(suite, sources, names)
    sys.stdout.write(output)
    assert f"Failed {len(names)} of {len(names)} iotests" in output
    assert f"Failures: {' '.join(sorted(names))}" in output


def test_a_test_passes_where_qemu_behaves(suite: Path, sources: Sources) -> None:
    lab = Lab(find_binaries(str(sources.build)))
    names = [exported(suite, lab, path) for path in WRONG]
    for kind in KINDS:
        for number, examples in enumerate(STORIES):
            text = iotest.render(tell(examples, kind), ABOUT)
            names.append(put(suite, f"{kind}-{number}", text))
    output = check(suite, sources, names)
    sys.stdout.write(output)
    assert f"Passed all {len(names)} iotests" in output


@pytest.mark.parametrize(("length", "printed"), [(7, 1), (14, 0)])
def test_the_answer_to_a_guest_is_checked(
    suite: Path, sources: Sources, length: int, printed: int
) -> None:
    text = iotest.render(tell([HEALTHY[:length]], "reply"), ABOUT)
    due = f"assertEqual(printed, {printed})"
    assert due in text
    test = put(suite, "reply", text.replace(due, f"assertEqual(printed, {1 - printed})"))
    output = check(suite, sources, [test])
    assert "Failed 1 of 1 iotests" in output


@pytest.mark.parametrize(("name", "old", "new"), MISTAKES, ids=lambda text: text[:16])
def test_a_check_that_is_made_wrong_fails(
    suite: Path, sources: Sources, name: str, old: str, new: str
) -> None:
    before, heading, after = iotest.render(tell([IN_FLIGHT[:5]], name), ABOUT).partition(
        "# What must be true now"
    )
    assert old in after
    test = put(suite, name, before + heading + after.replace(old, new))
    output = check(suite, sources, [test])
    assert "Failed 1 of 1 iotests" in output
