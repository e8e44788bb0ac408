"""The command line: within this process, which is quick, or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

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
