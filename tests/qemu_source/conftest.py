"""QEMU's sources and a build of them: ``make test-qemu-source`` provides both."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Sources:
    """Where QEMU's sources are, and the folder that they were built in."""

    source: Path
    build: Path


@pytest.fixture(scope="session")
def sources() -> Sources:
    """Both, or the test is skipped."""
    source, build = os.environ.get("QBPROP_QEMU_SOURCE"), os.environ.get("QBPROP_QEMU_BUILD")
    if not source or not build:
        pytest.skip("needs QEMU's sources and a build: make test-qemu-source")
    return Sources(Path(source).resolve(), Path(build).resolve())
