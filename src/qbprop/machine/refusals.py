"""The illegal variants of all operations: what QEMU must refuse, and leave no trace of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from qbprop.machine.backups import MODES, backup, create_image
from qbprop.machine.bitmaps import (
    BY_NAME,
    bitmap_add,
    bitmap_command,
    bitmap_merge,
    storable,
)
from qbprop.machine.draws import (
    JOB_CLUSTER,
    SECTOR,
    below,
    data,
    named,
    pick,
    present,
    seldom,
    sited,
)
from qbprop.machine.exports import refused_export
from qbprop.machine.opening import offline, open_disk
from qbprop.machine.topology import add_disk, empty_slots
from qbprop_model.bitmap import ceil_div
from qbprop_model.operations import (
    BAD_BITMAPS,
    BITMAPS,
    DRIVES,
    FILTERS,
    JOBS,
    NODES,
    TARGETS,
    Action,
    Backup,
    BitmapAdd,
    BitmapMerge,
    BlockCommit,
    BlockdevBackup,
    BlockdevMirror,
    BlockdevSnapshot,
    BlockStream,
    CloseDisk,
    Compat,
    CreateImage,
    Discard,
    DriveBackup,
    ExportAdd,
    Flush,
    Layer,
    MergeSource,
    OpenDisk,
    Operation,
    Read,
    RebaseImage,
    Resize,
    SyncMode,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.state import State
from qbprop_model.world import World

BAD_GRANULARITIES = (0, 256, 511, 513, 65537, 3 << 16, 1 << 32, (1 << 63) - 1)
SYNCS: tuple[SyncMode, ...] = ("full", "top", "incremental", "bitmap", "none")
REQUESTS: tuple[Callable[..., Operation], ...] = (
    Read,
    Write,
    WriteZeroes,
    Discard,
    WriteCompressed,
    Flush,
)


def free_names(world: State) -> list[str]:
    """The node and drive names that nothing has."""
    return [n for n in (*NODES, *DRIVES) if n not in world.nodes and n not in world.roots]


def nobody(draw: st.DrawFn, world: State) -> str:
    """A node or drive name that nothing has; where all are taken, any."""
    return pick(draw, free_names(world) or NODES)


def mistaken(draw: st.DrawFn, world: State) -> tuple[str, str]:
    """A disk and a bitmap of which one does not exist."""
    name = pick(draw, present(world))
    taken = world.nodes[name].bitmaps
    if seldom(draw, 3):
        return nobody(draw, world), pick(draw, (*sorted(taken), *BITMAPS[:1]))
    missing = [slot for slot in (*BITMAPS, *BAD_BITMAPS) if slot not in taken]
    return named(draw, world, name), pick(draw, missing)


def refused_request(draw: st.DrawFn, world: World) -> Operation:
    """A guest request across the end or past it, to no disk, or one that is not aligned."""
    cls = pick(draw, REQUESTS)
    name = pick(draw, present(world))
    size = world.size(world.nodes[name])
    ref = nobody(draw, world) if seldom(draw, 3) else named(draw, world, name)
    if cls is Flush:
        return Flush(node=nobody(draw, world))
    length = pick(draw, (SECTOR, 1, 2 * SECTOR, 65536, 1000))
    reach = length + pick(draw, (0, SECTOR, 1, -1))
    offset = max(0, size + reach - length - below(draw, 2) * reach // 2)
    if cls is WriteCompressed:
        offset, length = pick(draw, ((offset, length), (0, SECTOR), (1, SECTOR), (SECTOR, 65536)))
    source: dict[str, Any] = data(draw) if cls in (Write, WriteCompressed) else {}
    return cls(node=ref, offset=offset, length=length, **source)


def refused_resize(draw: st.DrawFn, world: World) -> Operation:
    """A size that no image can have, or no disk."""
    name = pick(draw, present(world))
    size = world.size(world.nodes[name])
    if seldom(draw, 3):
        who = nobody(draw, world)
        node = world.find(who)
        return Resize(node=who, size=size if node is None else world.size(node))
    raw = world.images[world.nodes[name].image].format == "raw"
    sizes = ((1 << 63) - 1,) if raw else (size + 100, (1 << 63) - 1, 1 << 62)
    return Resize(node=named(draw, world, name), size=pick(draw, sizes))


def refused_add(draw: st.DrawFn, world: World) -> BitmapAdd:
    """A bitmap with a bad name, a taken one or a bad granularity, or on no disk."""
    good = bitmap_add(draw, world)
    taken = [(node, bitmap) for node in sited(world) for bitmap in world.nodes[node].bitmaps]
    match below(draw, 5):
        case 0 if taken:
            node, name = pick(draw, taken)
            return replace(good, node=node, name=name, persistent=seldom(draw, 2))
        case 4:
            unfit = [name for name in present(world) if not storable(world, name)]
            node = pick(draw, unfit or present(world))
            name = pick(draw, (good.name, BAD_BITMAPS[1]))
            return replace(good, node=node, name=name, granularity=None, persistent=True)
        case 1:
            return replace(good, granularity=pick(draw, BAD_GRANULARITIES))
        case 2:
            return replace(good, node=nobody(draw, world))
        case _:
            return replace(good, name=pick(draw, BAD_BITMAPS))


def refused_merge(draw: st.DrawFn, world: World) -> BitmapMerge:
    """A merge from or into nothing, or between disks of different sizes, best of nearly the same.

    The good sources stand mostly before the bad one: what they brought must go again.
    """
    node, name = mistaken(draw, world)
    if not sited(world) or seldom(draw, 3):
        return BitmapMerge(node=node, target=name, sources=(MergeSource(name=BITMAPS[0]),))
    good = bitmap_merge(draw, world)
    into = world.find(good.node)
    size = 0 if into is None else world.size(into)
    sizes = {other: world.size(world.nodes[other]) for other in sited(world)}
    unlike = [
        MergeSource(name=bitmap, node=other)
        for other, its in sizes.items()
        for bitmap in sorted(world.nodes[other].bitmaps)
        if its != size
    ]
    count = ceil_div(size, JOB_CLUSTER)
    alike = {other for other, its in sizes.items() if ceil_div(its, JOB_CLUSTER) == count}
    near = [each for each in unlike if each.node in alike]
    culprit = pick(draw, near or [MergeSource(name=name, node=node), *unlike])
    chosen = list(good.sources)
    chosen.insert(below(draw, len(chosen) + 1) if seldom(draw, 3) else len(chosen), culprit)
    return replace(good, sources=tuple(chosen))


def refused_by_name(draw: st.DrawFn, world: World) -> Action:
    """A command on a bitmap that does not exist."""
    node, name = mistaken(draw, world)
    return pick(draw, BY_NAME)(node=node, name=name)


def refused_backup(draw: st.DrawFn, world: World) -> DriveBackup | BlockdevBackup:
    """A backup with modes, a bitmap or a target that do not go together."""
    good = backup(draw, world)
    match pick(draw, (0, 0, 0, 1, 2, 3, 4, 5)):
        case 0:
            bitmap = good.bitmap if seldom(draw, 2) else _some_bitmap(draw, world, good)
            sync, mode = pick(draw, SYNCS), pick(draw, (None, *MODES))
            return replace(good, sync=sync, bitmap=bitmap, bitmap_mode=mode)
        case 1:
            bitmap = pick(draw, (*BITMAPS, *BAD_BITMAPS))
            return replace(good, bitmap=bitmap, sync="incremental", bitmap_mode=None)
        case 2:
            return replace(good, node=nobody(draw, world))
        case 3:
            return replace(good, job=None)
        case 4:
            size = _size(world, good)
            unlike = [n for n in TARGETS if n in world.images and world.images[n].size != size]
            return _onto(good, pick(draw, unlike or TARGETS), compress=False)
        case _:
            target, kind = pick(draw, TARGETS), good.format if isinstance(good, DriveBackup) else ""
            if kind == "raw" or seldom(draw, 2):
                return _onto(good, target, compress=True)
            return DriveBackup(node=good.node, target=target, sync="full", mode="existing")


def _some_bitmap(draw: st.DrawFn, world: World, op: Backup) -> str | None:
    """A bitmap of the disk that a backup reads, if it has one."""
    node = world.find(op.node)
    return pick(draw, sorted(node.bitmaps) or [op.bitmap]) if node is not None else op.bitmap


def _size(world: World, op: Backup) -> int | None:
    """Bytes of the disk that a backup reads."""
    node = world.find(op.node)
    return None if node is None else world.size(node)


def _onto(op: Backup, target: str, *, compress: bool) -> BlockdevBackup:
    """The same backup by ``blockdev-backup``, to another target."""
    return BlockdevBackup(
        node=op.node, target=target, sync=op.sync, job=op.job,
        bitmap=op.bitmap, bitmap_mode=op.bitmap_mode, compress=compress,
    )  # fmt: skip


def refused_image(draw: st.DrawFn, world: World) -> Operation:
    """An image that qemu-img cannot make, or a file that cannot be rebased."""
    good = create_image(draw, world)
    size = good.layer.size
    earlier = [n for n in TARGETS[: TARGETS.index(good.image)] if n in world.images]
    unable = [n for n in TARGETS if n not in world.images or world.images[n].format == "raw"]
    if unable and seldom(draw, 2):
        return RebaseImage(image=pick(draw, unable))
    if earlier and seldom(draw, 2):
        return CreateImage(
            image=good.image, layer=Layer(size=size, format="raw"), backing=pick(draw, earlier)
        )
    bad: tuple[tuple[Compat, int], ...] = (("1.1", 512), ("0.10", 65536), ("1.1", 8192))
    compat, cluster = pick(draw, bad)
    layer = Layer(size=size, cluster_size=cluster, compat=compat, extended_l2=True)
    return CreateImage(image=good.image, layer=layer)


def refused_disk(draw: st.DrawFn, world: World) -> Operation:
    """A disk that cannot be made or opened."""
    if not empty_slots(world):
        return refused_request(draw, world)
    good = add_disk(draw, world)
    if good.drive is None and seldom(draw, 2):
        return replace(good, discard="ignore", detect_zeroes="unmap")
    bad = Layer(size=good.layers[0].size, compat="0.10", extended_l2=True)
    return replace(good, layers=(bad, *good.layers[1:]))


def refused_opening(draw: st.DrawFn, world: World) -> Operation:
    """A disk to be closed that is not open, or whose other name it is; or a writable export."""
    read_only = [name for name in present(world) if world.nodes[name].read_only]
    if read_only and seldom(draw, 2):
        return ExportAdd(export="export0", node=pick(draw, read_only), writable=True)
    empty = free_names(world)
    if empty and seldom(draw, 2):
        return CloseDisk(node=pick(draw, empty))
    if seldom(draw, 2):
        name = pick(draw, present(world))
        return pick(draw, (open_disk, open_disk, offline))(draw, world, name)
    drives = [name for name in present(world) if world.nodes[name].drive is not None]
    slots = empty_slots(world)
    if slots and seldom(draw, 2):
        return OpenDisk(node=NODES[pick(draw, slots)])
    return CloseDisk(node=pick(draw, drives or empty or present(world)))


def refused_snapshot(draw: st.DrawFn, world: World) -> BlockdevSnapshot:
    """A snapshot of no disk, or with no overlay; or of a disk, which has mostly other uses."""
    disk = pick(draw, present(world))
    if seldom(draw, 2):
        return BlockdevSnapshot(node=disk, overlay=nobody(draw, world))
    return BlockdevSnapshot(node=nobody(draw, world), overlay=disk)


def refused_chain(draw: st.DrawFn, world: World) -> Operation:
    """A commit, a stream or a mirror of no disk, or into none, or into itself."""
    job, nowhere = pick(draw, JOBS), nobody(draw, world)
    if seldom(draw, 3):
        disk = pick(draw, present(world))
        node, into = pick(draw, ((nowhere, disk), (disk, nowhere), (disk, disk)))
        return BlockdevMirror(job=job, node=node, target=into, filter=FILTERS[0])
    if seldom(draw, 2):
        return BlockStream(job=job, node=nowhere)
    return BlockCommit(job=job, node=nowhere, base=pick(draw, present(world)))


def refused_transaction(draw: st.DrawFn, world: World) -> Transaction:
    """A transaction of one action, which is refused; or one that must not be grouped."""
    if seldom(draw, 3):
        bitmap_action = bitmap_command(draw, world)
        return Transaction(actions=(bitmap_action,), grouped=True)
    return Transaction(actions=(refused_action(draw, world),))


ACTIONS: tuple[Callable[[st.DrawFn, World], Action], ...] = (
    refused_by_name,
    refused_add,
    refused_merge,
    refused_backup,
    refused_snapshot,
)
ALL: tuple[Callable[[st.DrawFn, World], Operation], ...] = (
    refused_request,
    refused_by_name,
    refused_resize,
    *ACTIONS,
    refused_transaction,
    refused_request,
    refused_backup,
    refused_backup,
    refused_export,
    refused_opening,
    refused_chain,
    refused_merge,
)
PROGRAMS: tuple[Callable[[st.DrawFn, World], Operation], ...] = (
    refused_image,
    refused_image,
    refused_disk,
)
"""What ``qemu-img`` refuses: each costs the start of a program."""


def refused_action(draw: st.DrawFn, world: World) -> Action:
    """An action that fails its transaction."""
    return pick(draw, ACTIONS)(draw, world)


def refusals(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A few operations of any kind that are refused."""
    return tuple(_refused(draw, world) for _ in range(pick(draw, (3, 5, 9))))


def _refused(draw: st.DrawFn, world: World) -> Operation:
    return pick(draw, PROGRAMS if seldom(draw, 8) else ALL)(draw, world)
