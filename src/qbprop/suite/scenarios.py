"""iotests through qbprop's vocabulary: fixed sequences, and what each must show besides.

The traces lie in ``iotest_124/`` and its like. Every step of them is checked like any other; the
numbers and refusals here are those that an iotest asserts. For 124 they are its own; for 151
(mirrors that follow guests), 165 (persistence), 236 (merges in transactions), 246 (resizes of what
is persistent), 254 and 260 (snapshots and commits) and 256 (two disks in one transaction) they are
for what it sets out to check.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files

from qbprop.qemu.driver import Driver
from qbprop.session import Session, Step
from qbprop.trace import read_trace
from qbprop_model.expectation import Reason
from qbprop_model.operations import Operation


@dataclass(frozen=True)
class Scenario:
    """A trace and an iotest's assertions. Steps count from 1.

    ``counts``: (step, disk, bitmap) → dirty bytes of that bitmap after the step. ``refusals``:
    step → reason; every other step must succeed. ``ends``: (step, job) → the event that tells
    its end. ``restored``: targets → disks that they must read like at the end. ``needs``: fields of
    Features that QEMU must have.
    """

    name: str
    counts: Mapping[tuple[int, str, str], int] = field(default_factory=dict)
    refusals: Mapping[int, Reason] = field(default_factory=dict)
    ends: Mapping[tuple[int, str], str] = field(default_factory=dict)
    restored: Mapping[str, str] = field(default_factory=dict)
    iotest: int = 124
    needs: tuple[str, ...] = ()


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
        needs=("blockdev_backup_x_perf",),
    ),
    Scenario(
        "survives_restarts",
        counts={
            (6, "drive0", "bitmap0"): 131072,
            (9, "drive0", "bitmap0"): 196608,
            (13, "drive0", "bitmap0"): 196608,
        },
        iotest=165,
    ),
    Scenario(
        "writable_after_read_only",
        counts={(5, "drive0", "bitmap0"): 65536, (9, "drive0", "bitmap0"): 131072},
        refusals={6: Reason.BITMAP_READ_ONLY, 7: Reason.BITMAP_READ_ONLY},
        iotest=165,
    ),
    Scenario(
        "inconsistent_after_a_kill",
        counts={
            (10, "drive0", "bitmap0"): 0,
            (15, "drive0", "bitmap0"): 65536,
            (16, "drive0", "bitmap0"): 0,
        },
        refusals={11: Reason.BITMAP_INCONSISTENT},
        restored={"target0": "drive0"},
        iotest=165,
    ),
    Scenario(
        "merges_all_or_nothing",
        counts={
            (7, "drive0", "bitmap0"): 65536,
            (7, "drive0", "bitmap1"): 131072,
            (8, "drive0", "bitmap2"): 131072,
            (9, "drive0", "bitmap1"): 131072,
            (10, "drive0", "bitmap1"): 0,
            (11, "drive0", "bitmap2"): 196608,
        },
        refusals={7: Reason.ABORTED},
        iotest=236,
    ),
    Scenario(
        "grows_and_shrinks",
        counts={
            (7, "drive0", "bitmap0"): 131072,
            (7, "drive0", "bitmap1"): 66048,
            (11, "drive0", "bitmap0"): 196608,
            (11, "drive0", "bitmap1"): 131584,
            (11, "drive0", "bitmap2"): 0,
            (12, "drive0", "bitmap0"): 131072,
            (12, "drive0", "bitmap1"): 66048,
            (18, "drive0", "bitmap0"): 196608,
            (18, "drive0", "bitmap1"): 66560,
        },
        iotest=246,
    ),
    Scenario(
        "anchors_of_two_disks",
        counts={
            (7, "drive0", "bitmap0"): 65536,
            (7, "drive1", "bitmap0"): 131072,
            (8, "drive0", "bitmap0"): 0,
            (8, "drive1", "bitmap0"): 0,
            (13, "drive0", "bitmap0"): 65536,
            (13, "drive1", "bitmap0"): 65536,
            (14, "drive0", "bitmap0"): 0,
            (14, "drive1", "bitmap0"): 0,
        },
        refusals={7: Reason.BITMAP_EXISTS},
        restored={"target0": "drive0", "target1": "drive1"},
        iotest=256,
    ),
    Scenario(
        "chain_across_a_snapshot",
        counts={
            (7, "drive0", "bitmap0"): 65536,
            (7, "drive1", "bitmap1"): 0,
            (9, "drive0", "bitmap0"): 65536,
            (9, "drive1", "bitmap1"): 131072,
            (11, "drive1", "bitmap2"): 196608,
            (13, "drive1", "bitmap2"): 0,
        },
        restored={"target1": "drive1"},
        iotest=254,
    ),
    Scenario(
        "undone_snapshot",
        counts={
            (5, "drive0", "bitmap0"): 65536,
            (6, "drive0", "bitmap0"): 131072,
            (9, "drive0", "bitmap0"): 131072,
        },
        refusals={5: Reason.ABORTED},
        iotest=254,
    ),
    Scenario(
        "commit_of_an_overlay",
        counts={
            (7, "drive0", "bitmap0"): 65536,
            (7, "drive1", "bitmap0"): 65536,
            (9, "drive0", "bitmap0"): 131072,
            (9, "drive1", "bitmap0"): 65536,
            (14, "drive0", "bitmap0"): 196608,
            (14, "drive1", "bitmap0"): 65536,
        },
        refusals={8: Reason.BITMAP_READ_ONLY},
        iotest=260,
    ),
    Scenario(
        "mirror_that_follows",
        counts={
            (5, "drive0", "bitmap0"): 0,
            (5, "drive1", "bitmap0"): 65536,
            (6, "drive0", "bitmap0"): 65536,
            (6, "drive1", "bitmap0"): 131072,
            (8, "drive0", "bitmap0"): 196608,
            (8, "drive1", "bitmap0"): 262144,
            (14, "drive1", "bitmap0"): 0,
            (15, "drive0", "bitmap0"): 262144,
            (15, "drive1", "bitmap0"): 65536,
        },
        restored={"drive1": "drive0"},
        iotest=151,
    ),
)


def operations(scenario: Scenario) -> tuple[Operation, ...]:
    """What is performed."""
    resource = files("qbprop.suite").joinpath(f"iotest_{scenario.iotest}", f"{scenario.name}.jsonl")
    with as_file(resource) as path:
        (found,) = read_trace(path).examples
    return found


def obstacle(scenario: Scenario, driver: Driver) -> str:
    """Why a QEMU cannot go through a scenario; empty where it can."""
    steps = operations(scenario)
    missing = [name for name in scenario.needs if not getattr(driver.features, name)]
    if missing:
        return f"this QEMU has no {missing[0]}"
    if not all(map(driver.can_perform, steps)):
        return "this QEMU cannot reopen a disk"
    drives = any(getattr(operation, "drive", None) for operation in steps)
    if drives and not driver.features.human_monitor_command:
        return "a storage daemon has no drives"
    return ""


def perform(scenario: Scenario, session: Session) -> None:
    """Perform a scenario; raises a Finding, or AssertionError for what the iotest asserts."""
    session.begin()
    for operation in operations(scenario):
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
