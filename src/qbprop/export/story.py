"""A trace as a story to be told again: each step's plan and what must come of it.

Told by the model alone. Renderers turn it into a program, and need no second reading of an
operation: they render the plan that the driver performs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from qbprop.errors import QbpropError
from qbprop.export.checks import Check, checks_of, closing
from qbprop.qemu.images import SUFFIX
from qbprop.qemu.plan import awaiting, plan
from qbprop.qemu.primitives import Plan, resolve
from qbprop.session import rests
from qbprop_model.expectation import Refusal
from qbprop_model.operations import Migrate, Operation, Restart
from qbprop_model.rules import Rules
from qbprop_model.traits import Traits
from qbprop_model.world import World


class ExportError(QbpropError):
    """A trace that cannot be turned into a program."""


@dataclass(frozen=True, kw_only=True)
class About:
    """The finding that a story is about; ``rate`` is the share of replays that show it."""

    id: str
    kind: str
    title: str
    qemu_version: str = ""
    expected: str = ""
    observed: str = ""
    rate: float = 1.0


@dataclass(frozen=True)
class Scene:
    """One operation, its plan with every format filled in, and what is due.

    ``refusal`` None means success; ``jobs`` are those that run to their end. ``rests`` tells the
    status in which each job comes to rest that moves; ``alive`` are the jobs that there are then,
    of which those in ``concluded`` do nothing more, and ``exports`` those of operations.
    """

    number: int
    operation: Operation
    plan: Plan
    refusal: Refusal | None
    jobs: tuple[str, ...] = ()
    rests: Mapping[str, str] = field(default_factory=dict)
    alive: tuple[str, ...] = ()
    concluded: frozenset[str] = frozenset()
    exports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Story:
    """What is done, example after example, and what is checked.

    ``last`` is checked behind the last operation; ``end`` after that, behind which all disks are
    closed and ``closed`` is checked.
    """

    examples: tuple[tuple[Scene, ...], ...]
    last: tuple[Check, ...]
    end: tuple[Check, ...]
    closed: tuple[Check, ...]

    @property
    def length(self) -> int:
        """The number of operations."""
        return sum(map(len, self.examples))


def tell(
    examples: Sequence[Sequence[Operation]],
    kind: str,
    *,
    at_end: bool | None = None,
    rules: Rules | None = None,
    traits: Traits | None = None,
) -> Story:
    """The story of a trace that shows a finding of this kind.

    ``at_end`` says that the finding came with the checks behind the last operation (True), at
    that operation (False), or that this is not known. ``traits`` are those of the QEMU that
    showed it.

    :raises InvalidOperationError: the model cannot judge an operation.
    :raises ExportError: an operation launches another QEMU.
    """
    told: list[tuple[Scene, ...]] = []
    last: tuple[Check, ...] = ()
    end: tuple[Check, ...] = ()
    closed: tuple[Check, ...] = ()
    for example in examples:
        world = World(rules, traits)
        scenes = []
        for number, operation in enumerate(example, sum(map(len, told)) + 1):
            if isinstance(operation, Restart | Migrate) and operation.qemu:
                raise ExportError("a reproducer has one QEMU; `qbprop replay --cross` plays this")
            if isinstance(operation, Migrate):
                raise ExportError("a reproducer has one QEMU at a time; `qbprop replay` plays this")
            formats = {f"{name}{SUFFIX}": image.format for name, image in world.images.items()}
            expected = world.apply(operation)
            rested = rests(expected)
            planned = awaiting(plan(operation), rested)
            filled = resolve(planned, partial(_format, formats))
            jobs = tuple(name for name, end in expected.jobs.items() if not end.aborted)
            over = {job for job, state in expected.alive.items() if state.status == "concluded"}
            scenes.append(
                Scene(
                    number,
                    operation,
                    filled,
                    expected.refusal,
                    jobs,
                    rested,
                    tuple(expected.alive),
                    frozenset(over),
                    tuple(world.exports),
                )
            )
            if at_end is not True:
                last = checks_of(kind, operation, expected, world)
        told.append(tuple(scenes))
        if at_end is not False:
            final = world.final()
            end, closed = checks_of(kind, None, final, world), closing(kind, final, world)
    new = tuple(check for check in end if check not in last)
    return Story(tuple(told), last, new, closed)


def _format(known: Mapping[str, str], file: str) -> str:
    return known.get(file, "raw")
