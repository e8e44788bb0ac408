"""What a page shows of a trace: each step with the state behind it, recorded while it is played."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qbprop.findings import Finding
from qbprop.qemu.observation import Exchange, Observation
from qbprop.qemu.plan import plan
from qbprop.replay_view import show_operation
from qbprop.session import Session
from qbprop_model.operations import Operation

Ranges = list[tuple[int, int]]
"""Byte ranges ``(start, end)``, ascending."""


@dataclass(frozen=True)
class BitmapView:
    """A bitmap: what should be dirty, what of that is clean, and what is dirty besides."""

    name: str
    granularity: int
    dirty: Ranges
    lost: Ranges
    spare: Ranges


@dataclass(frozen=True)
class DiskView:
    """A disk or target: what was ever written to it, and where its bytes are wrong."""

    name: str
    size: int
    cluster: int
    written: Ranges
    wrong: Ranges
    bitmaps: list[BitmapView]


@dataclass(frozen=True)
class JobView:
    """A job that ended: ``offset`` of ``length`` bytes, and what it says of itself."""

    name: str
    offset: int
    length: int
    text: str


@dataclass(frozen=True)
class StepView:
    """One step: the operation, how it ended, what was sent and answered, and the state then."""

    number: int
    operation: str
    outcome: str
    agreed: bool
    exchange: list[tuple[str, str]]
    jobs: list[JobView]
    disks: list[DiskView]


@dataclass
class Record:
    """All steps of a trace, and the finding that it ended with, if any."""

    qemu: str
    steps: list[StepView] = field(default_factory=list)
    finding: Finding | None = None


def record(session: Session, examples: Sequence[Sequence[Operation]]) -> Record:
    """Play a trace and record it.

    :raises InvalidOperationError: the model cannot judge an operation.
    """
    session.explain = True
    recorded = Record(session.driver.version)
    try:
        for example in examples:
            session.begin()
            for operation in example:
                session.step(operation)
                _add(recorded, session, operation, None)
            session.finish()
    except Finding as finding:
        recorded.finding = finding
        if session.observed is not None and _is_at_end(recorded, session):
            recorded.steps.pop()
        _add(recorded, session, session.trace[-1], finding)
    return recorded


def _is_at_end(recorded: Record, session: Session) -> bool:
    """Whether the last operation is recorded already: the finding came with the last checks."""
    last = recorded.steps[-1] if recorded.steps else None
    return last is not None and last.operation == show_operation(session.trace[-1])


def _add(recorded: Record, session: Session, operation: Operation, finding: Finding | None) -> None:
    observed = session.observed
    refused = observed.refused if observed else None
    outcome = f"refused: {refused.text}" if refused else "ok" if observed else "no answer"
    recorded.steps.append(
        StepView(
            len(recorded.steps) + 1,
            show_operation(operation),
            outcome,
            finding is None,
            list(_exchange(operation, observed)),
            list(_jobs(observed)),
            list(_disks(session, finding)),
        )
    )


def _exchange(operation: Operation, observed: Observation | None) -> Iterator[tuple[str, str]]:
    if observed is None:
        yield Exchange(plan(operation).main, None).request, "(QEMU did not answer)"
        return
    for each in observed.exchange:
        yield each.request, each.reply
    for event in observed.events:
        yield "", f"{event.name} {event.data}"


def _jobs(observed: Observation | None) -> Iterator[JobView]:
    for event in observed.events if observed else ():
        if event.name in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"):
            data = event.data
            text = str(data.get("error", event.name.rpartition("_")[2].lower()))
            yield JobView(data["device"], data["offset"], data["len"], text)


def _disks(session: Session, finding: Finding | None) -> Iterator[DiskView]:
    world = session.world
    targets = (name for name in world.images if "." not in name)
    for name in (*world.nodes, *targets):
        contents = world.contents(name)
        node = world.nodes.get(name)
        image = world.images[node.image if node else name]
        wrong = finding.spare if finding and finding.image == name else ()
        yield DiskView(
            name,
            image.size,
            image.cluster_size,
            contents.written() if contents else [],
            list(wrong),
            [
                BitmapView(
                    key,
                    bitmap.granularity,
                    bitmap.dirty_ranges(image.size),
                    list(finding.lost) if finding and finding.bitmap == (name, key) else [],
                    list(finding.spare) if finding and finding.bitmap == (name, key) else [],
                )
                for key, bitmap in (node.bitmaps if node else {}).items()
            ],
        )
