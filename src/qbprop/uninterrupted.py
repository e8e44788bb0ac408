"""Sections that the user's wish to stop does not break into."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)
"""The signals that tell a campaign to stop."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals to stop are taken at the end, and never by a thread that was started meanwhile.

    For C code that calls Python code back: what a signal's handler raises there is lost.
    """
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
