"""``qbprop replay DIR``: all traces of a corpus."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from qbprop.cli_base import Exit


def show_corpus(folder: Path, qemus: Sequence[str | None]) -> NoReturn:
    """Perform a corpus on each QEMU, tell of what disagrees, and exit.

    :raises QbpropError: there is no trace, one cannot be read, or there is no QEMU.
    """
    from qbprop.lab import Lab
    from qbprop.qemu.binaries import find_binaries
    from qbprop.regression import replay_corpus

    tallies = []
    for qemu in qemus:
        tallies.append(replay_corpus(folder, Lab(find_binaries(qemu)), click.echo))
        click.echo(tallies[-1].line())
    if any(tally.disagreed for tally in tallies):
        sys.exit(Exit.FOUND)
    sys.exit(Exit.AGREED if all(tally.agreed for tally in tallies) else Exit.UNTESTABLE)
