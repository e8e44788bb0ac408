#!/usr/bin/env python3
"""Writes the table of docs/versions.md anew, from the QEMUs that `make qemus` has brought."""

import os
import sys
from pathlib import Path

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import Features
from qbprop.qemu.version_table import MARK, rows

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("5.2", "7.2", "10.0", "11.1")


def main() -> int:
    """Ask each QEMU."""
    folder = Path(os.environ.get("QBPROP_QEMUS", ROOT / "build" / "qemus"))
    table = "\n".join(rows(features(folder / version) for version in VERSIONS))
    page = ROOT / "docs" / "versions.md"
    head = page.read_text("utf-8").partition(MARK)[0]
    page.write_text(f"{head}{MARK}\n\n{table}\n", "utf-8")
    return 0


def features(qemu: Path) -> Features:
    """What one QEMU can do."""
    with Lab(find_binaries(str(qemu))).driver() as driver:
        return driver.features


if __name__ == "__main__":
    sys.exit(main())
