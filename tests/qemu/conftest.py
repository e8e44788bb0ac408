"""A real QEMU for the tests that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qbprop.qemu.binaries import Binaries, find_binaries
from qbprop.qemu.process import QemuProcess


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The QEMU that the environment names."""
    return find_binaries(None)


@pytest.fixture
def qemu(binaries: Binaries, tmp_path: Path) -> Iterator[QemuProcess]:
    """A fresh QEMU of the test's own."""
    with QemuProcess(binaries, tmp_path) as process:
        yield process
