"""Bitmap commands."""

from hypothesis import strategies as st

from qbprop.machine.draws import granularities, named, pick, present, seldom, sited
from qbprop_model.operations import (
    BITMAPS,
    BitmapAction,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    MergeSource,
)
from qbprop_model.state import State

ByName = type[BitmapClear] | type[BitmapRemove] | type[BitmapEnable] | type[BitmapDisable]
MIXED_LIMIT = 1 << 16
"""Most bits of bitmaps that are compared to choose what is merged."""

BY_NAME: tuple[ByName, ...] = (BitmapClear, BitmapDisable, BitmapEnable, BitmapRemove)


def bitmap(draw: st.DrawFn, world: State) -> tuple[str, str]:
    """A disk, by either name, and a bitmap of it, mostly a dirty one; there must be one."""
    name = pick(draw, sited(world))
    bitmaps = world.nodes[name].bitmaps
    dirty = [key for key in sorted(bitmaps) if bitmaps[key].bits.any()]
    return named(draw, world, name), pick(draw, sorted(bitmaps) + 2 * dirty)


def bitmap_add(draw: st.DrawFn, world: State, name: str | None = None) -> BitmapAdd:
    """A bitmap for disk ``name``, else for any; only with all its names taken it is refused."""
    name = pick(draw, present(world)) if name is None else name
    node = world.nodes[name]
    free = [slot for slot in BITMAPS if slot not in node.bitmaps] or BITMAPS[:1]
    slot = free[min(pick(draw, (0, 0, 0, 1, 2, 3, 4, 5, 6)), len(free) - 1)]
    fit = granularities(world.size(node))
    choices: list[int | None] = [None, *fit] if 65536 in fit else list(fit)
    persistent = storable(world, name) and seldom(draw, 2)
    fine = [g for g in fit if world.size(node) > 8 * g * world.images[node.image].cluster_size]
    if persistent and fine:
        choices = [*fine]  # the bits take more than one cluster of the image
    return BitmapAdd(
        node=named(draw, world, name),
        name=slot,
        granularity=pick(draw, choices),
        disabled=seldom(draw, 5),
        persistent=persistent,
    )


def storable(world: State, name: str) -> bool:
    """Whether a disk's image can store bitmaps."""
    node = world.nodes[name]
    image = world.images[node.image]
    takes_them = image.format == "qcow2" and image.compat != "0.10" and not node.read_only
    return takes_them and name not in world.faults


def by_name(draw: st.DrawFn, world: State, cls: ByName) -> BitmapAction:
    """A command that names one bitmap."""
    node, name = bitmap(draw, world)
    return cls(node=node, name=name)


def bitmap_merge(draw: st.DrawFn, world: State) -> BitmapMerge:
    """A merge of any number of bitmaps, of disks of one size."""
    name = pick(draw, sited(world) + 3 * shared(world))
    size = world.size(world.nodes[name])
    target = pick(draw, sorted(world.nodes[name].bitmaps))
    sources = [
        MergeSource(name=bitmap, node=None if where == name else where)
        for where in sited(world)
        if world.size(world.nodes[where]) == size
        for bitmap in sorted(world.nodes[where].bitmaps)
    ]
    others = [source for source in sources if source != MergeSource(name=target)]
    if others and not seldom(draw, 8):
        sources = others
    dirty = [source for source in sources if _is_dirty(world, source, name)]
    if dirty and not seldom(draw, 4):
        sources = dirty
    mixing = [source for source in dirty if _mixes(world, source, name, target)]
    first = pick(draw, sources if not mixing or seldom(draw, 4) else mixing)
    count = 0 if seldom(draw, 60) else pick(draw, (1, 1, 2, 3))
    return BitmapMerge(
        node=named(draw, world, name),
        target=target,
        sources=(first, *(pick(draw, sources) for _ in range(count - 1)))[:count],
    )


def _is_dirty(world: State, source: MergeSource, node: str) -> bool:
    return bool(world.nodes[source.node or node].bitmaps[source.name].bits.any())


def _mixes(world: State, source: MergeSource, node: str, target: str) -> bool:
    """Whether each of the two bitmaps has bits that the other one has not."""
    found = world.nodes[source.node or node].bitmaps[source.name]
    into = world.nodes[node].bitmaps[target]
    if max(len(found.bits), len(into.bits)) > MIXED_LIMIT:
        return False
    size = world.size(world.nodes[node])
    bits = world.rules.project(found.bits, found.granularity, into.granularity, size)
    return bool((bits & ~into.bits).any() and (into.bits & ~bits).any())


def bitmap_command(draw: st.DrawFn, world: State) -> BitmapAction:
    """A bitmap is added, or one that exists is cleared, enabled, disabled or removed."""
    cls = pick(draw, (None, *BY_NAME))
    if cls is None or not sited(world):
        return bitmap_add(draw, world)
    return by_name(draw, world, cls)


def merge(draw: st.DrawFn, world: State) -> BitmapAction:
    """A merge, or what lets two bitmaps differ for one; without two on a disk one is added."""
    if not shared(world) and not (sited(world) and seldom(draw, 4)):
        return bitmap_add(draw, world, pick(draw, sited(world) or present(world)))
    return parting(draw, world) if seldom(draw, 3) else bitmap_merge(draw, world)


def shared(world: State) -> list[str]:
    """The disks that have more than one bitmap."""
    return [name for name in sited(world) if len(world.nodes[name].bitmaps) > 1]


def parting(draw: st.DrawFn, world: State) -> BitmapAction:
    """Of two bitmaps that record the same one is cleared, or the one that has more is stopped.

    When both was done, and the guest writes, each has bits that the other one has not.
    """
    disk = pick(draw, shared(world) or sited(world))
    bitmaps = world.nodes[disk].bitmaps
    name, other = pick(draw, sorted(bitmaps)), pick(draw, sorted(bitmaps))
    more = bitmaps[name].state.count > bitmaps[other].state.count
    return (BitmapDisable if more else BitmapClear)(node=named(draw, world, disk), name=name)
