"""The same examples on more than one QEMU: in what they differ, whatever the model says of it."""

from collections.abc import Iterator
from pathlib import Path

from qbprop.campaign.summary import DifferenceRecord
from qbprop.findings import Finding, normalise, short_hash
from qbprop.qemu.reasons import classify
from qbprop.session import Session, Step
from qbprop.trace import Header, Trace, write_trace
from qbprop_model.operations import InvalidOperationError, operation_name

DIFFERENCES = "differences"
"""The folder of the traces, in that of the campaign."""


class Beside:
    """QEMUs that perform what the campaign's own, ``first``, does.

    ``known`` has for each session of ``others`` the ids of the findings that are known of its QEMU.
    What differs is added to ``records``, its trace to a folder in ``out``. An example is followed
    until two QEMUs are no longer in the same state, or one cannot do what is asked.
    """

    def __init__(
        self,
        first: Session,
        others: tuple[Session, ...],
        known: tuple[frozenset[str], ...],
        records: list[DifferenceRecord],
        out: Path,
        header: Header,
    ) -> None:
        self._first = first
        self._others = others
        self._known = known
        self._records = records
        self._folder = out / DIFFERENCES
        self._header = header
        self._following: set[int] = set()

    def begin(self, *, follow: bool) -> None:
        """An example begins; ``follow`` tells whether the others perform it, too."""
        self._following = set(range(len(self._others))) if follow else set()
        for number in self._following:
            self._others[number].begin()

    def step_agreed(self, step: Step) -> None:
        """The first QEMU has performed a step as the model says.

        :raises OSError: a trace cannot be written.
        """
        for number in sorted(self._following):
            session = self._others[number]
            try:
                other = session.step(step.operation)
            except InvalidOperationError:
                self._following.discard(number)
            except Finding as finding:
                self._disagrees(number, finding)
            else:
                self._compare(number, step, other)

    def finish(self, *, thorough: bool) -> None:
        """The example has ended on the first QEMU, and all was as the model says.

        :raises OSError: a trace cannot be written.
        """
        for number in sorted(self._following):
            try:
                self._others[number].finish(thorough=thorough)
            except Finding as finding:
                self._disagrees(number, finding)

    def _disagrees(self, number: int, finding: Finding) -> None:
        """Another QEMU does not do what the model says."""
        known = not finding.ids.isdisjoint(self._known[number])
        self._following.discard(number)
        told = f"{finding.title} [{finding.id}]"
        self._note(finding.operation, "model", number, ("", told), known=known)

    def _compare(self, number: int, step: Step, other: Step) -> None:
        name = operation_name(step.operation)
        for what, mine, theirs in self._unlike(number, step, other):
            if what != "text":
                self._following.discard(number)
            self._note(name, what, number, (mine, theirs))

    def _unlike(self, number: int, step: Step, other: Step) -> Iterator[tuple[str, str, str]]:
        """What differs, and how each QEMU has it."""
        mine, theirs = self._reply(self._first, step), self._reply(self._others[number], other)
        if mine != theirs:
            yield "reply", mine, theirs
            return
        texts = [each.observed.refused for each in (step, other)]
        told = [normalise(each.text) if each is not None else "" for each in texts]
        if told[0] != told[1]:
            yield "text", told[0], told[1]
        if step.expected.bitmaps != other.expected.bitmaps:
            yield "bitmaps", "", ""
        elif step.expected.sizes != other.expected.sizes:
            yield "sizes", "", ""
        elif step.expected.digests != other.expected.digests:
            yield "bits", "", ""

    def _reply(self, session: Session, step: Step) -> str:
        refused = step.observed.refused
        if refused is None:
            return "ok"
        reason = classify(refused, session.driver.features)
        return reason.value if reason is not None else normalise(refused.text)

    def _note(
        self,
        operation: str,
        what: str,
        number: int,
        outcomes: tuple[str, str],
        *,
        known: bool = True,
    ) -> None:
        versions = (self._first.driver.version, self._others[number].driver.version)
        identity = short_hash("\0".join((operation, what, str(number), *outcomes)))
        for record in self._records:
            if record.id == identity:
                record.count += 1
                return
        self._records.append(
            DifferenceRecord(
                id=identity,
                operation=operation,
                what=what,
                qemus=list(versions),
                outcomes=list(outcomes),
                count=1,
                known=known,
            )
        )
        self._folder.mkdir(exist_ok=True)
        trace = Trace((tuple(self._others[number].trace),), self._header)
        write_trace(self._folder / f"{identity}.jsonl", trace)
