"""A fast part of the measurement (scripts/sensitivity.py): wrong rules that live QEMU contradicts.

One seed, and as many examples for each as ten times its usual number; a change that blunts the
machine fails here.
"""

import operator
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest
from tests.sensitivity.dry import Trace, draw_examples, first_differences
from tests.sensitivity.runner import Shrunk, measure, shrink
from tests.sensitivity.variants import VARIANTS

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries

SEED = 3
LONG = 100.0

USUAL = {
    "start-rounds-inward": 2,
    "last-partial-cluster-forgotten": 2,
    "stops-at-the-word": 10,
    "discards-not-recorded": 10,
    "clear-enables": 15,
    "merge-replaces": 15,
    "coarse-sets-the-first-fine": 20,
    "shrink-keeps-the-bits": 20,
    "success-keeps-the-last-bit": 5,
    "copies-by-granularity": 5,
    "target-cluster-ignored": 10,
    "reused-target-is-wiped": 30,
}
"""Examples that it usually takes, at most."""

EXAMPLES = 60
"""As many as show all of these."""

MOST_UNSEEN = [
    (1, 10, 140),
    (2, 10, 70),
    (3, 40, 35),
    (4, 70, 16),
    (5, 160, 7),
    (6, 200, 3),
]
"""Seed, examples, and how many wrong rules these and all before may leave unseen, at most."""

LONGEST = 12
"""Operations of a short trace, topology included, at most."""


@pytest.fixture(scope="module")
def fresh() -> Iterator[ProcessPoolExecutor]:
    """Two processes at a time, each new for its task.

    Hypothesis draws constants from the modules that are loaded, and what else pytest has
    collected and run must not decide what is drawn here.
    """
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as pool:
        yield pool


def test_live_qemu_contradicts_these_wrong_rules(
    fresh: ProcessPoolExecutor, pytestconfig: pytest.Config
) -> None:
    shown = fresh.submit(contradicted, pytestconfig.getoption("--qemu")).result()
    late = {name for name, usual in USUAL.items() if name not in shown or shown[name] > 10 * usual}
    assert not late, shown


def contradicted(chosen: str | None) -> dict[str, int]:
    """The examples that first contradict wrong rules, in a process of its own."""
    variants = [VARIANTS[name] for name in USUAL]
    lab = Lab(find_binaries(chosen))
    found = measure(lab, variants, SEED, seconds=LONG, examples=EXAMPLES)
    return {name: shown.example for name, shown in found.shown.items()}


def test_what_contradicts_a_wrong_rule_becomes_short(
    fresh: ProcessPoolExecutor, pytestconfig: pytest.Config
) -> None:
    found = fresh.submit(shortened, pytestconfig.getoption("--qemu")).result()
    assert found.operations is not None
    assert found.operations <= LONGEST
    assert found.rate == 1.0


def shortened(chosen: str | None) -> Shrunk:
    """A campaign, in a process of its own."""
    return shrink(
        Lab(find_binaries(chosen)), VARIANTS["coarse-sets-the-first-fine"], SEED, seconds=LONG
    )


def test_nearly_every_wrong_rule_differs_from_the_right_one(fresh: ProcessPoolExecutor) -> None:
    seeds, counts, most = zip(*MOST_UNSEEN, strict=True)
    drawn = fresh.map(draw_examples, counts, repeat(30), seeds)
    names = sorted(VARIANTS)
    halves: list[set[str]] = [set(names[::2]), set(names[1::2])]
    left = []
    for traces in drawn:
        halves = list(fresh.map(unseen, halves, repeat(traces)))
        left.append(len(set().union(*halves)))
    assert all(map(operator.le, left, most)), (left, halves)


def unseen(names: Collection[str], traces: Collection[Trace]) -> set[str]:
    """The wrong rules of these names that no trace shows to differ."""
    left = set(names)
    for trace in traces:
        left.difference_update(first_differences((VARIANTS[name] for name in left), trace))
    return left
