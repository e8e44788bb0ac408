"""Injected errors: which requests fail, and how often (semantics 7.2)."""

from dataclasses import replace

from qbprop_model.bitmap import ceil_div
from qbprop_model.disk.geometry import clusters
from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc, Image
from qbprop_model.operations import Errno, Fault, Request
from qbprop_model.ranges import Ranges

REASONS: dict[Errno, Reason] = {"EIO": Reason.IO_ERROR, "ENOSPC": Reason.NO_SPACE}
"""What whoever sent the request is told."""


class FaultRules:
    """How faults act. Override one method to state another rule."""

    def hits(self, fault: Fault, request: Request, offset: int, length: int) -> bool:
        """Whether a request fails: one of the fault's kind, over the fault's byte."""
        if fault.request != request:
            return False
        return request in ("flush", "resize") or offset <= fault.offset < offset + length

    def data_writes(self, image: Image, offset: int, length: int) -> tuple[int, int]:
        """The least and the most writes of data that a guest's write of a qcow2 layer takes.

        What lies together in the file may be written at once. A new L2 table comes between what
        it is for and what was before it: it is new where nothing of that is allocated, and no
        discard has made it before.
        """
        end = offset + length
        _, *later = clusters(image.table_size, offset, end)
        new = sum(all(kind is Alloc.NONE for *_, kind in image.alloc.runs(*each)) for each in later)
        return 1 + new, ceil_div(end, image.cluster_size) - offset // image.cluster_size

    def torn(self, image: Image, offset: int, length: int) -> Ranges:
        """The parts of a write of which each may have been done where it failed: clusters."""
        parts = clusters(image.cluster_size, offset, offset + length)
        return tuple((max(s, offset), min(e, offset + length)) for s, e in parts)

    def spent(self, fault: Fault) -> tuple[Fault, ...]:
        """What is left of a fault that a request has met."""
        if fault.times == 1:
            return ()
        return (replace(fault, times=max(fault.times - 1, 0)),)
