"""Backups and the images they are written to."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from qbprop.machine.bitmaps import bitmap_add
from qbprop.machine.draws import (
    JOB_CLUSTER,
    LENGTH_LIMIT,
    SECTOR,
    Draft,
    below,
    free_jobs,
    named,
    pick,
    present,
    seldom,
    sited,
)
from qbprop.machine.guest import behind_writes
from qbprop.machine.topology import CLUSTERS, COMPATS
from qbprop_model.bitmap import Bitmap
from qbprop_model.disk.creation import RAW_LIMIT
from qbprop_model.operations import (
    JOBS,
    TARGETS,
    Backup,
    BitmapMode,
    BlockdevBackup,
    CreateImage,
    DriveBackup,
    Format,
    InvalidOperationError,
    Layer,
    Operation,
    RebaseImage,
    Write,
    WriteZeroes,
)
from qbprop_model.state import State
from qbprop_model.world import World

MODES: tuple[BitmapMode, ...] = ("on-success", "always", "never")


def target_layer(draw: st.DrawFn, size: int) -> Layer:
    """A blank target of ``size`` bytes."""
    if seldom(draw, 4) and size <= RAW_LIMIT:
        return Layer(format="raw", size=size)
    cluster = pick(draw, CLUSTERS)
    if size > 64 << 20:
        cluster = max(cluster, 65536)
    compat = pick(draw, COMPATS)
    extended = cluster >= 16384 and compat == "1.1" and seldom(draw, 6)
    return Layer(size=size, cluster_size=cluster, compat=compat, extended_l2=extended)


def create_image(draw: st.DrawFn, world: State, size: int | None = None) -> CreateImage:
    """A fresh target, by default of the size of a disk, often backed by an earlier target."""
    if size is None:
        size = world.size(world.nodes[pick(draw, present(world))])
    layer = target_layer(draw, size)
    image = pick(draw, _unused(world))
    files = _earlier(world, image) if layer.format == "qcow2" else ()
    return CreateImage(image=image, layer=layer, backing=pick(draw, [*files, None]))


def _earlier(world: State, image: str) -> Iterator[str]:
    """The targets that may back a target."""
    return (name for name in _existing(world) if name < image)


def target(draw: st.DrawFn, world: State) -> Operation:
    """A fresh target, or another backing file for one: mostly one that shows other bytes."""
    overlays = [n for n in _existing(world) if world.images[n].format == "qcow2"]
    if not overlays or not seldom(draw, 2):
        return create_image(draw, world)
    image = pick(draw, overlays)
    before = world.images[image].backing
    files = [None, *_earlier(world, image)]
    others = [n for n in files if n != before and (_shows(world, n) or _shows(world, before))]
    return RebaseImage(image=image, backing=pick(draw, others or files))


def _shows(world: State, image: str | None) -> bool:
    """Whether something is written in an image or below it."""
    return image is not None and any(layer.allocated for layer in world.chain(image))


def partly_dirty(bitmaps: Mapping[str, Bitmap]) -> list[str]:
    """The bitmaps that have dirty bits and clean ones; where none has both, all of them."""
    partly = [
        name
        for name, bitmap in sorted(bitmaps.items())
        if 0 < np.count_nonzero(bitmap.bits) < len(bitmap.bits)
    ]
    return partly or sorted(bitmaps)


def modes(draw: st.DrawFn, bitmaps: Mapping[str, Bitmap], *, chain: bool) -> dict[str, Any]:
    """Sync mode, bitmap and bitmap mode; of the disk's ``chain`` often the top alone."""
    if not bitmaps or seldom(draw, 2 if chain else 7):
        return {"sync": pick(draw, ("top", "full", "top"))}
    bitmap = pick(draw, sorted(bitmaps) if seldom(draw, 3) else partly_dirty(bitmaps))
    if seldom(draw, 8):
        sync = pick(draw, ("full", "top"))
        return {"sync": sync, "bitmap": bitmap, "bitmap_mode": pick(draw, MODES[:2])}
    if seldom(draw, 2):
        return {"sync": "incremental", "bitmap": bitmap}
    return {"sync": "bitmap", "bitmap": bitmap, "bitmap_mode": pick(draw, MODES)}


def backups(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A backup of any kind, or the next link of a chain."""
    if seldom(draw, 3):
        return incremental(draw, world)
    if seldom(draw, 2) and (zeroes := backup_of_zeroes(draw, world)):
        return zeroes
    return behind_writes(draw, world, backup)


def backup_of_zeroes(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A job cluster that is zeroed where a target has something, and a backup into that target.

    Of a disk of which QEMU surely tells that it is zero there; nothing where there is none.
    Where no target has anything, the disk is backed up into a fresh one first.
    """
    disks = [name for name in present(world) if _tells_zeroes(world, name)]
    if not disks:
        return ()
    draft = Draft(world)
    pairs = list(_overwritable(world, disks))
    if not pairs:
        name = pick(draw, disks)
        create = create_image(draw, world, world.size(world.nodes[name]))
        draft.add(Write(node=name, offset=0, length=JOB_CLUSTER, stamp=0), create)
        if create.image in draft.world.images:
            given = {"node": name, "sync": "full"}
            draft.add(into(draw, draft.world, create.image, given))
        pairs = list(_overwritable(draft.world, [name]))
    if pairs:
        zeroes, target = pick(draw, pairs)
        draft.add(zeroes)
        given = {"node": zeroes.node, "job": (free_jobs(draft.world) or JOBS)[0]}
        given |= modes(draw, draft.world.nodes[zeroes.node].bitmaps, chain=False)
        draft.add(into(draw, draft.world, target, given))
    return tuple(draft.operations)


def _overwritable(world: State, disks: Iterable[str]) -> Iterator[tuple[WriteZeroes, str]]:
    """Targets of a disk's size, and a request that zeroes a job cluster which they have there."""
    for name, target in product(disks, _existing(world)):
        image = world.images[target]
        cluster = world.rules.job_cluster(image)
        if image.size != world.size(world.nodes[name]) or cluster > LENGTH_LIMIT:
            continue
        for start, _ in image.allocated[:8]:
            offset = start - start % cluster
            if offset + cluster <= image.size:
                yield WriteZeroes(node=name, offset=offset, length=cluster, unmap=True), target


def _tells_zeroes(world: State, name: str) -> bool:
    """Whether what is zeroed of a disk of one layer is plainly told to be zero, and no more."""
    node = world.nodes[name]
    image = world.images[node.image]
    able = image.format == "qcow2" and image.compat != "0.10" and image.backing is None
    large = image.size >= JOB_CLUSTER and image.slice_size >= LENGTH_LIMIT
    return able and large and node.discard and not node.read_only


def backup(draw: st.DrawFn, world: State, beside: Collection[Backup] = ()) -> Backup:
    """A backup that can run ``beside`` others: of any kind, to any target."""
    disks = sited(world) or present(world)
    deep = [n for n in present(world) if len(world.chain_names(world.nodes[n].image)) > 2]
    if deep and seldom(draw, 4):
        disks = deep
    if beside and not seldom(draw, 6):
        disks = [n for n in disks if all(world.find(b.node) is not world.nodes[n] for b in beside)]
    name = pick(draw, disks or present(world))
    node, ref = world.nodes[name], named(draw, world, name)
    if ref == node.drive and any(other.node in (name, ref) for other in beside):
        ref = name
    used = {other.target for other in beside}
    taken = {other.bitmap for other in beside}
    free_bitmaps = {key: bitmap for key, bitmap in node.bitmaps.items() if key not in taken}
    jobs = free_jobs(world) or list(JOBS)
    job = jobs[min(len(beside), len(jobs) - 1)]
    given: dict[str, Any] = {
        "node": ref,
        "job": None if ref == node.drive and seldom(draw, 8) else job,
        "compress": seldom(draw, 6),
        **modes(draw, free_bitmaps, chain=world.images[node.image].backing is not None),
    }
    fitting = [n for n in _existing(world) if world.images[n].size == world.size(node)]
    fitting = [n for n in fitting if n not in used]
    filled = [n for n in fitting if world.images[n].allocated]
    if filled and not seldom(draw, 4):
        fitting = filled
    fresh = not seldom(draw, 3) if given["sync"] == "top" else seldom(draw, 3)
    if fitting and not fresh:
        return into(draw, world, pick(draw, fitting), given)
    free = [n for n in _unused(world) if n not in used] or _unused(world)
    free = [n for n in free if n not in world.images] or free
    format_: Format = "raw" if not given["compress"] and seldom(draw, 4) else "qcow2"
    return DriveBackup(target=pick(draw, free), format=format_, **given)


def into(draw: st.DrawFn, world: State, target: str, given: dict[str, Any]) -> Backup:
    """A backup into a file that exists, by either command."""
    format_ = world.images[target].format
    given["compress"] = given.get("compress", False) and format_ != "raw"
    if seldom(draw, 2):
        return BlockdevBackup(target=target, **given)
    return DriveBackup(target=target, mode="existing", format=format_, **given)


def _unused(world: State) -> list[str]:
    """The slots whose image, if there is one, backs no other."""
    backing = {image.backing for image in world.images.values()}
    free = [name for name in TARGETS if name not in backing]
    return [name for name in free if not world.in_use(name)] or free


def _existing(world: State) -> Iterator[str]:
    return (name for name in TARGETS if name in world.images and not world.in_use(name))


def incremental(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """The next link of a chain: a write, an overlay on an earlier target, a backup into it.

    Now and then a job cluster is zeroed, which the overlay must hide of the earlier target.

    The disk is larger than a job cluster where there is such a disk, so that the backup
    mostly copies a part of it.
    """
    disks = [n for n in present(world) if world.size(world.nodes[n]) > JOB_CLUSTER]
    large = [n for n in sited(world) if n in disks]
    idle = [n for n in large if n not in world.backed_up]
    name = pick(draw, idle or large or disks or present(world))
    node, size = world.nodes[name], world.size(world.nodes[name])
    if not node.bitmaps:
        return (bitmap_add(draw, world, name),)
    offset = below(draw, size // JOB_CLUSTER + 1) * JOB_CLUSTER
    write: Operation = Write(node=name, offset=offset, length=min(SECTOR, size - offset), stamp=0)
    if seldom(draw, 4):
        length = min(JOB_CLUSTER, size - offset)
        write = WriteZeroes(node=name, offset=offset, length=length, unmap=seldom(draw, 2))
    create = create_image(draw, world, size)
    scratch = world.copy()
    try:
        scratch.apply(write)
        scratch.apply(create)
    except InvalidOperationError:  # every target is in use, or the write's outcome is open
        return (write,)
    bitmap = pick(draw, partly_dirty(scratch.nodes[name].bitmaps))
    given = {"node": name, "sync": "incremental", "bitmap": bitmap}
    return (write, create, into(draw, scratch, create.image, given))
