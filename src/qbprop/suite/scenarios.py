"""iotest 124 through qbprop's vocabulary: fixed sequences, and what each must show besides.

The traces lie in ``iotest_124/``. Every step of them is checked like any other; the numbers and
refusals here are those that the iotest itself asserts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files

from qbprop.session import Session, Step
from qbprop.trace import read_trace
from qbprop_model.expectation import Reason


@dataclass(frozen=True)
class Scenario:
    """A trace and the iotest's own assertions. Steps count from 1.

    ``counts``: (step, disk, bitmap) → dirty bytes of that bitmap after the step. ``refusals``:
    step → reason; every other step must succeed. ``ends``: (step, job) → the event that tells
    its end. ``restored``: targets → disks that they must read like at the end.
    """

    name: str
    counts: Mapping[tuple[int, str, str], int] = field(default_factory=dict)
    refusals: Mapping[int, Reason] = field(default_factory=dict)
    ends: Mapping[tuple[int, str], str] = field(default_factory=dict)
    restored: Mapping[str, str] = field(default_factory=dict)


SCENARIOS = (
    Scenario(
        "incremental_simple",
        counts={
            (8, "drive0", "bitmap0"): 458752,
            (11, "drive0", "bitmap0"): 0,
            (14, "drive0", "bitmap0"): 1507328,
        },
        restored={"target3": "drive0"},
    ),
    Scenario(
        "small_granularity",
        counts={(8, "drive0", "bitmap0"): 360448, (14, "drive0", "bitmap0"): 1441792},
        restored={"target3": "drive0"},
    ),
    Scenario(
        "large_granularity",
        counts={(8, "drive0", "bitmap0"): 655360, (14, "drive0", "bitmap0"): 1572864},
        restored={"target3": "drive0"},
    ),
    Scenario(
        "larger_cluster_target",
        counts={(7, "drive0", "bitmap0"): 458752, (10, "drive0", "bitmap0"): 0},
        restored={"target1": "drive0"},
    ),
    Scenario(
        "incremental_transaction",
        counts={(8, "drive0", "bitmap0"): 0, (8, "drive0", "bitmap1"): 0},
        restored={"target1": "drive0", "target2": "drive0"},
    ),
    Scenario("sync_dirty_bitmap_missing", refusals={2: Reason.BITMAP_NEEDED}),
    Scenario("sync_dirty_bitmap_not_found", refusals={2: Reason.BACKUP_BITMAP_NOT_FOUND}),
    Scenario("sync_dirty_bitmap_bad_granularity", refusals={2: Reason.BAD_GRANULARITY}),
    Scenario(
        "growing_before_backup",
        counts={(4, "drive0", "bitmap0"): 0, (5, "drive0", "bitmap0"): 65536},
        restored={"target1": "drive0"},
    ),
    Scenario(
        "transaction_failure",
        counts={
            (16, "drive0", "bitmap0"): 458752,
            (16, "drive1", "bitmap0"): 458752,
            (19, "drive0", "bitmap0"): 0,
            (19, "drive1", "bitmap0"): 0,
        },
        ends={(16, "device0"): "BLOCK_JOB_CANCELLED", (16, "device1"): "BLOCK_JOB_COMPLETED"},
        restored={"target2": "drive0", "target3": "drive1"},
    ),
    Scenario(
        "transaction_failure_race",
        counts={(12, "drive0", "bitmap0"): 0, (12, "drive1", "bitmap0"): 458752},
        ends={(12, "job0"): "BLOCK_JOB_CANCELLED", (12, "job1"): "BLOCK_JOB_COMPLETED"},
        restored={"target2": "drive0", "target3": "drive1"},
    ),
    Scenario(
        "incremental_failure",
        counts={(9, "drive0", "bitmap0"): 458752, (11, "drive0", "bitmap0"): 0},
        ends={(9, "device0"): "BLOCK_JOB_COMPLETED"},
        restored={"target1": "drive0"},
    ),
    Scenario(
        "incremental_pause",
        counts={(9, "drive0", "bitmap0"): 458752, (10, "drive0", "bitmap0"): 0},
        restored={"target1": "drive0"},
    ),
)


def perform(scenario: Scenario, session: Session) -> None:
    """Perform a scenario; raises a Finding, or AssertionError for what the iotest asserts."""
    resource = files("qbprop.suite").joinpath("iotest_124", f"{scenario.name}.jsonl")
    with as_file(resource) as path:
        (operations,) = read_trace(path).examples
    session.begin()
    for operation in operations:
        check_step(scenario, session.step(operation))
    for name, node in scenario.restored.items():
        disk, target = session.world.contents(node), session.world.contents(name)
        assert disk is not None
        assert target is not None
        assert target.size == disk.size
        for start, end in {*disk.written(), *target.written()}:
            same = target.render(start, end - start) == disk.render(start, end - start)
            assert same.all(), f"{name} is not {node} between {start} and {end}"
    session.finish()


def check_step(scenario: Scenario, step: Step) -> None:
    """What the iotest asserts after one step, against what QEMU said."""
    due = scenario.refusals.get(step.number)
    came = step.expected.refusal.reason if step.expected.refusal else None
    assert came == due, f"step {step.number}: {came}, not {due}"
    assert (step.observed.refused is None) == (due is None)
    bitmaps = step.observed.bitmaps or {}
    for (number, node, name), count in scenario.counts.items():
        if number == step.number:
            seen = bitmaps[node][name].count
            assert seen == count, f"step {number}: {name} of {node} {seen}"
    told = {
        (event.data.get("device"), event.name, "error" in event.data)
        for event in step.observed.events
    }
    for (number, job), name in scenario.ends.items():
        if number == step.number:
            assert (job, name, name == "BLOCK_JOB_COMPLETED") in told, f"step {number}: {told}"
