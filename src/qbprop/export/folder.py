"""What stands beside a finding's trace: files that show it elsewhere."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from qbprop.export.certify import export_iotest, export_sh
from qbprop.export.iotest import EXPECTED_OUTPUT
from qbprop.lab import Lab
from qbprop.trace import Trace
from qbprop_model.rules import Rules


def export_finding(
    lab: Lab, trace: Trace, folder: Path, rules: Rules | None = None, rate: float = 1.0
) -> Iterator[str]:
    """Write the reproducers of a trace into ``folder``; yields a line for each, to be shown.

    :raises ExportError: something in the trace has no rendering.
    :raises InvalidOperationError: the model cannot judge an operation.
    :raises OSError: a file cannot be written.
    """
    made = export_sh(lab, trace, rules, rate)
    path = folder / "reproduce.sh"
    path.write_text(made.text, "utf-8")
    path.chmod(0o755)
    bisect = folder / "bisect.sh"
    bisect.write_bytes(files("qbprop.export").joinpath("bisect.bash").read_bytes())
    bisect.chmod(0o755)
    yield f"{path} exits with {made.code} here" + ("" if made.certified else ", not as it should")
    test = folder / "iotest.py"
    test.write_text(export_iotest(lab, trace, rules, rate).text, "utf-8")
    test.chmod(0o755)
    (folder / "iotest.py.out").write_text(EXPECTED_OUTPUT, "utf-8")
