"""Where the time of a campaign goes: functions are wrapped, and their time is shared out."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from qbprop import session
from qbprop.hazards import Hazards
from qbprop.qemu import readback
from qbprop.qemu.driver import Driver
from qbprop.qemu.guest_nbd import NbdConnection, NbdGuest
from qbprop.qemu.images import Images
from qbprop.qemu.monitor import Monitor
from qbprop.qemu.process import QemuProcess
from qbprop_model.world import World

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "launch": ((QemuProcess, "__init__"), (QemuProcess, "kill")),
    "reset": ((Driver, "reset"),),
    "image checks": ((session.Session, "_check_images"),),
    "images": ((Images, "make"), (Images, "run")),
    "model": ((World, "apply"), (World, "copy"), (World, "final"), (Hazards, "see")),
    "QMP": ((Monitor, "send"), (Monitor, "receive"), (Monitor, "wait")),
    "guest I/O": (
        (NbdGuest, "perform"),
        (NbdConnection, "__init__"),
        (NbdConnection, "read"),
        (NbdConnection, "data_extents"),
    ),
    "comparing": ((session, "check"), (readback, "first_difference")),
    "driver": (
        (Driver, "start"),
        (Driver, "_observation"),
        (Driver, "observe"),
        (Driver, "differences"),
    ),
}
"""The functions of each part. Time in a function called by another is that of the inner one."""

WHOLE = ("launch", "reset", "image checks")
"""Parts that keep the time of what they call."""

REST = "Hypothesis and drawing"
"""Whatever is in no part."""


class Clock:
    """Seconds of each part, as `running` sees them; what `paused` leaves out is in none."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*PARTS, REST), 0.0)
        self.paused_seconds = 0.0
        self._stack = [REST]
        self._since = 0.0

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure."""
        with ExitStack() as patches:
            for part, functions in PARTS.items():
                for owner, name in functions:
                    timed = self._timed(getattr(owner, name), part)
                    patches.enter_context(patch.object(owner, name, timed))
            self._since = time.perf_counter()
            try:
                yield
            finally:
                self._turn()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside takes no time."""
        self._turn()
        start = self._since
        try:
            yield
        finally:
            self._since = time.perf_counter()
            self.paused_seconds += self._since - start

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            if self._stack[-1] in WHOLE:
                return function(*args, **named)
            self._turn()
            self._stack.append(part)
            try:
                return function(*args, **named)
            finally:
                self._turn()
                self._stack.pop()

        return timed
