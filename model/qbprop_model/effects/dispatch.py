"""What every operation does; the family modules register it."""

from functools import singledispatch

from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.state import Outcome, State


@singledispatch
def effect(operation: Operation, world: State) -> Outcome:  # noqa: ARG001 - the signature
    """Change ``world`` as the operation does.

    Raises :class:`~qbprop_model.image.Refused` where QEMU must refuse (the caller then drops
    ``world``), :class:`InvalidOperationError` where the operation makes no sense.
    """
    raise InvalidOperationError(f"{type(operation).__name__} is no operation of its own")
