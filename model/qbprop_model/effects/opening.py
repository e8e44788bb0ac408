"""Disks closed and opened again, and the end of a whole QEMU (semantics 8)."""

from dataclasses import replace

from qbprop_model.effects import exports
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.images import attach, check_options
from qbprop_model.effects.jobs import blur, cancel
from qbprop_model.expectation import Reason
from qbprop_model.faults import REASONS
from qbprop_model.image import Image, Refused
from qbprop_model.operations import (
    DRIVES,
    NODES,
    ChangeBitmap,
    CloseDisk,
    CommitImage,
    ConvertImage,
    InvalidOperationError,
    OpenDisk,
    Opening,
    OpenOutcomeError,
    ReopenDisk,
    ResizeImage,
    Restart,
)
from qbprop_model.state import Engine, Node, Outcome, State


@effect.register
def _(op: CloseDisk, world: State) -> Outcome:
    if op.node not in (*NODES, *DRIVES):
        raise InvalidOperationError(f"there is no disk {op.node}")
    by_drive = op.node in DRIVES
    if by_drive:
        world.check_monitor()
    if op.node not in (world.roots if by_drive else world.nodes):
        raise Refused(Reason.NO_NODE_TO_CLOSE, op.node)
    name = NODES[DRIVES.index(op.node)] if by_drive else op.node
    is_drive = not by_drive and world.nodes[name].drive is not None
    if is_drive or world.filters(name) or world.overlays(name):
        raise Refused(Reason.NODE_IN_USE, op.node)
    if name in world.exported:
        if by_drive:
            raise InvalidOperationError("a disk that lives on in its export")
        raise Refused(Reason.NODE_IN_USE, op.node)
    close(world, name)
    return Outcome()


def close(world: State, name: str) -> None:
    """Close a disk that nothing uses: its bitmaps are stored (8.1)."""
    node = world.drop_node(name)
    world.mounted.pop(node.image, None)
    world.passed += tuple(node.bitmaps.values())
    if name in world.torn:
        raise OpenOutcomeError("bytes that are open, in an image that is closed")
    if not node.read_only:
        image = world.images[node.image]
        world.images[node.image] = world.rules.close_image(image, node.bitmaps)
    faults = (*world.faults.pop(name, ()), *world.faults.pop(node.image, ()))
    failing = [each for each in faults if each.request == "flush"]
    world.complaints += tuple(REASONS[fault.errno] for fault in failing)
    if node.drive is not None:
        world.roots.pop(node.drive, None)


@effect.register
def _(op: OpenDisk, world: State) -> Outcome:
    world.check_slot(op.node, op.drive)
    if op.drive is not None and op.drive in world.roots:
        raise Refused(Reason.DRIVE_NAME_TAKEN, op.drive)
    if op.node in world.nodes:
        raise Refused(Reason.NODE_NAME_TAKEN, op.node)
    name = f"{op.node}.0"
    if name not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    check_format(op, world.images[name])
    check_options(op)
    if not op.read_only:
        world.check_unused(name)
    _check_below(world, world.chain_names(name))
    attach(world, op, opened(world, name, read_only=op.read_only))
    return Outcome()


def _check_below(world: State, chain: tuple[str, ...]) -> None:
    """The nodes that are opened below a disk have no names; nothing may depend on them."""
    if any(world.images[name].stored for name in chain[1:]):
        raise InvalidOperationError("bitmaps of a node that has no name")
    if any(not {*chain}.isdisjoint(world.chain_names(each.image)) for each in world.nodes.values()):
        raise InvalidOperationError("two nodes of one file")


def opened(world: State, name: str, *, read_only: bool) -> Node:
    """A node on an image that was closed, with the bitmaps that the image has stored."""
    image = world.images[name]
    if not read_only:
        world.images[name] = world.rules.open_image(image)
    bitmaps = world.rules.load(image, read_only=read_only)
    return Node(image=name, read_only=read_only, bitmaps=bitmaps)


Formatted = Opening | ReopenDisk | ChangeBitmap | ResizeImage | CommitImage | ConvertImage


def check_format(op: Formatted, image: Image) -> None:
    """The format must be the image's own."""
    if op.format == "raw" and image.format != "raw":
        raise InvalidOperationError("a qcow2 file read as raw has no stated size")
    if op.format != image.format:
        raise Refused(Reason.WRONG_FORMAT)


@effect.register
def _(op: ReopenDisk, world: State) -> Outcome:
    if op.node not in NODES:
        raise InvalidOperationError(f"there is no disk {op.node}")
    name, node = world.resolve(op.node, Reason.NO_NODE_TO_CLOSE)
    image = world.images[node.image]
    if world.below(node.image) is not None or world.overlays(name) or image.format != op.format:
        raise InvalidOperationError("one layer is reopened, in its own format")
    if node.drive is not None:
        raise InvalidOperationError("a drive keeps the permissions of what was asked of it")
    if name in world.faults or node.image in world.faults or world.filters(name):
        raise InvalidOperationError("a disk with filters is not reopened")
    if name in world.exported or name in world.torn:
        raise OpenOutcomeError("what becomes of an export, or of bytes that are open")
    if world.unloaded(node):
        raise OpenOutcomeError("a bitmap of the file that the disk has not")
    check_options(op)
    if node.read_only and not op.read_only:
        world.check_unused(node.image)
    world.nodes[name] = replace(node, discard=op.discard == "unmap", detect_zeroes=op.detect_zeroes)
    reopen(world, name, read_only=op.read_only)
    return Outcome()


def reopen(world: State, name: str, *, read_only: bool) -> None:
    """A disk is made read-only, or writable again, with its bitmaps (8.4)."""
    node, rules = world.nodes[name], world.rules
    image = world.images[node.image]
    if read_only and not node.read_only:
        world.images[node.image] = rules.close_image(image, node.bitmaps)
    if node.read_only and not read_only:
        world.images[node.image] = rules.open_image(image)
    world.passed += tuple(node.bitmaps.values())
    bitmaps = {
        key: rules.reopen(bitmap, read_only=read_only) for key, bitmap in node.bitmaps.items()
    }
    world.nodes[name] = replace(
        node,
        read_only=read_only,
        unflushed=node.unflushed and not read_only,
        bitmaps=bitmaps,
    )


@effect.register
def _(op: Restart, world: State) -> Outcome:
    if op.qemu >= len(world.qemus):
        raise InvalidOperationError(f"there is no QEMU {op.qemu}; name it with --cross")
    jobs = [job_id for job_id, job in world.jobs.items() if job.active]
    if any(mirror.left for mirror in world.mirrors.values()):
        raise OpenOutcomeError("what a mirror copies that is cancelled while it is paused")
    for mirror in world.mirrors.values():
        world.remove_filter(mirror.filter)
    if op.how == "kill":
        kill(world, jobs)
    else:
        for job_id in jobs:
            cancel(world, job_id)
        for export in tuple(world.exports):
            exports.delete(world, export)
        for name in list(world.nodes):
            close(world, name)
    world.nodes, world.roots, world.jobs, world.exports = {}, {}, {}, {}
    world.mirrors, world.mounted, world.faults, world.opened = {}, {}, {}, frozenset()
    world.words, world.ends = {}, {}
    before = world.engines[op.engine].qemu
    world.engines[op.engine] = Engine(world.qemus[op.qemu], op.qemu, before)
    return Outcome()


def kill(world: State, jobs: list[str]) -> None:
    """What was flushed is on disk; clusters may be lost, and what jobs copied is open (8.3)."""
    written = {node.image for node in world.nodes.values() if not node.read_only}
    if world.torn or any(node.unflushed for node in world.nodes.values()):
        raise OpenOutcomeError("what is on disk of writes that were not flushed")
    world.passed = tuple(world.named_bitmaps().values())
    targets = {world.jobs[job_id].target for job_id in jobs}
    for target in targets:
        world.images[target] = blur(world.images[target])
    world.vague |= targets
    world.leaky |= written | targets
