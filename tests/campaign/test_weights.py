"""Which subject rounds keep to, by what they reached."""

from pathlib import Path
from typing import Any

from tests.campaign.machines import run

from qbprop.campaign.known import shipped_known
from qbprop.campaign.rounds import ROUND_EXAMPLES
from qbprop.campaign.weights import Weights
from qbprop.machine import BlockMachine


def test_one_round_in_three_keeps_to_what_has_promised_most() -> None:
    weights = Weights((None, "jobs", None, "layers", "jobs"))
    assert [weights.choose(number) for number in range(6)] == [None, None, "jobs"] * 2
    weights.credit("jobs", 8)
    assert weights.choose(2) == "layers"
    weights.credit("layers", 3)
    assert weights.choose(2) == "jobs"
    weights.credit("jobs", 0)
    assert weights.choose(2) == "jobs"
    weights.credit("jobs", 0)
    assert weights.choose(2) == "layers"


def test_without_subjects_no_round_keeps_to_one() -> None:
    assert {Weights(()).choose(number) for number in range(6)} == {None}


def test_a_campaign_tries_what_reaches_most_more_often(tmp_path: Path) -> None:
    """Of a machine whose examples keep to what its rounds are to keep to, and note it."""
    kept: list[str | None] = []
    classes: set[type] = set()

    class Noting(BlockMachine):
        subjects = (None, "jobs", "graphs")

        def teardown(self) -> None:
            kept.append(self.subject if len(self.focus) == 1 else None)
            classes.add(type(self))
            super().teardown()

    options: dict[str, Any] = {"machine": Noting, "known": shipped_known()}
    run(tmp_path, max_examples=9 * ROUND_EXAMPLES, max_seconds=600.0, **options)
    assert kept.count("jobs") >= ROUND_EXAMPLES
    assert kept.count("graphs") >= ROUND_EXAMPLES
    assert kept.count(None) >= 6 * ROUND_EXAMPLES
    assert len(classes) == 3  # Hypothesis keeps each of them for ever
