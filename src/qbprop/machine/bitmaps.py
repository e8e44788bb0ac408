"""Bitmap commands."""

from hypothesis import strategies as st

from qbprop.machine.draws import find, granularities, named, pick, present, reference, seldom
from qbprop.machine.guest import writes
from qbprop_model.operations import (
    BAD_BITMAPS,
    BITMAPS,
    BitmapAction,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    MergeSource,
    Operation,
)
from qbprop_model.state import State
from qbprop_model.world import World

ByName = type[BitmapClear] | type[BitmapRemove] | type[BitmapEnable] | type[BitmapDisable]
BY_NAME: dict[str, ByName] = {
    "clear": BitmapClear,
    "disable": BitmapDisable,
    "enable": BitmapEnable,
    "remove": BitmapRemove,
}
BAD_GRANULARITIES = (0, 256, 511, 513, 65537, 3 << 16, 1 << 32, (1 << 63) - 1)


def sited(world: State) -> list[str]:
    """The disks that have bitmaps."""
    return [name for name in present(world) if world.nodes[name].bitmaps]


def bitmap_reference(draw: st.DrawFn, world: State) -> tuple[str, str]:
    """A disk and a bitmap of it, seldom one that does not exist."""
    disks = sited(world)
    if not disks or seldom(draw, 8):
        return reference(draw, world), pick(draw, BITMAPS + BAD_BITMAPS)
    node = pick(draw, disks)
    name = pick(draw, sorted(world.nodes[node].bitmaps))
    return named(draw, world, node), name


def bitmap_add(draw: st.DrawFn, world: State, *, legal: bool = False) -> BitmapAdd:
    """Add a bitmap; with ``legal`` never one that is refused."""
    ref = reference(draw, world, 0 if legal else 40)
    node = find(world, ref)
    taken = node.bitmaps if node is not None else {}
    free = [name for name in BITMAPS if name not in taken]
    bad = not free or (not legal and seldom(draw, 10))
    if bad:
        name = pick(draw, [*taken, *BAD_BITMAPS])
    else:
        name = free[min(pick(draw, [0, 0, 0, 1, 2, 3, 4, 5, 6]), len(free) - 1)]
    size = world.size(node) if node is not None else 65536
    fit = granularities(size)
    choices: list[int | None] = list(fit)
    if 65536 in fit and (size // 4096) < (1 << 20):
        choices.insert(0, None)
    granularity = pick(draw, choices)
    if not legal and seldom(draw, 12):
        granularity = pick(draw, BAD_GRANULARITIES)
    return BitmapAdd(node=ref, name=name, granularity=granularity, disabled=seldom(draw, 5))


def by_name(draw: st.DrawFn, world: State, cls: ByName) -> BitmapAction:
    """A command that names one bitmap."""
    node, name = bitmap_reference(draw, world)
    return cls(node=node, name=name)


def bitmap_merge(draw: st.DrawFn, world: State) -> BitmapMerge:
    """Merge any number of bitmaps, mostly of disks of one size, into another."""
    node, target = bitmap_reference(draw, world)
    known = find(world, node)
    size = world.size(known) if known is not None else 0
    alike = [
        MergeSource(name=name, node=None if world.nodes[where] is known else where)
        for where in sited(world)
        for name in sorted(world.nodes[where].bitmaps)
        if world.size(world.nodes[where]) == size or seldom(draw, 20)
    ]
    sources = []
    for _ in range(0 if seldom(draw, 25) else pick(draw, (1, 1, 2, 3))):
        if alike and not seldom(draw, 15):
            sources.append(pick(draw, alike))
        else:
            other, name = bitmap_reference(draw, world)
            sources.append(MergeSource(name=name, node=pick(draw, [None, other])))
    return BitmapMerge(node=node, target=target, sources=tuple(sources))


def bitmap_command(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """One bitmap command, mostly on a bitmap that exists, often behind guest writes."""
    before = writes(draw, world)
    if not sited(world):
        return (*before, bitmap_add(draw, world))
    kind = pick(draw, ("add", "merge", "clear", "disable", "enable", "merge", "remove"))
    if kind == "add":
        return (*before, bitmap_add(draw, world))
    if kind == "merge":
        return (*before, bitmap_merge(draw, world))
    return (*before, by_name(draw, world, BY_NAME[kind]))
