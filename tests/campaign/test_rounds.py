"""Tests of what a round leaves behind."""

import gc
from typing import Any

from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, rule

from qbprop.campaign.rounds import Rounds


class Idle(RuleBasedStateMachine):
    """Does nothing."""

    @rule()
    def nothing(self) -> None:
        """A step."""


def test_a_round_leaves_nothing_of_hypothesis_in_memory() -> None:
    machine: Any = Idle
    watch: Any = None
    gc.collect()
    before = runners()
    gc.disable()
    try:
        Rounds(machine, steps=3, seed=1, database=None).run(0, watch)
        assert runners() == before
    finally:
        gc.enable()


def runners() -> int:
    return sum(isinstance(each, ConjectureRunner) for each in gc.get_objects())
