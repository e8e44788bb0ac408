"""One QEMU for all machines of a test session: launched at first use, kept for all tests."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from qbprop.campaign.known import known_ids, shipped_known
from qbprop.findings import Finding
from qbprop.lab import Lab
from qbprop.machine.core import MachineBase
from qbprop.qemu.binaries import find_binaries
from qbprop.session import Session
from qbprop.trace import FindingHeader, Header, Trace, dump_trace, write_trace


class Bench:
    """Where machines find their session: the QEMU that ``qemu`` names, as ``--qemu`` does.

    Findings that the shipped list has for this QEMU are counted and fail nothing.
    """

    def __init__(self, qemu: str | None) -> None:
        self._qemu = qemu
        self._stack = ExitStack()
        self._session: Session | None = None
        self._known: dict[str, str] = {}
        self._met: Counter[str] = Counter()

    def serve(self) -> None:
        """Become the default of every machine class that is given no session of its own."""
        setattr(MachineBase, "session", self)  # noqa: B010 (a descriptor in place of the value)
        setattr(MachineBase, "known", staticmethod(self.is_known))  # noqa: B010

    def __get__(self, machine: object, owner: type) -> Session:
        """The session, as an attribute of machines; QEMU is launched when it is first asked for.

        :raises EnvironmentProblem: there is no QEMU to be had.
        """
        if self._session is None:
            lab = Lab(find_binaries(self._qemu))
            self._session = self._stack.enter_context(lab.session())
            self._known = known_ids(shipped_known(), self._session.driver.version)
        return self._session

    def close(self) -> None:
        """End QEMU."""
        self._stack.close()
        self._session = None

    def is_known(self, finding: Finding) -> bool:
        """Count a finding that is known; tell whether it is."""
        listed = finding.ids & self._known.keys()
        self._met.update(listed)
        return bool(listed)

    def known_lines(self) -> Iterator[str]:
        """What was met of the known findings."""
        for identity, count in self._met.items():
            yield f"qbprop: known finding {identity} met {count} times: {self._known[identity]}"

    def sections(self, error: BaseException, folder: Path | None) -> Iterator[tuple[str, str]]:
        """What to add to the report of a failed test: the trace, also put into ``folder``."""
        for finding in _findings(error):
            named = FindingHeader(id=finding.id, kind=finding.kind, title=finding.title)
            header = Header(finding=named)
            if self._session is not None:
                driver = self._session.driver
                header = Header(
                    finding=named, qemu_version=driver.version, transport=driver.transport
                )
            trace = Trace((finding.trace,), header)
            text = dump_trace(trace)
            if folder is not None:
                path = folder / f"{finding.id}.jsonl"
                write_trace(path, trace)
                text += f"see it again: qbprop replay {path}\n"
            yield "qbprop trace", text


def _findings(error: BaseException) -> Iterator[Finding]:
    if isinstance(error, Finding):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _findings(inner)
