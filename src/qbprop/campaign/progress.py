"""What a campaign shows while it runs: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from qbprop.campaign.duration import show_duration
from qbprop.campaign.memory import show
from qbprop.campaign.summary import Summary, WorkerRecord
from qbprop.uninterrupted import uninterrupted

PLAIN_SECONDS = 5.0
"""Time between two plain lines."""


class Progress(Protocol):
    """Shows how far a campaign is."""

    def tick(self) -> None:
        """Something may have changed."""

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""


class SilentProgress:
    """Shows nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class LineProgress:
    """Shows a line every few seconds."""

    def __init__(self, console: Console, describe: Callable[[], Sequence[str]]) -> None:
        self._console = console
        self._describe = describe
        self._next = time.monotonic() + PLAIN_SECONDS

    def tick(self) -> None:
        """Show a line if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            self.note(self._describe()[0])

    def note(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """Keeps a line, and one for each worker, up to date, notes above them."""

    def __init__(self, console: Console, describe: Callable[[], Sequence[str]]) -> None:
        self._console = console
        self.live = Live(
            console=console,
            get_renderable=lambda: Text("\n".join(describe()), overflow="ellipsis", no_wrap=True),
            refresh_per_second=5,
            transient=True,
        )

    def tick(self) -> None:
        """Nothing: the line refreshes itself."""

    def note(self, text: str) -> None:
        """Show a line that stays above the live one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def describe(summary: Summary, limit: float | None) -> list[str]:
    """How far the campaign is, of at most so many seconds; then a line for each worker."""
    return [_whole(summary, limit), *map(_worker, summary.workers)]


def _worker(worker: WorkerRecord) -> str:
    parts = [f"share {worker.share}", show_duration(worker.seconds), f"{worker.steps:,} steps"]
    return "  " + "  ".join([*parts, f"· {worker.activity}"] if worker.activity else parts)


def _whole(summary: Summary, limit: float | None) -> str:
    counts = summary.statistics
    of = f" of {show_duration(limit)}" if limit is not None else ""
    new = summary.new_findings
    racy, known = sum(each.racy for each in new), len(summary.findings) - len(new)
    others = [f"{racy} of them racy"] * bool(racy) + [f"+{known} known"] * bool(known)
    found = f"{len(new)} findings" + (f" ({', '.join(others)})" if others else "")
    parts = [
        f"{show_duration(summary.seconds)}{of}",
        f"{counts.steps:,} steps",
        f"{counts.examples:,} examples",
        f"{summary.steps_per_second:.0f} steps/s",
        found,
    ]
    if counts.cells_reached:
        silence = show_duration(max(0.0, summary.seconds - summary.news_seconds))
        parts.append(f"{counts.cells_reached} cells, nothing new for {silence}")
    if summary.memory:
        parts.append(show(summary.memory))
    return "  ".join([*parts, f"· {summary.activity}"] if summary.activity else parts)


def open_progress(
    console: Console, describe: Callable[[], Sequence[str]], stack: ExitStack
) -> LiveProgress | LineProgress:
    """The progress that suits a console; a live one is taken down with ``stack``."""
    if not console.is_terminal:
        return LineProgress(console, describe)
    progress = LiveProgress(console, describe)
    with uninterrupted():
        stack.enter_context(progress.live)
    return progress
