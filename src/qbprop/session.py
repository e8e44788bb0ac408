"""One example at a time: the World and a live QEMU, step by step, compared at each.

The machine, replay, and whatever else performs operations go through a :class:`Session`.
"""

import re
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from qbprop.check import check
from qbprop.findings import (
    ContentsFinding,
    CrashFinding,
    Finding,
    HangFinding,
    ImageCheckFinding,
    normalise,
)
from qbprop.hazards import Hazard, Hazards, known_hazards
from qbprop.qemu.driver import Driver
from qbprop.qemu.explain import show, subtract
from qbprop.qemu.observation import Observation, Refused
from qbprop.qemu.performer import ENDLESS, ERROR_STOPPED
from qbprop.qemu.primitives import synced
from qbprop.qemu.process import QemuDied, QemuGone
from qbprop_model.expectation import FLOOD, FOLLOWS, STOPPED, Contents, Expectation
from qbprop_model.operations import (
    Flush,
    HoldWrite,
    InvalidOperationError,
    Operation,
    ReleaseWrite,
    operation_name,
)
from qbprop_model.rules import Rules
from qbprop_model.world import World


@dataclass(frozen=True)
class Step:
    """One performed operation, with what was due and what came."""

    number: int
    operation: Operation
    expected: Expectation
    observed: Observation


def step_name(operation: Operation, expected: Expectation) -> str:
    """What a finding calls the step; of a transaction also the action that must be refused."""
    name = operation_name(operation)
    if expected.refusal is not None and expected.refusal.action:
        return f"{name}.{expected.refusal.action}"
    return name


def rests(expected: Expectation) -> dict[str, str]:
    """The status in which each job that moves in a step comes to rest."""
    found = {}
    for job, words in expected.words.items():
        statuses = [word for word in words if word.islower() and word.isalpha()]
        if FLOOD in words:
            found[job] = ENDLESS
        elif FOLLOWS in words:
            found[job] = synced(expected.alive[job].length or 0)
        elif words[-2:-1] and words[-2] in STOPPED:
            found[job] = ERROR_STOPPED
        elif statuses:
            found[job] = statuses[-1]
    return found


_ASSERTIONS = (
    r"(\w+): Assertion `(.*)' failed",
    r"^ERROR:[^:]*:\d+:(\w+): (?:assertion failed:? )?\(?(.*?)(?:\)|\): .*)?$",
)
"""The C library's, and GLib's, which may be followed by the values."""


def cause_of_death(died: QemuDied) -> str:
    """What a sanitizer found, the failed assertion, or the signal.

    Free of paths, line numbers and versions.
    """
    found = re.search(r"SUMMARY: \w+Sanitizer: ([\w-]+).* in (\w+)", died.stderr)
    for pattern in _ASSERTIONS:
        found = found or re.search(pattern, died.stderr, re.MULTILINE)
    if found:
        return f"{found[1]}: {found[2]}"
    if died.returncode is not None and died.returncode < 0:
        return signal.Signals(-died.returncode).name
    return f"exit status {died.returncode}"


@dataclass(frozen=True)
class _Performed:
    """An operation that was performed, and not yet compared with what was due."""

    operation: Operation
    name: str
    expected: Expectation
    observation: Callable[[], Observation]
    patience: float


def _due(expected: Expectation) -> str:
    """What should have come of an operation, where QEMU has gone."""
    return f"{expected.refusal.reason if expected.refusal else 'ok'} due"


def _needs_nbd(operation: Operation, expected: Expectation) -> bool:
    """Whether HMP ``qemu-io`` cannot perform an operation, or looks fine when it fails."""
    held = isinstance(operation, HoldWrite | ReleaseWrite)
    return held or (isinstance(operation, Flush) and expected.refusal is not None)


Observer = Callable[[Step], None]

Locate = Callable[[CrashFinding], tuple[str, ...]]
"""Tells in which functions QEMU died of a signal, the innermost first, if that can be told."""

Accepts = Callable[[Expectation, Collection[Hazard]], bool]
"""Whether an operation is wanted that leads to this, and provokes these."""


class Session:
    """Performs operations on QEMU and in the model, and checks each.

    ``observer`` is told of every step that agreed. ``rules`` is the model to judge by. With
    ``explain`` a finding of wrong bits names the byte ranges that differ.
    """

    def __init__(
        self,
        driver: Driver,
        rules: Rules | None = None,
        *,
        observer: Observer | None = None,
        explain: bool = False,
    ) -> None:
        self.driver = driver
        self.explain = explain
        self.rules = rules or Rules()
        self.observer = observer
        self.locate: Locate = lambda _: ()
        self.world = self.new_world()
        self.shunned: frozenset[Hazard] = frozenset()
        """Hazards that the QEMU at hand is known to fall for."""
        self._known: frozenset[str] = frozenset()
        self._harmless: frozenset[Hazard] = frozenset()
        self.trace: list[Operation] = []
        self.observed: Observation | None = None
        """What came of the last operation, unless QEMU was gone."""
        self.history: list[tuple[Operation, ...]] = []
        """The traces of the examples since QEMU's launch, the current one left out."""
        self.outcomes: set[str] = set()
        """How the operations of the example have ended: "write", "write: read_only", …"""
        self._launch = 0
        self._hazards = Hazards()
        self._last: _Performed | None = None

    def new_world(self) -> World:
        """An empty World of the QEMU at hand."""
        return World(self.rules, *(each.traits for each in self.driver.every_features))

    def know(self, ids: Collection[str], harmless: Collection[Hazard] = ()) -> None:
        """These findings are known of the QEMU at hand; some hazards are ``harmless`` to it."""
        self._known, self.shunned = frozenset(ids), known_hazards(ids)
        self._harmless = frozenset(harmless)

    def begin(self) -> None:
        """Start an example: QEMU as good as new, an empty World."""
        if self.trace:
            self.history.append(tuple(self.trace))
        self.driver.reset()
        if self.driver.launches != self._launch:
            self._launch = self.driver.launches
            self.history = []
        self.world = self.new_world()
        self.trace = []
        self.outcomes = set()
        self._hazards = Hazards()
        self._last = None

    def step(self, operation: Operation, accepts: Accepts = lambda *_: True) -> Step:
        """Perform one operation and compare; raises as `start` does."""
        self.start(operation, accepts)
        step = self.settle()
        assert step is not None
        return step

    def start(self, operation: Operation, accepts: Accepts = lambda *_: True) -> None:
        """Perform one operation, when the one before has agreed; QEMU may still be answering.

        Raises a :class:`Finding` at a disagreement, InvalidOperationError (and nothing was
        performed) where the model cannot judge the operation, the driver cannot perform it, or
        ``accepts`` does not want it.
        """
        if not self.driver.can_perform(operation):
            name = operation_name(operation)
            raise InvalidOperationError(f"{name} needs another QEMU, or libnbd (qbprop doctor)")
        world = self.world.copy()
        expected = world.apply(operation)
        if self.driver.transport == "hmp" and _needs_nbd(operation, expected):
            raise InvalidOperationError("the human monitor cannot do that, or does not tell")
        provoked = tuple(self._hazards.provoked(operation, expected, self.world))
        if not accepts(expected, provoked):
            raise InvalidOperationError("an operation that is not wanted")
        self.settle()
        self._hazards.see(operation, provoked, self.world, world)
        self.world = world
        name = step_name(operation, expected)
        self.trace.append(operation)
        self.observed = None
        patience = self.patience(self._explains(HangFinding.kind))
        with self._patient(patience), self._living(name, _due(expected)):
            digests = expected.digests
            observation = self.driver.start(operation, digests, rests(expected))
        self._last = _Performed(operation, name, expected, observation, patience)

    def settle(self) -> Step | None:
        """Compare what came of the last operation with what was due, unless that was done.

        Raises a :class:`Finding` at a disagreement.
        """
        if self._last is None:
            return None
        last, self._last = self._last, None
        with self._patient(last.patience), self._living(last.name, _due(last.expected)):
            self.observed = last.observation()
            check(last.name, last.expected, self.observed, self.driver.features)
            self._check_contents(last.name, last.expected)
        step = Step(len(self.trace), last.operation, last.expected, self.observed)
        refusal, name = last.expected.refusal, operation_name(last.operation)
        self.outcomes.add(name if refusal is None else f"{name}: {refusal.reason}")
        self.agreed(step)
        return step

    def agreed(self, step: Step) -> None:
        """Called after each step that showed no disagreement, before the next one."""
        if self.observer:
            self.observer(step)

    @contextmanager
    def _patient(self, seconds: float) -> Iterator[None]:
        """QEMU has so many seconds for an answer."""
        full, self.driver.timeout = self.driver.timeout, seconds
        try:
            yield
        finally:
            self.driver.timeout = full

    @contextmanager
    def _living(self, name: str, due: str) -> Iterator[None]:
        """What ends inside with QEMU, or disagrees, is a finding with its place."""
        try:
            yield
        except QemuGone as gone:
            raise self._placed(self._life(name, due, gone)) from gone
        except Finding as finding:
            raise self._placed(finding) from None

    def patience(self, hazard: Hazard | None) -> float:
        """Seconds that QEMU has for an answer; ``hazard`` tells why it may hang, if it may."""
        return self.driver.timeout

    def finish(self, *, thorough: bool = True) -> None:
        """The checks at the end of an example; ``thorough`` adds contents and image checks.

        Raises a :class:`Finding` whose operation is "end".
        """
        self.settle()
        self._hazards.see_end(self.world)
        expected = self.world.final()
        with self._living("end", "nothing due"):
            observed = self.driver.observe(expected.digests)
            check("end", expected, observed, self.driver.features)
            if thorough:
                self._check_contents("end", expected)
                self._check_allocation(expected)
                self.driver.close_disks()
                checking = self.driver.checking_images(self.world.images, self.world.leaky)
                with checking as problems:
                    self._check_contents("end", expected, closed=True)
                    self._check_images(problems)

    def _check_contents(self, name: str, expected: Expectation, *, closed: bool = False) -> None:
        """Compare bytes; the layers of disks ("drive0.0") only once the disks are ``closed``."""
        for where, contents in expected.contents.items():
            if ("." in where) != closed:
                continue
            kind = "disk" if where in self.world.nodes else "target"
            difference = self.driver.differences(where, contents)
            if isinstance(difference, Refused):
                raise ContentsFinding(
                    name, f"unreadable {kind}", f"{where} can be read", difference.text
                )
            if difference is not None:
                origin = self._origin(contents, difference.offset)
                expectation = f"at byte {difference.offset}: {difference.expected.hex(' ')}{origin}"
                start, end = difference.offset, difference.offset + len(difference.observed)
                raise ContentsFinding(
                    name,
                    kind,
                    f"{where} {expectation}",
                    str(difference),
                    image=where,
                    spare=((start, end),),
                )

    def _origin(self, contents: Contents, offset: int) -> str:
        number = contents.origin(offset) if offset < contents.size else None
        if not number or number > len(self.trace):
            return ""
        return f" (last determined by step {number}, {operation_name(self.trace[number - 1])})"

    def _check_allocation(self, expected: Expectation) -> None:
        for node, due in expected.allocated.items():
            observed = self.driver.allocated(node)
            expected_text = f"{node} has of its own {show(due)}"
            if isinstance(observed, Refused):
                raise ImageCheckFinding("end", "allocation", expected_text, observed.text)
            if observed is None or tuple(observed) == due:
                continue
            raise ImageCheckFinding(
                "end",
                "allocation",
                expected_text,
                show(observed),
                image=node,
                lost=tuple(subtract(due, observed)),
                spare=tuple(subtract(observed, due)),
            )

    def _check_images(self, problems: Callable[[], Mapping[str, str]]) -> None:
        for name, problem in problems().items():
            raise ImageCheckFinding("end", normalise(problem), f"{name}: no error", problem)

    def _life(self, name: str, due: str, gone: QemuGone) -> Finding:
        if isinstance(gone, QemuDied):
            cause = cause_of_death(gone)
            aspect = cause if ": " in cause else f"{cause}, {due}"
            return CrashFinding(name, aspect, "QEMU lives", f"{gone}\n{gone.stderr[-4000:]}")
        return HangFinding(name, f"{type(gone).__name__}, {due}", "a reply in time", str(gone))

    def _explain(self, finding: Finding, node: str, name: str) -> None:
        observed = self.driver.dirty_ranges(node, name)
        if observed is None:
            return
        world_node = self.world.nodes[node]
        expected = world_node.bitmaps[name].dirty_ranges(self.world.size(world_node))
        lost, spare = subtract(expected, observed), subtract(observed, expected)
        finding.lost, finding.spare = tuple(lost), tuple(spare)
        finding.expected += f"\nclean, but should be dirty: {show(lost)}"
        finding.observed += f"\ndirty, but should be clean: {show(spare)}"

    def _explains(self, kind: str) -> Hazard | None:
        return self._hazards.explains(kind, self._known, self._harmless)

    def _placed(self, finding: Finding) -> Finding:
        if self.explain and finding.bitmap is not None:
            self._explain(finding, *finding.bitmap)
        hazard = self._explains(finding.kind)
        if hazard is not None:
            finding.symptom = finding.title
            finding.operation, finding.aspect = hazard.label, ""
        finding.step = len(self.trace)
        finding.trace = tuple(self.trace)
        if isinstance(finding, CrashFinding) and finding.aspect.startswith("SIG"):
            finding.functions = self.locate(finding)
        return finding
