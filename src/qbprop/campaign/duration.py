"""How long something may last, as the user writes it and reads it."""

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``60s``, ``1.5m`` or ``8h``.

    :raises ValueError: it is none, or it is zero; one line with examples.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write seconds, minutes or hours: 60s, 10m, 8h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds == 0:
        raise ValueError(f"{text!r} leaves no time at all; write for example 60s, 10m or 8h")
    return seconds


def show_duration(seconds: float) -> str:
    """A duration to read: ``8.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
