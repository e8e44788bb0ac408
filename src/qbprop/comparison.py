"""One trace on several QEMUs: which of them behave."""

from collections.abc import Sequence
from dataclasses import dataclass

from qbprop.errors import QbpropError
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.trace import Trace
from qbprop_model.operations import InvalidOperationError

BEHAVES, SHOWS, UNTRIED = 0, 1, 125
"""Exit codes, as of a replay on one QEMU."""


@dataclass(frozen=True)
class Verdict:
    """What a trace showed on the QEMU at ``path``: an exit code, and that in words."""

    path: str
    version: str
    code: int
    text: str

    def line(self) -> str:
        """A line of the table."""
        return f"{self.version or '?':28} {self.text:40} {self.path}"


def judge(path: str, trace: Trace, *, any_finding: bool = False) -> Verdict:
    """Play a trace on one QEMU. ``any_finding`` counts other disagreements as well.

    :raises InvalidOperationError: the model cannot judge an operation.
    """
    version = ""
    try:
        with Lab(find_binaries(path)).session() as session:
            version = session.driver.version
            finding = play(session, trace.examples)
    except InvalidOperationError as error:
        return Verdict(path, version, UNTRIED, f"cannot be judged: {error}")
    except QbpropError as error:
        return Verdict(path, version, UNTRIED, f"cannot be tried: {error}")
    if finding is None:
        return Verdict(path, version, BEHAVES, "behaves")
    named = trace.header.finding
    if any_finding or named is None or finding.is_named(named.id, named.title):
        return Verdict(path, version, SHOWS, "shows the finding")
    return Verdict(path, version, UNTRIED, f"disagrees in another way: {finding.title}")


def worst(verdicts: Sequence[Verdict]) -> int:
    """The exit code for all: the finding counts most, what was not tried least but for none."""
    codes = {verdict.code for verdict in verdicts}
    return next((code for code in (SHOWS, BEHAVES) if code in codes), UNTRIED)
