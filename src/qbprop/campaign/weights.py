"""What rounds keep to: now and then the subject that has promised most so far."""

import math
from collections.abc import Iterable

FOCUS_EVERY = 3
"""One round in so many keeps to one subject."""


class Weights:
    """Weighs subjects by what the rounds that kept to them reached for the first time, of late.

    Without ``subjects`` there is nothing to weigh, and no round keeps to one.
    """

    def __init__(self, subjects: Iterable[str | None]) -> None:
        self._promise = {subject: math.inf for subject in subjects if subject is not None}

    def choose(self, number: int) -> str | None:
        """What round ``number`` keeps to, if anything: each subject once, then the best."""
        if number % FOCUS_EVERY != FOCUS_EVERY - 1:
            return None
        return max(self._promise, key=lambda each: self._promise[each], default=None)

    def credit(self, subject: str, first: int) -> None:
        """A round that kept to a subject reached so much for the first time."""
        before = self._promise[subject]
        self._promise[subject] = first if before == math.inf else (before + first) / 2
