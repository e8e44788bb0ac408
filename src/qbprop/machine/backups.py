"""Backups and the images they are written to."""

from typing import Any

from hypothesis import strategies as st

from qbprop.machine.bitmaps import sited
from qbprop.machine.draws import (
    COPY_LIMIT,
    JOB_CLUSTER,
    SECTOR,
    below,
    find,
    pick,
    reference,
    seldom,
)
from qbprop.machine.guest import writes
from qbprop.machine.topology import CLUSTERS, COMPATS
from qbprop_model.operations import (
    BITMAPS,
    JOBS,
    TARGETS,
    Backup,
    BlockdevBackup,
    CreateImage,
    DriveBackup,
    Layer,
    Operation,
    RebaseImage,
    Write,
)
from qbprop_model.state import Node
from qbprop_model.world import World

MODES = ("on-success", "always", "never")


def target_layer(draw: st.DrawFn, size: int) -> Layer:
    """A blank target of ``size`` bytes."""
    if seldom(draw, 4):
        return Layer(format="raw", size=size)
    cluster = pick(draw, CLUSTERS)
    if size > 64 << 20:
        cluster = max(cluster, 65536)
    compat = pick(draw, COMPATS)
    extended = cluster >= 16384 and compat == "1.1" and seldom(draw, 6)
    return Layer(size=size, cluster_size=cluster, compat=compat, extended_l2=extended)


def create_image(draw: st.DrawFn, world: World, size: int | None = None) -> CreateImage:
    """A fresh target, often backed by an earlier one."""
    if size is None:
        name = pick(draw, list(world.nodes))
        size = world.size(world.nodes[name])
        if seldom(draw, 15):
            size += pick(draw, [512, 65536])
    layer = target_layer(draw, size)
    if seldom(draw, 12):
        layer = Layer(size=size, cluster_size=512, extended_l2=True)
    image = pick(draw, TARGETS)
    below = [name for name in TARGETS[: TARGETS.index(image)] if name in world.images]
    backing = None
    if below and (layer.format == "qcow2" or seldom(draw, 8)):
        backing = pick(draw, [None, *below])
    return CreateImage(image=image, layer=layer, backing=backing)


def rebase_image(draw: st.DrawFn, world: World) -> RebaseImage:
    """Another backing file for a target that mostly exists."""
    existing = [name for name in TARGETS if name in world.images]
    overlays = [name for name in existing if world.images[name].format == "qcow2"]
    image = pick(draw, overlays or existing or list(TARGETS))
    if seldom(draw, 5):
        image = pick(draw, TARGETS)
    below = [name for name in TARGETS[: TARGETS.index(image)] if name in world.images]
    return RebaseImage(image=image, backing=pick(draw, [*below, None]))


def modes(draw: st.DrawFn, node: Node) -> dict[str, Any]:
    """Sync mode, bitmap and bitmap mode; seldom a combination that is refused."""
    if seldom(draw, 10):
        bitmap = pick(draw, [None, *node.bitmaps, *BITMAPS[:2]])
        sync = pick(draw, ["full", "top", "incremental", "bitmap", "none"])
        mode = pick(draw, [None, *MODES])
        if sync == "none" and (bitmap is None and mode is None):
            mode = "never"
        return {"sync": sync, "bitmap": bitmap, "bitmap_mode": mode}
    if not node.bitmaps or seldom(draw, 5):
        if not node.bitmaps or seldom(draw, 2):
            return {"sync": pick(draw, ["full", "top"])}
        bitmap = pick(draw, sorted(node.bitmaps))
        sync = pick(draw, ["full", "top"])
        return {"sync": sync, "bitmap": bitmap, "bitmap_mode": pick(draw, MODES[:2])}
    bitmap = pick(draw, sorted(node.bitmaps))
    if seldom(draw, 2):
        return {"sync": "incremental", "bitmap": bitmap}
    return {"sync": "bitmap", "bitmap": bitmap, "bitmap_mode": pick(draw, MODES)}


def backup_action(draw: st.DrawFn, world: World, job: str = JOBS[0]) -> Backup:
    """One backup; whether its target exists is up to the moment, mostly it does."""
    disks = sited(world)
    ref = pick(draw, disks) if disks and not seldom(draw, 5) else reference(draw, world)
    node = find(world, ref)
    if node is not None and node.drive is not None and seldom(draw, 2):
        ref = node.drive
    size = world.size(node) if node is not None else 0
    given = modes(draw, node) if node is not None else {"sync": "full"}
    job_id = job if not seldom(draw, 12) else None
    fitting = [n for n in TARGETS if n in world.images and world.images[n].size == size]
    existing = [n for n in TARGETS if n in world.images]
    compress = seldom(draw, 6)
    if (fitting and not seldom(draw, 4)) or seldom(draw, 15):
        target = pick(draw, fitting or existing or list(TARGETS))
        if existing and seldom(draw, 12):
            target = pick(draw, existing)
        if seldom(draw, 2):
            return BlockdevBackup(node=ref, target=target, job=job_id, compress=compress, **given)
        format_ = world.images[target].format if target in world.images else "qcow2"
        if format_ == "raw" and seldom(draw, 10):
            format_ = "qcow2"
        return DriveBackup(
            node=ref, target=target, job=job_id, compress=compress, mode="existing",
            format=format_, **given,
        )  # fmt: skip
    free = [name for name in TARGETS if name not in world.images] or list(TARGETS)
    target = pick(draw, free if not seldom(draw, 5) else list(TARGETS))
    format_ = pick(draw, ["qcow2", "qcow2", "raw"])
    return DriveBackup(
        node=ref, target=target, job=job_id, compress=compress, format=format_, **given
    )


def affordable(world: World, op: Operation) -> bool:
    """Whether the backups of an operation copy little enough; raises InvalidOperationError."""
    expectation = world.copy().apply(op)
    return sum(end.length or 0 for end in expectation.jobs.values()) <= COPY_LIMIT


def incremental(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """The next link of a chain: a write, an overlay on an earlier target, a backup into it."""
    disks = sited(world)
    disks = [n for n in disks if world.size(world.nodes[n]) > JOB_CLUSTER] or disks
    if not disks:
        return (backup_action(draw, world),)
    node = pick(draw, disks)
    size = world.size(world.nodes[node])
    offset = below(draw, size // JOB_CLUSTER + 1) * JOB_CLUSTER
    write = Write(
        node=node, offset=offset, length=min(SECTOR, size - offset), stamp=below(draw, 64)
    )
    create = create_image(draw, world, size)
    bitmap = pick(draw, sorted(world.nodes[node].bitmaps))
    if seldom(draw, 2):
        return (
            write,
            create,
            BlockdevBackup(node=node, target=create.image, sync="incremental", bitmap=bitmap),
        )
    return (
        write,
        create,
        DriveBackup(
            node=node,
            target=create.image,
            sync="incremental",
            bitmap=bitmap,
            mode="existing",
            format=create.layer.format,
        ),
    )


def backups(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A backup, a link of a chain, or another change to a target; often behind guest writes."""
    overlay = any(world.images[n].format == "qcow2" for n in TARGETS if n in world.images)
    kind = below(draw, 12)
    if kind < 5:
        return incremental(draw, world)
    if kind < 9:
        return (*writes(draw, world), backup_action(draw, world))
    if kind < 11 and (overlay or seldom(draw, 10)):
        return (rebase_image(draw, world),)
    return (create_image(draw, world),)
