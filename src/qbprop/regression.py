"""A corpus of traces on one QEMU: whether all of them still agree."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qbprop.campaign.corpus import corpus
from qbprop.errors import TraceError
from qbprop.lab import Lab
from qbprop.replay import play
from qbprop.trace import read_trace
from qbprop_model.operations import InvalidOperationError


@dataclass
class Tally:
    """How many traces agreed and disagreed on a QEMU, and how many it cannot perform."""

    version: str
    agreed: int = 0
    disagreed: int = 0
    untried: int = 0

    def line(self) -> str:
        """For people."""
        return (
            f"QEMU {self.version}: {self.agreed} traces agreed, {self.disagreed} disagreed, "
            f"{self.untried} cannot be performed there"
        )


def replay_corpus(folder: Path, lab: Lab, told: Callable[[str], None]) -> Tally:
    """Perform all traces of a folder one after the other; ``told`` hears which disagree.

    :raises TraceError: there is none, or one cannot be read.
    :raises EnvironmentProblem: QEMU cannot be launched.
    """
    traces = {path: read_trace(path) for path in corpus(folder)}
    if not traces:
        raise TraceError(f"{folder} holds no traces; give the folder of a campaign")
    with lab.session() as session:
        tally = Tally(session.driver.version)
        for path, trace in traces.items():
            try:
                finding = play(session, trace.examples)
            except InvalidOperationError:
                tally.untried += 1
                continue
            if finding is None:
                tally.agreed += 1
            else:
                tally.disagreed += 1
                told(f"{finding.title}, at step {finding.step} of {path}")
    return tally
