"""Bitmap commands (semantics 1.1, 3)."""

from dataclasses import replace

from qbprop_model.effects.dispatch import effect
from qbprop_model.expectation import Reason
from qbprop_model.image import Refused
from qbprop_model.operations import (
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    InvalidOperationError,
    OpenOutcomeError,
)
from qbprop_model.state import Node, Outcome, State
from qbprop_model.storage import NAME_LIMIT


@effect.register
def _(op: BitmapAdd, world: State) -> Outcome:
    rules = world.rules
    check_arguments(op)
    if not op.name:
        raise Refused(Reason.BITMAP_NAME_EMPTY)
    name, node = world.resolve(op.node, Reason.DEVICE_NOT_FOUND)
    granularity = op.granularity
    if granularity is None:
        image = world.images[node.image]
        cluster = image.cluster_size if image.format == "qcow2" else None
        granularity = rules.default_granularity(cluster)
    elif not rules.granularity_accepted(granularity):
        raise Refused(Reason.BAD_GRANULARITY)
    if op.persistent and node.read_only:
        raise InvalidOperationError("a bitmap that is lost when its disk is closed, or refused")
    if op.persistent and not can_store(world, name):
        raise Refused(Reason.PERSISTENCE_UNSUPPORTED, world.shown_name(name))
    if op.name in node.bitmaps:
        raise Refused(Reason.BITMAP_EXISTS, op.name)
    if op.persistent:
        check_storable(op.name, granularity, node, world)
    if len(op.name.encode()) > NAME_LIMIT:
        raise Refused(Reason.BITMAP_NAME_TOO_LONG)
    bitmap = rules.add(world.size(node), granularity, disabled=op.disabled)
    world.put_bitmap(name, op.name, replace(bitmap, persistent=op.persistent))
    return Outcome()


def can_store(world: State, name: str) -> bool:
    """Whether a node is a qcow2 layer, and no filter above one (3)."""
    node = world.nodes[name]
    format_node = node.filters is None and name not in world.faults
    return format_node and world.images[node.image].format == "qcow2"


def check_storable(name: str, granularity: int, node: Node, world: State) -> None:
    """Refuse what the disk's image could not store; what may fail as it is stored is open."""
    world.rules.check_storable(world.images[node.image], name, granularity)
    if node.image in world.faults:
        raise OpenOutcomeError("what an error leaves of bitmaps that are stored")


def check_arguments(op: BitmapAdd) -> None:
    """QAPI refuses what does not fit 32 bits before the command starts (1.1)."""
    if op.granularity is not None and op.granularity >= 2**32:
        raise Refused(Reason.GRANULARITY_OUT_OF_RANGE)


@effect.register
def _(op: BitmapRemove, world: State) -> Outcome:
    start_remove(op, world)
    finish_removes(world)
    return Outcome()


def start_remove(op: BitmapRemove, world: State) -> None:
    """The bitmap is busy and keeps its name until the transaction commits (3.2)."""
    name, bitmap = world.usable(op.node, op.name, "remove")
    if bitmap.persistent:
        key = world.nodes[name].image
        world.images[key] = world.rules.forget(world.images[key], op.name)
    world.put_bitmap(name, op.name, world.rules.occupy(bitmap))
    world.removing = (*world.removing, (name, op.name))


def finish_removes(world: State) -> None:
    """The commit: what was being removed is gone."""
    for node, name in world.removing:
        world.drop_bitmap(node, name)
    world.removing = ()


@effect.register
def _(op: BitmapClear, world: State) -> Outcome:
    name, bitmap = world.usable(op.node, op.name, "change")
    world.put_bitmap(name, op.name, world.rules.clear(bitmap))
    return Outcome()


@effect.register
def _(op: BitmapEnable, world: State) -> Outcome:
    name, bitmap = world.usable(op.node, op.name, "switch")
    world.put_bitmap(name, op.name, world.rules.enable(bitmap))
    return Outcome()


@effect.register
def _(op: BitmapDisable, world: State) -> Outcome:
    name, bitmap = world.usable(op.node, op.name, "switch")
    world.put_bitmap(name, op.name, world.rules.disable(bitmap))
    return Outcome()


@effect.register
def _(op: BitmapMerge, world: State) -> Outcome:
    name, target = world.bitmap(op.node, op.target)
    size = world.size(world.nodes[name])
    sources = []
    for source in op.sources:
        where = op.node if source.node is None else source.node
        world.bitmap(where, source.name)
        if not world.traits.merge_checks_target_last:
            world.usable(op.node, op.target, "change")
        source_node, bitmap = world.usable(where, source.name, "read")
        if world.size(world.nodes[source_node]) != size:
            raise Refused(Reason.BITMAP_SIZES_DIFFER)
        sources.append(bitmap)
    world.usable(op.node, op.target, "change")
    world.put_bitmap(name, op.target, world.rules.merge(target, sources, size))
    return Outcome()
