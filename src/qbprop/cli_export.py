"""``qbprop export``: a trace as a file that needs no qbprop."""

import sys
from pathlib import Path

import click

from qbprop.cli_base import QEMU, Exit, fail, reporting
from qbprop.errors import QbpropError, TraceError


@click.command(
    epilog="""
    \b
    Examples:
      qbprop export --format sh trace.jsonl -o reproduce.sh
      QEMU_PROG=build/qemu-system-x86_64 bash reproduce.sh

    The trace is played on the QEMU at hand, to see what it shows; then the script is tried on it:
    where the trace shows a finding it must show it too, else it must find that QEMU behaves. A test
    for QEMU's suite is not tried: that needs a build of QEMU.

    \b
    Exit codes: 0 it does here what the trace does, 125 it was written and does not, 2 it could
    not be made.
    """
)
@click.argument("trace", type=click.Path(path_type=Path))
@QEMU
@click.option(
    "--format",
    "form",
    type=click.Choice(["sh", "iotest"]),
    required=True,
    help="sh: a bash script that needs QEMU's own programs alone. iotest: a test for QEMU's "
    "tests/qemu-iotests/tests/; with -o FILE its expected output goes to FILE.out.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write it. [default: standard output]",
)
def export(*, trace: Path, qemu: str | None, form: str, output: Path | None) -> None:
    """Turn a trace into a reproducer that stands alone."""
    from qbprop.export.certify import FORMATS
    from qbprop.export.iotest import EXPECTED_OUTPUT
    from qbprop.lab import Lab
    from qbprop.qemu.binaries import find_binaries
    from qbprop.trace import read_trace
    from qbprop_model.operations import InvalidOperationError

    with reporting(Exit.UNUSABLE):
        try:
            made = FORMATS[form](Lab(find_binaries(qemu)), read_trace(trace))
        except InvalidOperationError as error:
            raise TraceError(f"{trace}: {error}; the trace cannot be judged") from error
        if output is None:
            click.echo(made.text, nl=False)
        else:
            output.write_text(made.text, "utf-8")
            output.chmod(0o755)
            if form == "iotest":
                output.with_name(f"{output.name}.out").write_text(EXPECTED_OUTPUT, "utf-8")
    if not made.certified:
        problem = QbpropError(
            f"the script exits with {made.code} on this QEMU, where the trace is good for "
            f"{made.due}; what it said: {made.output.strip()[-300:]}"
        )
        fail(problem, Exit.UNTESTABLE)
    if form == "sh":
        click.echo(f"tried on this QEMU: exit code {made.code}, as the trace", err=True)
    sys.exit(Exit.AGREED)
