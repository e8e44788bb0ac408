"""The machine's base: one example on one session."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from qbprop.findings import Finding
from qbprop.hazards import Hazard
from qbprop.machine.draws import COPY_LIMIT
from qbprop.machine.exports import closing
from qbprop.machine.jobs import endings
from qbprop.machine.opening import once_more
from qbprop.session import Session
from qbprop_model.expectation import Expectation
from qbprop_model.operations import InvalidOperationError, Operation, Resize
from qbprop_model.world import World

Drawn = Operation | Iterable[Operation]

Rule = TypeVar("Rule", bound=Callable[..., Any])


@st.composite
def _drawn(draw: st.DrawFn, choose: Callable[..., Drawn], args: tuple[Any, ...]) -> Drawn:
    machine: MachineBase = draw(st.runner())
    try:
        return choose(draw, machine.world, *args)
    except HypothesisException:
        raise
    except Exception as error:
        machine.broken(error)
        raise


def drawn(choose: Callable[..., Drawn], *args: Any) -> st.SearchStrategy[Drawn]:
    """What ``choose(draw, world, *args)`` returns; ``world`` is the machine's at that moment."""
    return _drawn(choose, args)


def going_on(machine: "MachineBase") -> bool:
    """The example is not over, and has a disk to work on."""
    return not machine.over and not machine.ended and bool(machine.world.nodes)


step_rule = precondition(going_on)
"""Decorator of every rule that performs operations; stands above ``@rule``."""


def part_of(*subjects: str) -> Callable[[Rule], Rule]:
    """Decorator of a rule that an example leaves out which keeps to another subject."""
    return precondition(lambda self: self.subject is None or self.subject in subjects)


class MachineBase(RuleBasedStateMachine):
    """Performs drawn operations on ``session``; a disagreement raises a Finding.

    ``session`` must be set, on a subclass, before the machine is used. With ``thorough`` every
    example ends with the contents of all disks and image checks; else those examples do that
    resized a disk, and one in four others. What the session says is to be shunned is done in
    the few examples that are ``daring``: nothing else can be seen behind it. An example may keep
    to one ``subject``, whose operations then meet each other more often; ``subjects`` is what it is
    drawn from, and where ``focus`` names some all examples keep to these.
    """

    session: ClassVar[Session]
    thorough: ClassVar[bool] = True
    subjects: ClassVar[Sequence[str | None]] = ()
    focus: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.daring = False
        self.subject: str | None = None
        self.over = False
        self.ended = False
        self.failed = False
        self.deep = self.thorough
        self.session.begin()

    @property
    def world(self) -> World:
        """The model's state; all that rules and strategies may look at."""
        return self.session.world

    def wants(self, subject: str | None) -> bool:
        """Whether an example may keep to a subject."""
        return not self.focus or subject in self.focus

    def watch(self) -> None:
        """Called before each operation; may raise to stop everything."""

    def broken(self, error: Exception) -> None:
        """Called when drawing failed, which is qbprop's mistake; may raise to stop everything."""

    def known(self, finding: Finding) -> bool:
        """Whether a finding ends the example instead of failing it."""
        return False

    def perform(self, operations: Drawn) -> None:
        """Perform operations in order and check each; the last one when the next is drawn.

        What the model cannot judge, or what costs too much, is left out.
        """
        for operation in (operations,) if isinstance(operations, Operation) else operations:
            if self.over:
                return
            self.watch()
            try:
                self._guarded(partial(self.session.start, operation, self.accepts))
            except InvalidOperationError:
                continue

    def accepts(self, expected: Expectation, provoked: Collection[Hazard]) -> bool:
        """Whether an operation is worth its price: what it copies, and what it provokes."""
        copied = sum(end.length or 0 for end in expected.jobs.values())
        started = (job for job, words in expected.words.items() if words[:1] == ("created",))
        copied += sum(expected.alive[job].length or 0 for job in started if job in expected.alive)
        return copied <= COPY_LIMIT and (self.daring or self.session.shunned.isdisjoint(provoked))

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Finding as finding:
            if not self.known(finding):
                self.failed = True
                raise
            self.over = True
        except InvalidOperationError:
            raise
        except BaseException:
            self.failed = True
            raise

    @step_rule
    @rule(chance=st.integers(0, 99))
    def abandon(self, chance: int) -> None:
        """Seldom an example ends before its steps are used up.

        Hypothesis pads many of its first examples with the simplest choices; the first rule
        by name is the simplest, so that they cost nothing.
        """
        self.ended = chance == 0

    @precondition(lambda self: not going_on(self))
    @rule()
    def done(self) -> None:
        """The example is over: nothing more is sent."""

    def teardown(self) -> None:
        """The checks at the end of an example, unless it failed or met a known finding."""
        if self.over or self.failed or not self.session.trace:
            return
        self.perform(closing(self.world))
        self.perform(endings(self.world))
        if self.world.job_ids or self.world.held:
            self._guarded(self.session.settle)
        else:
            self.perform(once_more(self.world))
            self._finish()

    def _finish(self) -> None:
        if self.over:
            return
        deep = self.deep or any(isinstance(operation, Resize) for operation in self.session.trace)
        self._guarded(lambda: self.session.finish(thorough=deep))
        if currently_in_test_context():
            for outcome in sorted(self.session.outcomes):
                event(outcome)
