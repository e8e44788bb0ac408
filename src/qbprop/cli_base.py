"""What all commands have in common: exit codes, errors in one line, the option ``--qemu``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import click

from qbprop.errors import QbpropError


class Exit(IntEnum):
    """Exit codes; those of ``replay`` are what ``git bisect run`` expects."""

    AGREED = 0
    FOUND = 1
    UNUSABLE = 2
    BLIND = 3
    UNTESTABLE = 125
    INTERRUPTED = 130


def fail(error: BaseException, code: Exit) -> NoReturn:
    """Say what is wrong in one line on standard error, and exit."""
    text = str(error) if isinstance(error, QbpropError) else f"{type(error).__name__}: {error}"
    click.echo(f"qbprop: {' '.join(text.split())}", err=True)
    sys.exit(code)


QEMU = click.option(
    "--qemu",
    metavar="PATH",
    help="A qemu-system-* binary, or the directory that holds it (a build tree, a bin/). "
    "[default: QEMU_PROG, else from PATH]",
)

CROSS = click.option(
    "--cross",
    metavar="PATH",
    multiple=True,
    help="Another QEMU: whenever one is restarted, it may be as this one. May be given again.",
)

QEMUS = click.option(
    "--qemu",
    "qemus",
    metavar="PATH",
    multiple=True,
    help="As for `qbprop fuzz`; given more than once, a table says which QEMU behaves.",
)


@contextmanager
def reporting(code: Exit) -> Iterator[None]:
    """Turn every error into one line and an exit code; no traceback reaches the user."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except (QbpropError, OSError) as error:
        fail(error, code)
    except Exception as error:
        if os.environ.get("QBPROP_TRACEBACK"):
            raise
        problem = QbpropError(
            f"qbprop itself failed ({type(error).__name__}: {error}); please report it, with what "
            "it shows when QBPROP_TRACEBACK=1 is set"
        )
        fail(problem, code)
