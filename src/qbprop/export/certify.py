"""Exporting a trace: rendered, and then run, so that it is known what the file itself shows."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qbprop.export import iotest
from qbprop.export.sh import render
from qbprop.export.sh_script import Transport
from qbprop.export.story import About, Story, tell
from qbprop.findings import Finding
from qbprop.lab import Lab, scratch_folder
from qbprop.qemu.binaries import Binaries
from qbprop.session import Session
from qbprop.trace import Trace
from qbprop_model.operations import Operation
from qbprop_model.rules import Rules

RUN_SECONDS = 120.0
"""Longest time that a reproducer may take; one that hangs QEMU takes ten."""

BEHAVES, BUG, UNTRIED = 0, 1, 125
"""Exit codes of a reproducer."""

TRANSPORTS: tuple[Transport, ...] = ("nbd", "hmp")
"""Ways in which a reproducer sends guest requests, the preferred one first."""


@dataclass(frozen=True)
class Shown:
    """What a trace showed when it was played: a finding, if any, and where it came.

    ``example`` is the index of the example, ``at_end`` tells that it was over.
    """

    finding: Finding | None
    example: int = 0
    at_end: bool = False


@dataclass(frozen=True)
class Reproducer:
    """A script, what it exited with here, and what it should have."""

    text: str
    code: int
    due: int
    output: str

    @property
    def certified(self) -> bool:
        """Whether it shows on this QEMU what the trace shows."""
        return self.code == self.due


def show(session: Session, examples: Sequence[Sequence[Operation]]) -> Shown:
    """Play a trace and see where it disagrees.

    :raises InvalidOperationError: the model cannot judge an operation.
    """
    index, at_end = 0, False
    try:
        for index, example in enumerate(examples):  # noqa: B007 (told of)
            session.begin()
            at_end = False
            for operation in example:
                session.step(operation)
            at_end = True
            session.finish()
    except Finding as finding:
        return Shown(finding, index, at_end)
    return Shown(None)


def about(trace: Trace, shown: Shown, version: str, rate: float = 1.0) -> About:
    """What a reproducer says of its finding: that which came, else the one the trace names."""
    finding, named = shown.finding, trace.header.finding
    if finding is not None:
        return About(
            id=finding.id,
            kind=finding.kind,
            title=finding.title + (f" ({finding.symptom})" if finding.symptom else ""),
            qemu_version=version,
            expected=finding.expected,
            observed=finding.observed,
            rate=rate,
        )
    if named is not None:
        return About(
            id=named.id,
            kind=named.kind,
            title=named.title,
            qemu_version=trace.header.qemu_version,
            rate=rate,
        )
    return About(id="none", kind="", title="no finding", rate=rate)


def export_sh(lab: Lab, trace: Trace, rules: Rules | None = None, rate: float = 1.0) -> Reproducer:
    """The bash script of a trace, tried on the QEMU of ``lab``.

    Where the trace shows a finding the script must exit with 1, else with 0. Guest requests
    go over NBD where that shows it, else through the human monitor.

    :raises ExportError: something in the trace has no rendering.
    :raises InvalidOperationError: the model cannot judge an operation.
    """
    story, told, due = _played(lab, trace, rules, rate)
    tried = []
    for transport in TRANSPORTS:
        text = render(story, told, transport)
        code, output = run(text, lab.binaries)
        tried.append(Reproducer(text, code, due, output))
        if tried[-1].certified:
            return tried[-1]
    return tried[0]


def export_iotest(
    lab: Lab, trace: Trace, rules: Rules | None = None, rate: float = 1.0
) -> Reproducer:
    """The test for QEMU's suite; it is not tried: that needs QEMU's source and a build of it.

    :raises ExportError: something in the trace has no rendering.
    :raises InvalidOperationError: the model cannot judge an operation.
    """
    story, told, due = _played(lab, trace, rules, rate)
    return Reproducer(iotest.render(story, told), due, due, "")


def _played(lab: Lab, trace: Trace, rules: Rules | None, rate: float) -> tuple[Story, About, int]:
    """The story of a trace after it was played, what it is about, and the exit code due."""
    with lab.session(rules) as session:
        session.explain = True
        shown = show(session, trace.examples)
        features = session.driver.features
    told = about(trace, shown, features.version, rate)
    at_end = shown.at_end if shown.finding is not None else None
    examples = _up_to(trace.examples, shown)
    story = tell(examples, told.kind, at_end=at_end, rules=rules, traits=features.traits)
    return story, told, BUG if shown.finding is not None else BEHAVES


def run(script: str, binaries: Binaries, seconds: float = RUN_SECONDS) -> tuple[int, str]:
    """Run a reproducer with nothing in its environment; its exit code and what it said."""
    with scratch_folder() as folder:
        path = folder / "reproduce.sh"
        path.write_text(script, "utf-8")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "TMPDIR": str(folder),
            "QEMU_PROG": str(binaries.system),
            "QEMU_IMG_PROG": str(binaries.img),
            "QEMU_IO_PROG": str(binaries.io),
        }
        try:
            done = subprocess.run(
                ["setpriv", "--pdeathsig", "TERM", "bash", path],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return UNTRIED, (late.stdout or b"").decode(errors="replace")
        return done.returncode, done.stdout.decode(errors="replace")


def _up_to(
    examples: Sequence[Sequence[Operation]], shown: Shown
) -> tuple[tuple[Operation, ...], ...]:
    """The examples up to the disagreement."""
    whole = tuple(map(tuple, examples))
    if shown.finding is None:
        return whole
    return (*whole[: shown.example], shown.finding.trace)


FORMATS: Mapping[str, Callable[[Lab, Trace], Reproducer]] = {
    "sh": export_sh,
    "iotest": export_iotest,
}
"""What a trace can be exported as."""
