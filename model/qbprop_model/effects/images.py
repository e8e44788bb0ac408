"""Disks and image files (semantics 5.3, 11): what qemu-img makes, what QEMU opens."""

from dataclasses import replace

from qbprop_model.effects.dispatch import effect
from qbprop_model.expectation import Reason
from qbprop_model.image import Cell, Image, Refused
from qbprop_model.operations import (
    BELOW,
    TARGETS,
    AddDisk,
    CreateImage,
    InvalidOperationError,
    Layer,
    Opening,
    RebaseImage,
    ReopenDisk,
)
from qbprop_model.state import Node, Outcome, State


def _create(layer: Layer, backing: str | None, world: State) -> Image:
    return world.rules.create(
        format=layer.format,
        size=layer.size,
        cluster_size=layer.cluster_size,
        compat=layer.compat,
        extended_l2=layer.extended_l2,
        backing=backing,
    )


@effect.register
def _(op: AddDisk, world: State) -> Outcome:
    world.check_slot(op.node, op.drive)
    if op.node in world.nodes:
        raise InvalidOperationError(f"slot {op.node} is taken")
    _check_unused(op.node, world)
    backing = None
    for index in reversed(range(len(op.layers))):
        layer, name = op.layers[index], f"{op.node}.{index}"
        world.images.pop(name, None)
        image = _create(layer, backing, world)
        below = () if backing is None else world.chain(backing)
        for pattern in layer.data:
            if pattern.offset + pattern.length > layer.size:
                raise InvalidOperationError("a pattern must lie within its image")
            cell = Cell(pattern.data, world.step)
            image = world.rules.write((image, *below), pattern.offset, pattern.length, cell)
        world.put_image(name, image)
        backing = name
    check_options(op)
    attach(world, op, Node(image=f"{op.node}.0"))
    if op.faults is not None:
        kinds = {fault.request for fault in op.faults}
        in_file = not kinds.isdisjoint(BELOW)
        several = len(kinds) > 1 or (kinds == {"write_aio"} and len(op.faults) > 1)
        if in_file and (several or op.layers[0].format == "raw"):
            raise InvalidOperationError("faults of resizes, or one write_aio, alone below qcow2")
        world.faults[f"{op.node}.0" if in_file else op.node] = op.faults
    return Outcome()


def check_options(op: AddDisk | Opening | ReopenDisk) -> None:
    """Refuse options that do not go together (1.2); ``drive_add`` lets them pass."""
    drive = None if isinstance(op, ReopenDisk) else op.drive
    if op.detect_zeroes == "unmap" and op.discard != "unmap" and drive is None:
        raise Refused(Reason.IMAGE_REFUSED)


def attach(world: State, op: AddDisk | Opening, node: Node) -> None:
    """A node has been opened with the options of ``op``, perhaps as a drive."""
    world.nodes[op.node] = replace(
        node, drive=op.drive, discard=op.discard == "unmap", detect_zeroes=op.detect_zeroes
    )
    if op.drive is not None:
        world.roots[op.drive] = op.node


def _check_unused(node: str, world: State) -> None:
    """No image but those of the disk itself may be backed by one of its layers."""
    for name, image in world.images.items():
        backing, _, layer = (image.backing or "").partition(".")
        if layer and backing == node and not name.startswith(f"{node}."):
            raise InvalidOperationError(f"a layer of {node} is the backing file of {name}")


def _check_backing(image: str, backing: str | None, world: State) -> None:
    """A target may back only targets of a larger number, so that no chain is a ring."""
    if image not in TARGETS:
        raise InvalidOperationError(f"there is no target {image}")
    if backing is None:
        return
    if backing not in world.images or backing not in TARGETS[: TARGETS.index(image)]:
        raise InvalidOperationError(f"{backing} cannot back {image}")


def _check_closed(op: CreateImage | RebaseImage, world: State) -> None:
    """No job may have the image or its new backing file open."""
    for name in (op.image, op.backing):
        if name is not None and world.in_use(name):
            raise InvalidOperationError(f"{name} is open")


@effect.register
def _(op: CreateImage, world: State) -> Outcome:
    _check_backing(op.image, op.backing, world)
    _check_closed(op, world)
    if op.layer.data:
        raise InvalidOperationError("a target is created empty")
    try:
        image = _create(op.layer, op.backing, world)
    except Refused:
        world.check_unused(op.image)
        world.images.pop(op.image, None)
        raise
    world.put_image(op.image, image)
    return Outcome()


@effect.register
def _(op: RebaseImage, world: State) -> Outcome:
    _check_backing(op.image, op.backing, world)
    image = world.images.get(op.image)
    if image is None:
        raise Refused(Reason.NO_SUCH_FILE)
    _check_closed(op, world)
    world.images[op.image] = world.rules.rebase(image, op.backing)
    return Outcome(contents=(op.image,) if world.openable(op.image) else ())
