"""What ``qbprop replay`` shows of each step, and of the disagreement that ends it."""

import json
from collections.abc import Iterator

from qbprop.findings import Finding
from qbprop.qemu.observation import Refused
from qbprop.records import operation_to_record
from qbprop.session import Step
from qbprop_model.operations import Operation

WIDTH = 200
"""Longest text of one operation, request or reply; more is cut."""


def show_operation(operation: Operation) -> str:
    """An operation on one line: its name, then its fields as in the trace."""
    record = operation_to_record(operation)
    name = record.pop("op")
    fields = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in record.items())
    return cut(" ".join([name, *fields]))


def show_step(step: Step, *, verbose: bool = False) -> Iterator[str]:
    """A step that agreed, and its outcome; if ``verbose`` also what was sent and answered."""
    refused = step.observed.refused
    outcome = "ok" if refused is None else f"refused as predicted: {_refusal(refused)}"
    yield f"{step.number:4}  {show_operation(step.operation)}  → {outcome}"
    if verbose:
        for exchange in step.observed.exchange:
            yield f"        > {cut(exchange.request)}"
            yield f"        < {cut(exchange.reply)}"


def show_disagreement(finding: Finding) -> Iterator[str]:
    """Where it happened, what should have been, and what was."""
    if finding.operation == "end":
        yield " end  the checks at the end of the example  → DISAGREEMENT"
    elif finding.trace:
        yield f"{finding.step:4}  {show_operation(finding.trace[-1])}  → DISAGREEMENT"
    yield ""
    yield f"{finding.title}  [{finding.id}]"
    for what, text in (("expected", finding.expected), ("observed", finding.observed)):
        first, *rest = text.splitlines() or [""]
        yield f"  {what}: {first}"
        yield from (f"            {line}" for line in rest)


def cut(text: str) -> str:
    """A text on one line, not too long."""
    line = text.replace("\n", "\\n")
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _refusal(refused: Refused) -> str:
    return cut(f"{refused.error_class}: {refused.text}")
