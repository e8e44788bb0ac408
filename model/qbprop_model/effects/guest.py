"""Guest I/O and resizing (semantics 1.2, 5)."""

from dataclasses import replace

from qbprop_model.data import SECTOR, all_zero
from qbprop_model.effects.dispatch import effect
from qbprop_model.expectation import Reason
from qbprop_model.image import Cell, Chain, Image, Refused
from qbprop_model.operations import (
    Discard,
    Flush,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.state import Node, Outcome, State

Request = Read | Write | WriteCompressed | WriteZeroes | Discard


def _reached(op: Request, world: State) -> tuple[str, Node, Chain]:
    """The node that a request gets to; past its end nothing gets there (1.2)."""
    name, node = world.resolve(op.node, Reason.GUEST_NOT_FOUND)
    if op.offset + op.length > world.size(node):
        raise Refused(Reason.PAST_END)
    return name, node, world.chain(node.image)


def detected(op: Write | WriteCompressed, node: Node) -> bool:
    """Whether the node turns a write into zeroing (``detect-zeroes``): its bytes decide."""
    return node.detect_zeroes != "off" and all_zero(op.data, op.offset, op.length)


def _store(world: State, name: str, image: Image | None, op: Request) -> None:
    """Put the written image back and set the bits of the whole range."""
    node = world.nodes[name]
    if image is not None:
        world.images[node.image] = image
    bitmaps = {
        key: world.rules.touch(bitmap, op.offset, op.length) for key, bitmap in node.bitmaps.items()
    }
    world.nodes[name] = replace(node, bitmaps=bitmaps)


@effect.register
def _(op: Read, world: State) -> Outcome:
    _, _, chain = _reached(op, world)
    return Outcome(data=world.rules.view_range(chain, op.offset, op.length))


@effect.register
def _(op: Flush, world: State) -> Outcome:
    world.resolve(op.node, Reason.GUEST_NOT_FOUND)
    return Outcome()


@effect.register
def _(op: Write, world: State) -> Outcome:
    name, node, chain = _reached(op, world)
    if detected(op, node):
        unmap = node.detect_zeroes == "unmap"
        image = world.rules.write_zeroes(chain, op.offset, op.length, world.step, unmap=unmap)
    else:
        cell = Cell(op.data, world.step)
        image = world.rules.write(chain, op.offset, op.length, cell)
    _store(world, name, image, op)
    return Outcome()


@effect.register
def _(op: WriteCompressed, world: State) -> Outcome:
    world.resolve(op.node, Reason.GUEST_NOT_FOUND)
    if op.offset % SECTOR or op.length % SECTOR:
        raise Refused(Reason.NOT_SECTOR_ALIGNED)
    name, node, chain = _reached(op, world)
    rules, step = world.rules, world.step
    try:
        if detected(op, node):
            unmap = node.detect_zeroes == "unmap"
            image = rules.write_zeroes(chain, op.offset, op.length, step, unmap=unmap)
        else:
            image = rules.write_compressed(chain, op.offset, op.length, Cell(op.data, step))
    except Refused as refused:
        _store(world, name, None, op)
        return Outcome(refusal=refused.refusal)
    _store(world, name, image, op)
    return Outcome()


@effect.register
def _(op: WriteZeroes, world: State) -> Outcome:
    name, _, chain = _reached(op, world)
    image = world.rules.write_zeroes(chain, op.offset, op.length, world.step, unmap=op.unmap)
    _store(world, name, image, op)
    return Outcome()


@effect.register
def _(op: Discard, world: State) -> Outcome:
    name, node, chain = _reached(op, world)
    if node.discard:
        _store(world, name, world.rules.discard(chain, op.offset, op.length, world.step), op)
    return Outcome()


@effect.register
def _(op: Resize, world: State) -> Outcome:
    name, node = world.resolve(op.node, Reason.RESIZE_NOT_FOUND)
    image = world.rules.resize(world.chain(node.image), op.size, world.step)
    world.images[node.image] = image
    bitmaps = {
        key: world.rules.resize_bitmap(bitmap, image.size) for key, bitmap in node.bitmaps.items()
    }
    world.nodes[name] = replace(node, bitmaps=bitmaps)
    return Outcome()
