"""What a campaign exercised, counted."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from qbprop.campaign.job_states import OPERATION_NAMES, OUTCOMES, STATES, Cell
from qbprop.session import Step
from qbprop_model.expectation import Reason
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    OPERATIONS,
    Action,
    Backup,
    Operation,
    Transaction,
    operation_name,
)
from qbprop_model.state import State


def _names() -> Iterator[str]:
    for cls in OPERATIONS:
        yield operation_name(cls)
    for cls in get_args(Action):
        yield f"transaction.{operation_name(cls)}"


ALL_NAMES = tuple(_names())
"""Every key that the counts may have, in the order of the vocabulary."""


@dataclass(kw_only=True)
class Statistics:
    """Counts of what was performed and checked while generating; shrinking is apart.

    ``succeeded`` and ``refused`` are by operation name; the actions of a transaction count
    under ``transaction.NAME``, with the outcome of the transaction. ``partial_backups`` are
    the examples that finished a backup from a bitmap whose copy set is neither empty nor the
    whole disk; ``bitmaps`` adds up the bitmaps that examples had at most at one time.
    ``reach`` counts what :mod:`~qbprop.campaign.reach` tells of the steps that succeeded;
    ``in_flight`` the steps with a job in flight, and ``cells`` the operations by the states of the
    jobs that they met and how they ended (:mod:`~qbprop.campaign.job_states`). ``traced`` counts
    the operations by QEMU's trace events, in the examples that were traced; ``reasons`` those that
    were refused by the reason.
    """

    examples: int = 0
    steps: int = 0
    shrink_steps: int = 0
    partial_backups: int = 0
    bitmaps: int = 0
    in_flight: int = 0
    cells: Counter[Cell] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reach: Counter[tuple[str, str]] = field(default_factory=Counter)
    traced: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def step(self, operation: Operation, *, refused: bool) -> None:
        """One operation was performed and checked."""
        self.steps += 1
        outcome = self.refused if refused else self.succeeded
        outcome[operation_name(operation)] += 1
        if isinstance(operation, Transaction):
            outcome.update(f"transaction.{operation_name(a)}" for a in operation.actions)

    def example_done(self, *, partial_backup: bool, bitmaps: int) -> None:
        """An example is over."""
        self.examples += 1
        self.partial_backups += partial_backup
        self.bitmaps += bitmaps

    def add(self, other: "Statistics") -> None:
        """Add what another campaign exercised."""
        for each in fields(self):
            mine, its = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, Counter):
                mine.update(its)
            else:
                setattr(self, each.name, mine + its)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Statistics":
        """What ``campaign.json`` tells; the bitmaps of all examples are nearly right."""
        cells = record["cells"]
        outcomes = record["outcomes"].items()
        return cls(
            examples=record["examples"],
            steps=record["steps"],
            shrink_steps=record["shrink_steps"],
            partial_backups=record["partial_backup_examples"],
            bitmaps=round(record["bitmaps_per_example"] * record["examples"]),
            in_flight=record["steps_in_flight"],
            cells=Counter(
                {
                    (name, state, outcome): n
                    for name, row in cells.items()
                    for state, both in row.items()
                    for outcome, n in both.items()
                }
            ),
            succeeded=Counter({name: each["ok"] for name, each in outcomes}),
            refused=Counter({name: each["refused"] for name, each in outcomes}),
            reach=_counter(record["reach"]),
            traced=_counter(record.get("traced", {})),
            reasons=_counter(record.get("reasons", {})),
        )

    def job_state_table(self) -> dict[str, dict[str, int]]:
        """Operation, state, how often; in order."""
        return {
            name: {state: sum(both.values()) for state, both in row.items()}
            for name, row in self.cell_table().items()
        }

    def cell_table(self) -> dict[str, dict[str, dict[str, int]]]:
        """``cells`` in order: operation, state, outcome, how often."""
        return {
            name: {
                state: {outcome: self.cells[name, state, outcome] for outcome in OUTCOMES}
                for state in STATES
            }
            for name in OPERATION_NAMES
        }

    @property
    def cells_reached(self) -> int:
        """How many different cells were reached."""
        return sum(count > 0 for count in self.cells.values())

    @property
    def reached(self) -> int:
        """How many different cells were reached, trace events and reasons to refuse."""
        return self.cells_reached + len(self.traced) + len(self.reasons)

    @property
    def never_refused(self) -> list[str]:
        """The reasons for which nothing was ever refused."""
        return sorted(set(Reason) - {reason for _, reason in self.reasons})

    def reach_by_heading(self) -> dict[str, dict[str, int]]:
        """``reach`` in order: heading, what, how often; the most frequent first."""
        table: dict[str, dict[str, int]] = {heading: {} for heading, _ in sorted(self.reach)}
        for (heading, what), count in self.reach.most_common():
            table[heading][what] = count
        return table


def by_operation(counter: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """``traced`` or ``reasons`` in order: operation, trace event or reason, how often."""
    table: dict[str, dict[str, int]] = {}
    for (name, what), count in sorted(counter.items()):
        table.setdefault(name, {})[what] = count
    return table


def _counter(table: Mapping[str, Mapping[str, int]]) -> Counter[tuple[str, str]]:
    return Counter({(name, what): n for name, row in table.items() for what, n in row.items()})


def is_partial_backup(step: Step, state: State, before: Mapping[str, Job]) -> bool:
    """Whether a backup ended well in this step that copied what a bitmap said, but not all.

    ``before`` are the jobs that were in flight when the step began.
    """
    for name, due in step.expected.jobs.items():
        job = before.get(name)
        if job is None or job.bitmap is None or due.error or due.length is None:
            continue
        if 0 < due.length < job.point_in_time.size:
            return True
    operation = step.operation
    actions = operation.actions if isinstance(operation, Transaction) else (operation,)
    for action in actions:
        if isinstance(action, Backup) and action.bitmap is not None:
            end = step.expected.jobs.get(action.job or action.node)
            node = state.find(action.node)
            if end is None or node is None or end.error or end.aborted or end.length is None:
                continue
            if 0 < end.length < state.size(node):
                return True
    return False
