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

    ``counts``: (step, bitmap) → dirty bytes of that bitmap of drive0 after the step.
    ``refusals``: step → reason; every other step must succeed. ``restored`` are the targets
    that must read like drive0 at the end.
    """

    name: str
    counts: Mapping[tuple[int, str], int] = field(default_factory=dict)
    refusals: Mapping[int, Reason] = field(default_factory=dict)
    restored: tuple[str, ...] = ()


SCENARIOS = (
    Scenario(
        "incremental_simple",
        counts={(8, "bitmap0"): 458752, (11, "bitmap0"): 0, (14, "bitmap0"): 1507328},
        restored=("target3",),
    ),
    Scenario(
        "small_granularity",
        counts={(8, "bitmap0"): 360448, (14, "bitmap0"): 1441792},
        restored=("target3",),
    ),
    Scenario(
        "large_granularity",
        counts={(8, "bitmap0"): 655360, (14, "bitmap0"): 1572864},
        restored=("target3",),
    ),
    Scenario(
        "larger_cluster_target",
        counts={(7, "bitmap0"): 458752, (10, "bitmap0"): 0},
        restored=("target1",),
    ),
    Scenario(
        "incremental_transaction",
        counts={(8, "bitmap0"): 0, (8, "bitmap1"): 0},
        restored=("target1", "target2"),
    ),
    Scenario("sync_dirty_bitmap_missing", refusals={2: Reason.BITMAP_NEEDED}),
    Scenario("sync_dirty_bitmap_not_found", refusals={2: Reason.BACKUP_BITMAP_NOT_FOUND}),
    Scenario("sync_dirty_bitmap_bad_granularity", refusals={2: Reason.BAD_GRANULARITY}),
    Scenario(
        "growing_before_backup",
        counts={(4, "bitmap0"): 0, (5, "bitmap0"): 65536},
        restored=("target1",),
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
    disk = session.world.contents("drive0")
    assert disk is not None
    for name in scenario.restored:
        target = session.world.contents(name)
        assert target is not None
        assert target.size == disk.size
        for start, end in {*disk.written(), *target.written()}:
            same = target.render(start, end - start) == disk.render(start, end - start)
            assert same.all(), f"{name} is not drive0 between {start} and {end}"
    session.finish()


def check_step(scenario: Scenario, step: Step) -> None:
    """What the iotest asserts after one step, against what QEMU said."""
    due = scenario.refusals.get(step.number)
    came = step.expected.refusal.reason if step.expected.refusal else None
    assert came == due, f"step {step.number}: {came}, not {due}"
    assert (step.observed.refused is None) == (due is None)
    bitmaps = (step.observed.bitmaps or {}).get("drive0", {})
    for (number, name), count in scenario.counts.items():
        if number == step.number:
            assert bitmaps[name].count == count, f"step {number}: {name} {bitmaps[name].count}"
