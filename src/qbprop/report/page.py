"""A trace, performed and recorded, as one page of HTML."""

import json
from dataclasses import asdict
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from qbprop.errors import TraceError
from qbprop.lab import Lab
from qbprop.report.record import Record, record
from qbprop.trace import Trace
from qbprop_model.operations import InvalidOperationError
from qbprop_model.rules import Rules


def draw(lab: Lab, trace: Trace, rules: Rules | None = None) -> str:
    """The page of a trace, which is performed once more.

    :raises TraceError: the model cannot judge it.
    """
    named = trace.header.finding
    try:
        with lab.session(rules) as session:
            recorded = record(session, trace.examples)
    except InvalidOperationError as error:
        raise TraceError(f"{error}; the trace cannot be judged") from error
    return render(recorded, named.title if named else "a trace without a finding")


def render(record: Record, title: str) -> str:
    """The whole page; it holds everything that it shows and needs no network."""
    finding = record.finding
    return template("finding.html").render(
        title=title,
        qemu=record.qemu,
        expected=finding.expected if finding else "everything agrees",
        observed=finding.observed if finding else "everything agrees",
        steps=record.steps,
        data=_embedded([asdict(step) for step in record.steps]),
    )


def template(name: str) -> Template:
    """A template of a page; what it is given is text and never mark-up."""
    text = files("qbprop.report").joinpath(name).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _embedded(value: object) -> Markup:
    """JSON that may stand in a script element: nothing in it ends the element."""
    text = json.dumps(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (what could be mark-up is escaped above)
