"""Patterns for replies as QEMU writes them: the table of reasons, as extended regular expressions.

The patterns of :mod:`qbprop.qemu.reasons` are Python's and speak of an error's text. A script
sees it within JSON, and knows the regular expressions of POSIX alone.
"""

import json
import re

from qbprop.qemu.reasons import TABLE
from qbprop_model.expectation import Refusal

_SPECIAL = re.compile(r"[][\\.*^$+?(){}|]")


def reply_pattern(refusal: Refusal) -> str:
    """What is found in QEMU's or a program's reply that gives this reason, of this subject.

    What a guest is told depends on the way that its request takes, and is not looked at.
    """
    rows = (row for row in TABLE[refusal.reason] if row.channel != "guest")
    return "|".join(dict.fromkeys(_in_reply(row.pattern, row.channel, refusal) for row in rows))


def python_pattern(refusal: Refusal) -> str:
    """What is found in the text of an error that gives this reason, of this subject."""
    subject = re.escape(refusal.subject) or ".*"
    patterns = (row.pattern.replace("\0", subject) for row in TABLE[refusal.reason])
    return "|".join(dict.fromkeys(patterns))


def extended(pattern: str) -> str:
    """A Python pattern without look-arounds and lazy parts as an extended regular expression."""
    text = pattern.replace("(?:", "(").replace(r"\w", "[A-Za-z0-9_]")
    return text.replace("\\ ", " ")


def json_text(text: str) -> str:
    """A text as QEMU's JSON shows it, quotes included: hexadecimal digits are upper-case."""
    shown = json.dumps(text)
    return re.sub(r"\\u[0-9a-f]{4}", lambda found: rf"\u{found[0][2:].upper()}", shown)


def _in_reply(pattern: str, channel: str, refusal: Refusal) -> str:
    subject = _SPECIAL.sub(r"\\\g<0>", json_text(refusal.subject)[1:-1]) or ".*"
    text = extended(pattern)
    if channel == "qmp":
        text = text.replace('"', r'\\"')
        text = re.sub(r"^\^", '"desc": "', text)
        text = re.sub(r"\$$", '"', text)
    return text.replace("\0", subject)
