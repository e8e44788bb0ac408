"""Every QEMU that `make qemus` has brought: what the docs say of it, and a short run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import TABLE
from qbprop.qemu.version_table import MARK, column, rows

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
