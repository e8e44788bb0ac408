"""A round: Hypothesis runs the machine until something new is found, or enough was tried."""

import hashlib
from dataclasses import dataclass
from functools import cache

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.database import ExampleDatabase
from hypothesis.errors import Flaky, FlakyFailure
from hypothesis.stateful import get_state_machine_test

from qbprop.campaign.memory import give_back
from qbprop.campaign.summary import Summary
from qbprop.campaign.watch import Halt, Interrupted, Watch
from qbprop.campaign.weights import Weights
from qbprop.findings import Finding
from qbprop.machine.core import MachineBase

ROUND_EXAMPLES = 10
"""Examples of one round: as many as Hypothesis draws before it repeats itself.

Behind the tenth it makes five of six examples out of the one before, in which some draws are
replaced by others; they begin alike and reach little that is new. The first example of a round
is the simplest one there is, and costs nothing here.
"""


@dataclass(frozen=True)
class Rounds:
    """How to run rounds: of which machine, how many steps an example has, where examples are kept.

    Without a ``database`` nothing is read from one, and the same ``seed`` gives the same
    examples.
    """

    machine: type[MachineBase]
    steps: int
    seed: int
    database: ExampleDatabase | None

    def run(self, number: int, watch: Watch, focus: tuple[str, ...] = ()) -> None:
        """Run round ``number``, with ``focus`` on some subjects; ``watch`` then knows how it ended.

        :raises KeyboardInterrupt: the user wants to stop.
        """
        machine = _focused(self.machine, focus)
        # Around the test itself the decorator would switch the database off.
        seeded = hypothesis.seed(derived_seed(self.seed, number))(machine)
        machine_test = get_state_machine_test(seeded, settings=self._settings())
        try:
            machine_test()
        except (Halt, Finding, FlakyFailure):
            pass
        except Exception as error:
            if watch.interrupted:
                raise Interrupted from error
            if not isinstance(error, Flaky) or not (watch.halted or _found_before(watch)):
                watch.broken = watch.broken or error
        finally:
            give_back()  # what Hypothesis knew of the round hangs together in circles

    def _settings(self) -> settings:
        phases = [Phase.generate, Phase.shrink]
        if self.database is not None:
            phases.insert(0, Phase.reuse)
        return settings(
            max_examples=ROUND_EXAMPLES,
            stateful_step_count=self.steps,
            database=self.database,
            phases=phases,
            derandomize=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=Verbosity.quiet,
            backend="hypothesis",
        )


@cache  # Hypothesis keeps the rules of every class that it has seen
def _focused(machine: type[MachineBase], focus: tuple[str, ...]) -> type[MachineBase]:
    return type(machine.__name__, (machine,), {"focus": focus})


class RandomSearch:
    """One round after the other; ``summary`` tells which were begun.

    With a ``focus`` all keep to these subjects, else what they reach decides.
    """

    over = False

    def __init__(self, rounds: Rounds, summary: Summary, focus: tuple[str, ...]) -> None:
        self._rounds = rounds
        self._summary = summary
        self._focus = focus
        self._weights = Weights(() if focus else rounds.machine.subjects)

    def run(self, watch: Watch) -> None:
        """Run the next round.

        :raises KeyboardInterrupt: the user wants to stop.
        """
        number, counts = self._summary.rounds, self._summary.statistics
        self._summary.rounds += 1
        subject = self._weights.choose(number)
        before = counts.cells_reached
        self._rounds.run(number, watch, self._focus if subject is None else (subject,))
        if subject is not None:
            self._weights.credit(subject, counts.cells_reached - before)


def derived_seed(seed: int, number: int) -> int:
    """The seed of a round: unlike any other round's or campaign's."""
    digest = hashlib.sha256(f"qbprop round {number} of {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _found_before(watch: Watch) -> bool:
    """Whether a finding may be why an example did not go the same way twice."""
    return bool(watch.target or watch.hidden)
