"""A recorded trace as one page of HTML."""

import json
from dataclasses import asdict
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from qbprop.report.record import Record


def render(record: Record, title: str) -> str:
    """The whole page; it holds everything that it shows and needs no network."""
    template = files("qbprop.report").joinpath("finding.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    finding = record.finding
    return environment.from_string(template).render(
        title=title,
        qemu=record.qemu,
        expected=finding.expected if finding else "everything agrees",
        observed=finding.observed if finding else "everything agrees",
        steps=record.steps,
        data=_embedded([asdict(step) for step in record.steps]),
    )


def _embedded(value: object) -> Markup:
    """JSON that may stand in a script element: nothing in it ends the element."""
    text = json.dumps(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (what could be mark-up is escaped above)
