"""Every QEMU that `make qemus` has brought: what the docs say of it, and a short run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qbprop.findings import ReplyFinding
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import TABLE
from qbprop.qemu.version_table import MARK, column, rows
from qbprop_model.operations import AddDisk, BlockdevMirror, Layer, Resize

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("QBPROP_QEMUS", ROOT / "build" / "qemus"))
BROUGHT = [
    pytest.param(
        FOLDER / version,
        id=version,
        marks=()
        if (FOLDER / version / "bin").is_dir()
        else pytest.mark.skip(reason=f"make qemus has not brought QEMU {version}"),
    )
    for version in ("5.2", "7.2", "10.0", "11.1")
]


def documented() -> list[str]:
    """The lines of the table in the docs."""
    page = (ROOT / "docs" / "versions.md").read_text("utf-8")
    return page.partition(MARK)[2].strip().splitlines()


def test_the_table_in_the_docs_has_every_feature() -> None:
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in documented()[2:]]
    due = [(feature.what, feature.sign.words, feature.without) for feature in TABLE]
    assert [(row[0], row[-2], row[-1]) for row in found] == due, "make version-table"


@pytest.mark.parametrize("qemu", BROUGHT)
def test_the_table_in_the_docs_is_right(qemu: Path) -> None:
    with Lab(find_binaries(str(qemu))).driver() as driver:
        features = driver.features
    found = column(rows([features]), features.version)
    assert column(documented(), features.version) == found, "make version-table"


@pytest.mark.parametrize("qemu", BROUGHT)
def test_a_short_run_finds_nothing_new(qemu: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("qbprop")
    command: list[str | Path] = [program, "fuzz", "--qemu", qemu, "--out", tmp_path / "out"]
    command += ["--seed", "1", "--max-examples", "10", "--max-time", "60s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("qemu", BROUGHT[:1])
def test_a_qemu_that_cannot_tell_of_its_disks_has_lost_no_job(qemu: Path) -> None:
    """A disk of 2^63 - 1 bytes, which 5.2 makes, lets no query of nodes be answered."""
    disks = [AddDisk(node=node, layers=(Layer(size=1 << 20),)) for node in ("drive0", "drive1")]
    empty = AddDisk(node="drive2", layers=(Layer(size=0, format="raw"),))
    mirror = BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0")
    with Lab(find_binaries(str(qemu))).session() as session:
        session.begin()
        for operation in (*disks, empty, mirror):
            session.step(operation)
        with pytest.raises(
            ReplyFinding, match="reply after a resize to more than any disk can have"
        ):
            session.step(Resize(node="drive2", size=(1 << 63) - 1))
