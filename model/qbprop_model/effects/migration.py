"""Live migration: disks, and what goes along of their bitmaps, to a new QEMU (semantics 8.10)."""

from collections.abc import Mapping
from dataclasses import replace

from qbprop_model.bitmap import Bitmap
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.images import attach, check_options
from qbprop_model.effects.opening import check_format
from qbprop_model.image import Refused
from qbprop_model.operations import InvalidOperationError, Migrate, OpenOutcomeError
from qbprop_model.state import Engine, Node, Outcome, State
from qbprop_model.storage import NAME_LIMIT

Names = Mapping[tuple[str, str], str]
"""What becomes of bitmaps' names: by (node, name)."""


@effect.register
def _(op: Migrate, world: State) -> Outcome:
    _check_opening(op, world)
    engine = world.engines[op.engine]
    if op.bitmaps and op.mapping is None and engine.mapped:
        raise InvalidOperationError("a mapping cannot be taken back from a QEMU")
    world.engines[op.engine] = replace(engine, mapped=engine.mapped or op.mapping is not None)
    names = _names(op, world)
    try:
        _check_migrating(names, world, mapped=op.mapping is not None)
    except Refused as refused:
        return Outcome(refused.refusal)
    _check_found(op, names, world)
    if world.exports:
        raise InvalidOperationError("an export keeps its disk active")
    world.passed = tuple(world.named_bitmaps().values())
    before, world.nodes, world.roots = world.nodes, {}, {}
    for disk in op.disks:
        attach(world, disk, _moved(world, disk.node, before[disk.node], names))
    world.jobs, world.opened = {}, frozenset()
    world.engines[op.engine] = Engine(
        world.qemus[op.qemu], op.qemu, engine.qemu, mapped=op.mapping is not None
    )
    return Outcome()


def _check_opening(op: Migrate, world: State) -> None:
    """The new QEMU opens the disks that are open, as they are, and nothing disturbs that."""
    if op.qemu >= len(world.qemus):
        raise InvalidOperationError(f"there is no QEMU {op.qemu}; name it with --cross")
    if not (world.traits.migrate and world.qemus[op.qemu].migrate):
        raise InvalidOperationError("there is no migration")
    names = [disk.node for disk in op.disks]
    if len(names) != len(set(names)) or set(names) != world.nodes.keys():
        raise InvalidOperationError("the new QEMU opens the same disks")
    if world.backed_up or world.held:
        raise InvalidOperationError("a job or a request in flight")
    if world.mounted:
        raise InvalidOperationError("disks above each other, of which no file tells")
    if world.faults or world.torn:
        raise OpenOutcomeError("what fails while disks change hands")
    for disk in op.disks:
        node = world.nodes[disk.node]
        world.check_slot(disk.node, disk.drive)
        if disk.drive is not None and not world.qemus[op.qemu].human_monitor_command:
            raise InvalidOperationError("there is no human monitor")
        if disk.read_only != node.read_only:
            raise InvalidOperationError("a disk is read-only on both sides or on none")
        try:
            check_format(disk, world.images[node.image])
            check_options(disk)
        except Refused as refused:
            raise InvalidOperationError("a disk that the new QEMU does not open") from refused


def _names(op: Migrate, world: State) -> Names:
    """The bitmaps that go along, and their new names."""
    bitmaps = world.named_bitmaps()
    if op.mapping is None:
        return {(node, name): name for node, name in bitmaps} if op.bitmaps else {}
    names = {(each.node, each.name): each.to for each in op.mapping}
    if len(names) != len(op.mapping) or not names.keys() <= bitmaps.keys():
        raise InvalidOperationError("a mapping names each bitmap that there is at most once")
    taken = [(node, to) for (node, _), to in names.items()]
    if len(taken) != len(set(taken)) or any(
        bitmap.persistent and key in taken and key not in names for key, bitmap in bitmaps.items()
    ):
        raise InvalidOperationError("two bitmaps of one name")
    for node, to in taken:
        if not 0 < len(to.encode()) <= NAME_LIMIT:
            raise InvalidOperationError("a name that no bitmap can have")
        if world.nodes[node].read_only and to in world.images[world.nodes[node].image].stored:
            raise OpenOutcomeError("a bitmap beside one of its name in a read-only image")
    return names


def _check_migrating(names: Names, world: State, *, mapped: bool) -> None:
    """Refuse what one bitmap does not allow for; which one of several is told is open."""
    refusals = []
    for node, name in names:
        try:
            world.rules.check_migrating(name, world.nodes[node].bitmaps[name], mapped=mapped)
        except Refused as refused:
            refusals.append(refused)
    if len(refusals) > 1:
        raise OpenOutcomeError("which of several bitmaps stops the migration")
    if refusals:
        raise refusals[0]


def _check_found(op: Migrate, names: Names, world: State) -> None:
    """Without a mapping a disk's bitmaps look for it under the name of its drive, if it has one."""
    drives = {disk.node: disk.drive for disk in op.disks}
    for name in {disk for disk, _ in names} if op.mapping is None else ():
        if world.nodes[name].drive not in (None, drives[name]):
            raise OpenOutcomeError("bitmaps of a drive that the new QEMU does not have")


def _moved(world: State, name: str, node: Node, names: Names) -> Node:
    """A disk as the new QEMU has it: what does not go along is stored and loaded again."""
    rules, image = world.rules, world.images[node.image]
    goes = [key for disk, key in names if disk == name]
    stays = {key: bitmap for key, bitmap in node.bitmaps.items() if key not in goes}
    if not node.read_only:
        image = rules.hand_over(image, stays)
        world.images[node.image] = rules.open_image(image)
    loaded: dict[str, Bitmap] = rules.load(image, read_only=node.read_only)
    came = {names[name, key]: rules.migrate(node.bitmaps[key]) for key in goes}
    return Node(image=node.image, read_only=node.read_only, bitmaps=loaded | came)
