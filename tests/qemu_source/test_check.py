"""Exported tests under QEMU's own ``check``: they fail where the bug is, and only there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.qemu_source.conftest import Sources

from qbprop.export import iotest
from qbprop.export.certify import export_iotest
from qbprop.export.iotest import EXPECTED_OUTPUT
from qbprop.export.story import tell
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.trace import read_trace

ROOT = Path(__file__).parents[2]
BUGS = sorted((ROOT / "src/qbprop/known_traces").glob("*.jsonl"))
WRONG = sorted((ROOT / "tests/export/variants").glob("*.jsonl"))

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


def outlived(path: Path) -> bool:
    """Whether a job outlives an operation, which a test for the suite cannot show yet."""
    return tell(read_trace(path).examples, "").has_jobs_in_flight


def put(suite: Path, lab: Lab, paths: list[Path]) -> list[str]:
    names = []
    for path in paths:
        name = f"qbprop-{path.stem}"
        test = suite / "tests" / name
        test.write_text(export_iotest(lab, read_trace(path)).text)
        test.chmod(0o755)
        (suite / "tests" / f"{name}.out").write_text(EXPECTED_OUTPUT)
        names.append(name)
    return names


def test_a_test_fails_where_the_bug_is(
    suite: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iotest, "SECONDS", 10)
    lab = Lab(find_binaries(str(sources.build)), timeout=2.0)
    names = put(suite, lab, [path for path in BUGS if not outlived(path)])
    output = check(suite, sources, names)
    sys.stdout.write(output)
    assert f"Failed {len(names)} of {len(names)} iotests" in output
    assert f"Failures: {' '.join(sorted(names))}" in output


def test_a_test_passes_where_qemu_behaves(suite: Path, sources: Sources) -> None:
    names = put(suite, Lab(find_binaries(str(sources.build))), WRONG)
    output = check(suite, sources, names)
    sys.stdout.write(output)
    assert f"Passed all {len(names)} iotests" in output
