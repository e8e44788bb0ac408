"""The command line: within this process, which is quick, or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from qbprop.cli import main


def qbprop(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``qbprop`` to its end, with variables added to the environment."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(main, words, prog_name="qbprop", env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def start_qbprop(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``qbprop`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "qbprop", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


WRONG = """
from functools import partial

import qbprop.campaign.certificate
import qbprop.campaign.request
import qbprop.campaign.watch
import qbprop.session
from tests.campaign.machines import ForgetsPartialCluster, SmallMachine

qbprop.session.Rules = ForgetsPartialCluster
qbprop.campaign.certificate.REPLAYS = 3
qbprop.campaign.watch.SHRINK_EXAMPLES = 10
request = qbprop.campaign.request
request.Options = partial(request.Options, machine=SmallMachine)
"""


def wrong_model(folder: Path) -> dict[str, str]:
    """The environment in which every ``qbprop`` tests with a small machine and a wrong rule."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG)
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a size on a new folder; skips the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
