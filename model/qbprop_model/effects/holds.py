"""Guests' writes that are held in flight (semantics 1.2, 7.3)."""

from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.guest import detected
from qbprop_model.expectation import Reason
from qbprop_model.operations import (
    BitmapAction,
    Discard,
    Flush,
    HoldWrite,
    InvalidOperationError,
    Operation,
    Read,
    ReleaseWrite,
    Write,
    WriteZeroes,
)
from qbprop_model.state import Outcome, State


def check_beside(op: Operation, world: State) -> None:
    """What may be done while writes are held: what neither waits for them nor meets them.

    Raises InvalidOperationError for the rest: requests that overlap are in no order, and all
    that drains a disk waits for ever.
    """
    match op:
        case ReleaseWrite() | Read() | Flush():
            return
        case Write() | WriteZeroes() | Discard() | HoldWrite():
            name = world.roots.get(op.node, op.node)
            if world.backed_up or world.mirrors:
                raise InvalidOperationError("a job that gets nothing to do waits to be drained")
            held = world.held.get(name)
            if held is None:
                return
            apart = op.offset + op.length <= held.offset or held.offset + held.length <= op.offset
            if not apart or isinstance(op, HoldWrite):
                raise InvalidOperationError("requests in flight that overlap")
        case _ if not isinstance(op, BitmapAction):
            raise InvalidOperationError("it waits for a write that is held")


@effect.register
def _(op: HoldWrite, world: State) -> Outcome:
    world.check_monitor()
    if world.traits.graph_waits:
        raise InvalidOperationError("what would release the write waits for it")
    name, node = world.resolve(op.node, Reason.GUEST_NOT_FOUND)
    if name not in world.faults or node.filters is not None or world.filters(name):
        raise InvalidOperationError("no filter that holds a write, or one of a job above it")
    if not op.length or op.offset + op.length > world.size(node) or detected(op.write, node):
        raise InvalidOperationError("a write of nothing, past the end or of zeroes is not held")
    hold(op, name, world)
    return Outcome()


def hold(op: HoldWrite, name: str, world: State) -> None:
    """Nothing can be seen of a write before it completes (1.2)."""
    world.held[name] = op


@effect.register
def _(op: ReleaseWrite, world: State) -> Outcome:
    name = world.roots.get(op.node, op.node)
    if name not in world.held:
        raise InvalidOperationError("no write is held there")
    return release(world.held.pop(name), world)


def release(op: HoldWrite, world: State) -> Outcome:
    """The write happens now, whatever has become of the bitmaps meanwhile (1.2)."""
    return effect(op.write, world)
