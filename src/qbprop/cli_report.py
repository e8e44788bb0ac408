"""``qbprop report``: a campaign, or a finding, as a page."""

import sys
from pathlib import Path

import click

from qbprop.cli_base import QEMU, Exit, reporting


@click.command(epilog="Exit codes: 0 the page was written, 2 it could not be made.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@QEMU
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="[default: report.html in DIR]"
)
def report(*, folder: Path, qemu: str | None, output: Path | None) -> None:
    """Write a page that shows a campaign, or a finding step by step.

    DIR is the folder of a campaign, which may still be running (its --out): the page tells what was
    found and what was reached, and junit.xml beside it tells a CI server. Or DIR is the folder
    of a finding, which holds its trace.jsonl: the trace is performed once more.
    A page is one file and needs no network.
    """
    from qbprop.lab import Lab
    from qbprop.qemu.binaries import find_binaries
    from qbprop.report.campaign import write_report
    from qbprop.report.page import draw
    from qbprop.trace import read_trace

    with reporting(Exit.UNUSABLE):
        if (folder / "campaign.json").exists():
            page = write_report(folder, output)
        else:
            path = folder if folder.is_file() else folder / "trace.jsonl"
            trace = read_trace(path)
            page = output or path.parent / "report.html"
            page.write_text(draw(Lab(find_binaries(qemu)), trace), "utf-8")
    click.echo(page)
    sys.exit(Exit.AGREED)
