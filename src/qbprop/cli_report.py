"""``qbprop report``: a finding as a page."""

import sys
from pathlib import Path

import click

from qbprop.cli_base import QEMU, Exit, reporting
from qbprop.errors import TraceError


@click.command(epilog="Exit codes: 0 the page was written, 2 it could not be made.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@QEMU
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="[default: report.html in DIR]"
)
def report(*, folder: Path, qemu: str | None, output: Path | None) -> None:
    """Write a page that shows a finding step by step.

    DIR is the finding's folder, which holds its trace.jsonl; the trace is performed once more.
    The page is one file and needs no network.
    """
    from qbprop.lab import Lab
    from qbprop.qemu.binaries import find_binaries
    from qbprop.report.page import render
    from qbprop.report.record import record
    from qbprop.trace import read_trace
    from qbprop_model.operations import InvalidOperationError

    with reporting(Exit.UNUSABLE):
        path = folder if folder.is_file() else folder / "trace.jsonl"
        trace = read_trace(path)
        try:
            with Lab(find_binaries(qemu)).session() as session:
                recorded = record(session, trace.examples)
        except InvalidOperationError as error:
            raise TraceError(f"{path}: {error}; the trace cannot be judged") from error
        named = trace.header.finding
        title = named.title if named else "a trace without a finding"
        page = output or path.parent / "report.html"
        page.write_text(render(recorded, title), "utf-8")
    click.echo(page)
    sys.exit(Exit.AGREED)
