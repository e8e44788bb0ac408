"""Wrong rules that the short sequences of the small world tell apart from the right ones."""

from itertools import product
from pathlib import Path

import pytest
from tests.campaign.machines import run
from tests.sensitivity.dry import first_difference
from tests.sensitivity.variants import VARIANTS

from qbprop.campaign.exhaustive import OPERATIONS, WORLD

OF_TWO = (
    *("cancel-clears", "clear-enables", "clear-leaves-the-partial-word", "clear-not-undone"),
    *("clear-spares-disabled", "coarse-sets-the-first-fine", "disable-loses-the-last-bit"),
    *("disabled-records-the-last-cluster", "disabled-takes-nothing", "enable-clears"),
    *("enable-toggles", "end-rounds-inward", "end-rounds-too-far", "exhausted-jobs-wait"),
    *("failure-clears", "frozen-does-not-record", "frozen-is-free", "frozen-is-not-busy"),
    *("last-abort-ignored", "limit-copies-nothing", "limit-copies-the-last", "limit-copies-two"),
    *("merge-copies-recording", "merge-replaces", "no-copy-before", "one-more-is-copied"),
    *("partial-last-is-not-copied", "start-rounds-inward", "writes-reach-the-frozen"),
    "zeroes-not-recorded",
)
"""The wrong rules for which two operations are enough."""


@pytest.mark.parametrize("name", OF_TWO)
def test_two_operations_show_a_wrong_rule(name: str) -> None:
    sequences = ((*WORLD, *each) for each in product(OPERATIONS, repeat=2))
    assert any(first_difference(VARIANTS[name], each) for each in sequences)


@pytest.mark.parametrize("name", ["merge-replaces", "clear-not-undone", "last-abort-ignored"])
def test_live_qemu_contradicts_it_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbprop.campaign.exhaustive.LENGTH", 2)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 2)
    with VARIANTS[name].active() as rules:
        summary = run(
            tmp_path, rules=rules, exhaustive=True, max_examples=None, stop_on_finding=True
        )
    (finding,) = summary.new_findings
    assert finding.rate == 1.0
