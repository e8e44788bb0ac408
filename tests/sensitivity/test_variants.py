"""A fast part of the measurement (scripts/sensitivity.py): wrong rules that live QEMU contradicts.

One seed each, and as many examples as ten times its usual number; a change that blunts the
machine fails here.
"""

import pytest
from tests.sensitivity.dry import draw_examples, first_difference
from tests.sensitivity.runner import measure, shrink
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

UNSEEN = set(VARIANTS)
"""The wrong rules that no example so far has shown to differ; the seeds count together."""

LONGEST = 12
"""Operations of a short trace, topology included, at most."""


@pytest.mark.parametrize("name", USUAL)
def test_live_qemu_contradicts_a_wrong_rule(name: str, pytestconfig: pytest.Config) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    found = measure(lab, VARIANTS[name], SEED, seconds=LONG, examples=10 * USUAL[name])
    assert found.finding is not None


def test_what_contradicts_a_wrong_rule_becomes_short(pytestconfig: pytest.Config) -> None:
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    found = shrink(lab, VARIANTS["merge-replaces"], SEED, seconds=LONG)
    assert found.operations is not None
    assert found.operations <= LONGEST
    assert found.rate == 1.0


@pytest.mark.parametrize(
    ("seed", "examples", "most"),
    [(1, 20, 100), (2, 40, 60), (3, 80, 36), (4, 160, 12), (5, 200, 6), (6, 100, 5), (7, 100, 4)],
)
def test_nearly_every_wrong_rule_differs_from_the_right_one(
    seed: int, examples: int, most: int
) -> None:
    for trace in draw_examples(examples, 30, seed):
        UNSEEN.difference_update(
            [name for name in UNSEEN if first_difference(VARIANTS[name], trace)]
        )
    assert len(UNSEEN) <= most, UNSEEN
