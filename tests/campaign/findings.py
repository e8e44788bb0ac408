"""Findings to test with."""

from qbprop.findings import CountFinding, Finding, ReplyFinding
from qbprop_model.operations import Flush, Operation


def flushes(count: int) -> tuple[Operation, ...]:
    """Operations that differ from each other."""
    return tuple(Flush(node=f"drive{i}") for i in range(count))


def count_finding(trace: tuple[Operation, ...] = ()) -> Finding:
    """A finding; all of them have the same id."""
    return CountFinding("flush", "recording", "1 bit", "2 bits", len(trace), trace)


def reply_finding(trace: tuple[Operation, ...] = ()) -> Finding:
    """Another one."""
    return ReplyFinding("flush", "NODE_NOT_FOUND", "refused", "done", len(trace), trace)
