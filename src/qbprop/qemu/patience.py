"""How long QEMU is waited for."""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SLICE_SECONDS = 0.5
"""Longest time between two looks at a Patience."""


class Patience:
    """So many seconds to wait for QEMU, of which `over` must be asked every SLICE_SECONDS.

    A longer time between two looks counts as one slice: then this process has stood still, as
    when a machine is frozen, and QEMU perhaps with it.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._looked = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        now = time.monotonic()
        self.left -= min(now - self._looked, SLICE_SECONDS)
        self._looked = now
        return self.left <= 0


def patiently(wait: Callable[[float], Result], seconds: float) -> Result:
    """What a wait returns that can be told how many seconds it may take, and be begun again.

    :raises subprocess.TimeoutExpired: that took longer.
    """
    patience = Patience(seconds)
    while True:
        try:
            return wait(min(patience.left, SLICE_SECONDS))
        except subprocess.TimeoutExpired:
            if patience.over:
                raise
