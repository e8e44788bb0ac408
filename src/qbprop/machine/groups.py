"""Groups: transactions of backups over several disks, and what becomes of their jobs together.

One member is held, others have little or nothing to copy and wait for it, another fails once it
is let go; commands follow to exactly these jobs, and often the same transaction again.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from qbprop.machine.backups import MODES, target_layer
from qbprop.machine.bitmaps import bitmap_add
from qbprop.machine.draws import (
    JOB_CLUSTER,
    SECTOR,
    SMALL,
    Draft,
    below,
    data,
    free_jobs,
    pick,
    present,
    seldom,
)
from qbprop.machine.jobs import ACTIONS, command, during, endings
from qbprop.machine.opening import openings
from qbprop.machine.topology import add_disk, empty_slots, layers
from qbprop_model.operations import (
    FILTERS,
    TARGETS,
    Backup,
    BitmapClear,
    BlockdevBackup,
    CreateImage,
    DriveBackup,
    Operation,
    Transaction,
    Write,
)
from qbprop_model.world import World

CASTS = (
    ("held", "idle"),
    ("held", "idle", "short"),
    ("failing", "idle"),
    ("held", "held"),
    ("failing", "held", "idle"),
    ("endless", "idle"),
    ("failing", "short"),
)
"""What the members of a group are like; each is on a disk of its own."""

SIZES = tuple(count * JOB_CLUSTER + more for count in (3, 2, 5) for more in (0, SECTOR))


def group(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A transaction of backups, commands to its jobs, and often the same transaction again."""
    draft = Draft(world)
    cast = pick(draw, CASTS)
    disks = _disks(draw, draft, len(cast))
    members: list[Backup] = []
    for name, role in zip(disks, cast, strict=False):
        member = _member(draw, draft, name, role, members)
        if member is not None:
            members.append(member)
    if not members:
        return tuple(draft.operations)
    if seldom(draw, 2):
        members.reverse()
    together = Transaction(actions=tuple(members), grouped=not seldom(draw, 4))
    ids = [member.job for member in members if member.job is not None]
    draft.add(together)
    _steer(draw, draft, ids)
    if seldom(draw, 2):
        draft.add(*endings(draft.world, ids))
        draft.add(together)
        _steer(draw, draft, ids)
    return tuple(draft.operations)


def _disks(draw: st.DrawFn, draft: Draft, wanted: int) -> list[str]:
    """Small disks that no job reads, some of them new."""

    def idle() -> list[str]:
        world = draft.world
        fit = (n for n in present(world) if 0 < world.size(world.nodes[n]) <= SMALL)
        return [name for name in fit if name not in world.backed_up]

    while len(idle()) < wanted and empty_slots(draft.world):
        disk = add_disk(draw, draft.world)
        draft.add(replace(disk, layers=(layers(draw, pick(draw, SIZES)),)))
    return idle()


def _member(
    draw: st.DrawFn, draft: Draft, name: str, role: str, beside: Sequence[Backup]
) -> Backup | None:
    """A backup of disk ``name`` for its role, behind what it needs; None where all is taken."""
    world = draft.world
    targets = _free_targets(world, {each.target for each in beside})
    used = {each.job for each in beside}
    jobs = [job for job in free_jobs(world) if job not in used]
    if not targets or not jobs:
        return None
    size = world.size(world.nodes[name])
    layer = target_layer(draw, size)
    if role != "idle" and layer.cluster_size > JOB_CLUSTER:
        layer = replace(layer, cluster_size=JOB_CLUSTER)
    if role in ("failing", "endless") and layer.format == "raw":
        layer = replace(layer, format="qcow2")
    target = pick(draw, targets)
    draft.add(CreateImage(image=target, layer=layer))
    cluster = world.rules.job_cluster(world.images[target])
    filters = [slot for slot in FILTERS if slot not in world.nodes]
    filters = [slot for slot in filters if slot not in {each.filter for each in beside}]
    given: dict[str, Any] = {
        "node": name,
        "target": target,
        "job": jobs[0],
        "filter": filters[0] if filters and not seldom(draw, 3) else None,
        "auto_dismiss": not seldom(draw, 3),
        "auto_finalize": not seldom(draw, 3),
    }
    held = {"speed": 1, "max_workers": 1, "max_chunk": cluster}
    if role == "failing":
        return _failing(draw, draft, given | held, size)
    if role == "endless":
        return BlockdevBackup(sync="none", **given)
    if role != "idle":
        for cluster_number in (0, (size - 1) // JOB_CLUSTER):
            offset = cluster_number * JOB_CLUSTER
            length = min(SECTOR, size - offset)
            draft.add(Write(node=name, offset=offset, length=length, **data(draw)))
    given |= _modes(draw, draft, name, clean=role == "idle")
    if role == "held":
        given |= held
    if layer.format != "raw" and seldom(draw, 3):
        return DriveBackup(mode="existing", **given)
    return BlockdevBackup(**given)


def _free_targets(world: World, taken: Collection[str]) -> list[str]:
    backing = {image.backing for image in world.images.values()}
    free = (name for name in TARGETS if name not in backing and name not in taken)
    return [name for name in free if not world.in_use(name)]


def _modes(draw: st.DrawFn, draft: Draft, name: str, *, clean: bool) -> dict[str, Any]:
    """Sync mode and bitmap: one that records, ``clean`` or as it is."""
    world = draft.world

    def able() -> list[str]:
        found = world.nodes[name].bitmaps.items()
        return [key for key, each in sorted(found) if each.recording and not each.busy]

    if not able():
        draft.add(replace(bitmap_add(draw, world, name), disabled=False))
    found = able() if clean else _dirty(world, name, able())
    if not found or (not clean and seldom(draw, 5)):
        return {"sync": pick(draw, ("full", "top"))}
    key = pick(draw, found)
    if clean:
        draft.add(BitmapClear(node=name, name=key))
    if seldom(draw, 3):
        return {"sync": "incremental", "bitmap": key}
    return {"sync": "bitmap", "bitmap": key, "bitmap_mode": pick(draw, MODES)}


def _dirty(world: World, name: str, bitmaps: Collection[str]) -> list[str]:
    return [key for key in bitmaps if world.nodes[name].bitmaps[key].bits.any()]


def _failing(draw: st.DrawFn, draft: Draft, given: dict[str, Any], size: int) -> Backup:
    """One whose target holds a compressed cluster already where the disk's data is."""
    place = (size - 1) // JOB_CLUSTER * JOB_CLUSTER if seldom(draw, 2) else JOB_CLUSTER
    place = min(place, (size - 1) // JOB_CLUSTER * JOB_CLUSTER)
    length = min(JOB_CLUSTER, size - place)
    write = Write(node=given["node"], offset=place, length=length, stamp=2 * below(draw, 8))
    first = {"sync": "full", "compress": True, "node": given["node"], "target": given["target"]}
    draft.add(write, BlockdevBackup(job=given["job"], **first), write)
    return BlockdevBackup(
        **given, sync="full", compress=True, on_target_error=pick(draw, ("report", *ACTIONS))
    )


def _steer(draw: st.DrawFn, draft: Draft, ids: Sequence[str]) -> None:
    """Commands to some jobs, and what happens beside them."""
    for _ in range(pick(draw, (2, 3, 1, 4))):
        left = [job_id for job_id in ids if job_id in draft.world.jobs]
        if not left:
            return
        draft.add(command(draw, draft.world, left))
        if seldom(draw, 3) and draft.world.backed_up:
            draft.add(*pick(draw, (during, during, openings))(draw, draft.world))
