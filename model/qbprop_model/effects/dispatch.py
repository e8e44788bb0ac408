"""The two questions every operation answers; the family modules register the answers."""

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


@singledispatch
def references(operation: Operation) -> tuple[str, ...]:
    """The names of the nodes and drives whose bitmaps the operation may touch."""
    node = getattr(operation, "node", None)
    return (node,) if isinstance(node, str) else ()
