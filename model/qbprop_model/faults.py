"""Injected errors: which requests fail, and how often (semantics 7.2)."""

from dataclasses import replace

from qbprop_model.expectation import Reason
from qbprop_model.operations import Errno, Fault, Request

REASONS: dict[Errno, Reason] = {"EIO": Reason.IO_ERROR, "ENOSPC": Reason.NO_SPACE}
"""What whoever sent the request is told."""


class FaultRules:
    """How faults act. Override one method to state another rule."""

    def hits(self, fault: Fault, request: Request, offset: int, length: int) -> bool:
        """Whether a request fails: one of the fault's kind, over the fault's byte."""
        if fault.request != request:
            return False
        return request in ("flush", "resize") or offset <= fault.offset < offset + length

    def spent(self, fault: Fault) -> tuple[Fault, ...]:
        """What is left of a fault that a request has met."""
        if fault.times == 1:
            return ()
        return (replace(fault, times=max(fault.times - 1, 0)),)
