"""A search under pytest, in as many streams as pytest-xdist has workers.

Each stream has a seed of its own, and its share of the examples: together they search what one
worker alone would, and no two of them the same.
"""

from dataclasses import dataclass

import hypothesis
from hypothesis import core, settings
from hypothesis.stateful import run_state_machine_as_test

from qbprop.campaign.rounds import derived_seed
from qbprop.machine.core import MachineBase
from qbprop.profiles import chosen_settings


@dataclass(frozen=True)
class Stream:
    """Stream ``number``, from 0, of ``count``."""

    number: int = 0
    count: int = 1

    def search(self, machine: type[MachineBase]) -> None:
        """Run a machine as the profile says, as far as this stream has to."""
        chosen = chosen_settings()
        if self.count == 1:
            run_state_machine_as_test(machine, settings=chosen)
            return
        most = -(-chosen.max_examples // self.count)
        own = type(machine.__name__, (machine,), {})
        seed = self._seed(chosen)
        if seed is not None:
            own = hypothesis.seed(seed)(own)
        run_state_machine_as_test(own, settings=settings(chosen, max_examples=most))

    def _seed(self, chosen: settings) -> int | None:
        """The stream's own, where all workers would begin with the same: else none is needed."""
        common: int | None = core.global_force_seed
        if common is None and not chosen.derandomize:
            return None
        return derived_seed(common or 0, self.number)
