"""A search under pytest, in as many streams as pytest-xdist has workers.

Each stream has a seed of its own, and its share of the examples: together they search what one
worker alone would, and no two of them the same.
"""

from dataclasses import dataclass

import hypothesis
from hypothesis import core, settings
from hypothesis.stateful import run_state_machine_as_test

from qbprop.campaign.rounds import ROUND_EXAMPLES, derived_seed
from qbprop.machine.core import MachineBase
from qbprop.profiles import chosen_settings


@dataclass(frozen=True)
class Stream:
    """Stream ``number``, from 0, of ``count``."""

    number: int = 0
    count: int = 1

    def search(self, machine: type[MachineBase], chosen: settings | None = None) -> None:
        """Run a machine as the profile (or ``chosen``) says, as far as this stream has to.

        That is in rounds, as in a campaign.
        """
        chosen = chosen or chosen_settings()
        left = -(-chosen.max_examples // self.count)
        number = self.number
        own = type(machine.__name__, (machine,), {})
        while left > 0:
            most = min(left, ROUND_EXAMPLES)
            seed = self._seed(chosen, number)
            if seed is not None:
                own = hypothesis.seed(seed)(own)
            run_state_machine_as_test(own, settings=settings(chosen, max_examples=most))
            left -= most
            number += self.count

    @staticmethod
    def _seed(chosen: settings, number: int) -> int | None:
        """That of a round, where all of them would begin with the same: else none is needed."""
        common: int | None = core.global_force_seed
        if common is None and not chosen.derandomize:
            return None
        return derived_seed(common or 0, number)
