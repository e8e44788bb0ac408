"""Exports of nodes and bitmaps over NBD, and what clients are told of them (semantics 2.2)."""

from dataclasses import replace

from qbprop_model.effects.dispatch import effect
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.exports import Export
from qbprop_model.image import Refused
from qbprop_model.operations import (
    BAD_EXPORTS,
    EXPORTS,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    InvalidOperationError,
    OpenOutcomeError,
    ReadDirtyExtents,
)
from qbprop_model.state import Outcome, State


@effect.register
def _(op: ExportAdd, world: State) -> Outcome:
    rules = world.rules
    check_id(op, world)
    if op.node in world.opened:
        raise InvalidOperationError("targets are not exported")
    if op.node not in world.nodes:
        raise Refused(Reason.EXPORT_NODE_NOT_FOUND, op.node)
    disk = world.nodes[op.node].filters or op.node
    if op.writable and world.nodes[disk].read_only:
        raise Refused(Reason.EXPORT_NOT_WRITABLE)
    if op.writable and (*world.filters(disk), disk)[0] != op.node:
        raise Refused(Reason.PERMISSION_DENIED, op.node)
    if op.name in world.exports:
        raise Refused(Reason.EXPORT_NAME_TAKEN, op.name)
    if op.name not in (None, op.export):
        raise InvalidOperationError("clients call an export by its id")
    found = tuple(locate(op, each, world) for each in op.bitmaps)
    for node, name in found:
        world.put_bitmap(node, name, rules.publish(world.nodes[node].bitmaps[name]))
    world.exports[op.export] = Export(disk, found)
    return Outcome()


def check_id(op: ExportAdd, world: State) -> None:
    """An id must be well-formed, and free."""
    if op.export in BAD_EXPORTS:
        raise Refused(Reason.EXPORT_ID_INVALID)
    if op.export not in EXPORTS:
        raise InvalidOperationError(f"there is no export {op.export}")
    if op.export in world.exports:
        raise Refused(Reason.EXPORT_ID_TAKEN, op.export)


def locate(op: ExportAdd, wanted: ExportedBitmap, world: State) -> tuple[str, str]:
    """The node and name of a bitmap to be exported; refused if it cannot be."""
    name = wanted.name
    node: str | None
    if wanted.node is not None:
        node, _ = world.bitmap(wanted.node, name)
    else:
        downward = [(each, world.nodes[each].bitmaps) for each in world.downward(op.node)]
        node = world.rules.site(downward, name)
        if node is None:
            raise Refused(Reason.EXPORT_BITMAP_NOT_FOUND, name)
    site = world.nodes[node]
    bitmap = site.bitmaps[name]
    read_only = site.read_only and site.filters is None
    strict = wanted.node is None and not (op.writable or read_only)
    if world.traits.exports_check_use_first and bitmap.busy:
        strict = False
    world.rules.check_exportable(name, bitmap, strict=strict)
    return node, name


@effect.register
def _(op: ExportDel, world: State) -> Outcome:
    export = world.exports.get(op.export)
    if export is None:
        raise Refused(Reason.EXPORT_NOT_FOUND, op.export)
    if not world.rules.deletable(export, op.mode):
        raise Refused(Reason.EXPORT_IN_USE, op.export)
    delete(world, op.export)
    return Outcome()


def delete(world: State, name: str) -> None:
    """An export goes, and its bitmaps are free."""
    for node, key in set(world.exports[name].bitmaps):
        bitmap = world.nodes[node].bitmaps[key]
        world.put_bitmap(node, key, world.rules.withdraw(bitmap))
    del world.exports[name]


@effect.register
def _(op: ReadDirtyExtents, world: State) -> Outcome:
    export = world.exports.get(op.export)
    if export is None:
        raise Refused(Reason.NO_SUCH_EXPORT, op.export)
    if export.orphans:
        raise OpenOutcomeError("a client asks for a bitmap whose node is gone")
    world.exports[op.export] = replace(export, connected=True)
    found = export.named(op.bitmap)
    if not found:
        return Outcome(refusal=Refusal(Reason.NO_SUCH_CONTEXT, op.bitmap))
    if not op.length:
        return Outcome(refusal=Refusal(Reason.EMPTY_RANGE))
    if op.offset + op.length > world.size(world.nodes[export.node]):
        return Outcome(refusal=Refusal(Reason.PAST_END))
    if len(found) > 1:
        raise OpenOutcomeError("two bitmaps have the context's name")
    ((node, name),) = found
    bitmap, size = world.nodes[node].bitmaps[name], world.size(world.nodes[node])
    return Outcome(extents=world.rules.extents(bitmap, size, op.offset, op.length))
