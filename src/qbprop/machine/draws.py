"""Numbers and names biased to where bugs live (design, section 4). Draws see only the model.

Every draw goes through :func:`below`, whose strategies are made once: making one costs as
much as a question to QEMU.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar

from hypothesis import strategies as st

from qbprop_model.image import Alloc, Image
from qbprop_model.operations import (
    FILTERS,
    JOBS,
    NODES,
    InvalidOperationError,
    Operation,
)
from qbprop_model.state import Node, State
from qbprop_model.world import World

T = TypeVar("T")

SECTOR = 512
JOB_CLUSTER = 65536
LENGTH_LIMIT = 2 << 20
"""Most bytes of one guest request; longer ones cost time and show nothing new."""

SMALL = 4 << 20
"""The largest of the usual disks."""

BITS_LIMIT = 1 << 20
"""Most bits of a bitmap whose granularity is drawn."""

COPY_LIMIT = 32 << 20
"""Most bytes that one backup copies."""


@lru_cache(maxsize=256)
def _below(limit: int) -> st.SearchStrategy[int]:
    return st.integers(0, limit - 1)


def below(draw: st.DrawFn, limit: int) -> int:
    """A number from 0 up to ``limit``, not included; shrinks to 0."""
    return draw(_below(limit)) if limit > 1 else 0


def pick(draw: st.DrawFn, choices: Sequence[T]) -> T:
    """One of ``choices``; shrinks to the first."""
    return choices[below(draw, len(choices))]


def seldom(draw: st.DrawFn, one_in: int) -> bool:
    """True about once in ``one_in`` draws; shrinks to False."""
    return below(draw, one_in) == one_in - 1


def present(world: State) -> list[str]:
    """The disks that exist, as node names."""
    return [name for name in NODES if name in world.nodes]


def plain(world: State) -> list[str]:
    """The disks that are nodes alone, on top of their chains, with only guests to use them."""
    mirrored = world.mirrored
    return [
        name
        for name in present(world)
        if world.nodes[name].drive is None
        and name not in mirrored
        and not (world.overlays(name) or world.filters(name) or name in world.exported)
        and not world.faults.keys() & {name, world.nodes[name].image}
    ]


def free_jobs(world: State) -> list[str]:
    """The job ids that are not taken."""
    return [job for job in JOBS if job not in world.job_ids]


def free_filters(world: State) -> list[str]:
    """The names of filters that are not taken."""
    return [name for name in FILTERS if name not in world.nodes]


def idle(world: State) -> list[str]:
    """The disks that no job backs up."""
    return [name for name in present(world) if name not in world.backed_up]


def named(draw: st.DrawFn, world: State, node: str) -> str:
    """A disk's node name or, where it has one, its drive name."""
    drive = world.nodes[node].drive
    return node if drive is None else pick(draw, (node, drive))


def reference(draw: st.DrawFn, world: State) -> str:
    """A disk, by either name."""
    return named(draw, world, pick(draw, present(world)))


def sited(world: State) -> list[str]:
    """The disks that have bitmaps."""
    return [name for name in present(world) if world.nodes[name].bitmaps]


def recorded(world: State) -> list[str]:
    """The disks that guests can write to and that have bitmaps which record that."""
    return [
        name
        for name in sited(world)
        if not world.nodes[name].read_only
        and any(bitmap.recording for bitmap in world.nodes[name].bitmaps.values())
    ]


def grains(world: State, node: Node) -> list[int]:
    """Sizes in bytes whose multiples are edges of something on this node."""
    image = world.images[node.image]
    found = {SECTOR, JOB_CLUSTER}
    if image.format == "qcow2":
        found |= {image.cluster_size, image.unit}
    for bitmap in node.bitmaps.values():
        found |= {bitmap.granularity, 64 * bitmap.granularity}
    return sorted(found)


def byte_range(draw: st.DrawFn, world: State, node: Node) -> tuple[int, int]:
    """``(offset, length)`` near an edge, within the disk."""
    size = world.size(node)
    grain = pick(draw, grains(world, node))
    last = size // grain
    place = below(draw, 12)
    start, end = extent(draw, world.images[node.image]) if place > 7 else (0, size)
    if place < 6:
        offset = below(draw, min(last, 8) + 1 if place < 3 else last + 1) * grain
    elif place < 8:
        offset = size - pick(draw, (SECTOR, 0, grain, 1, grain + SECTOR))
    else:
        offset = start
    offset += pick(draw, (0, 0, 0, -SECTOR, SECTOR, -1, 1, 37, grain // 2))
    offset = min(max(offset, 0), size)
    lengths = (SECTOR, grain, grain + SECTOR, 2 * grain, grain - SECTOR, 1, 3 * grain, 5000, 0)
    whole = (end - offset,) * (1 if place < 8 else len(lengths))
    length = min(max(pick(draw, (*lengths, *whole)), 0), LENGTH_LIMIT)
    return offset, min(length, size - offset)


def extent(draw: st.DrawFn, image: Image) -> tuple[int, int]:
    """``(start, end)`` of what a layer holds in one way; each way as often, the rare ones too."""
    runs = list(image.alloc.runs(0, image.size))
    kinds = sorted({kind for _, _, kind in runs})
    kind = pick(draw, kinds) if kinds else Alloc.NONE
    return pick(draw, [run[:2] for run in runs if run[2] is kind] or [(0, 0)])


class Draft:
    """Operations chosen one after the other, each in the World that the ones before leave."""

    def __init__(self, world: World) -> None:
        self.world = world.copy()
        self.operations: list[Operation] = []

    def add(self, *operations: Operation) -> None:
        """Choose some; what the model cannot judge changes nothing."""
        for operation in operations:
            self.operations.append(operation)
            with suppress(InvalidOperationError):
                self.world.apply(operation)


def data(draw: st.DrawFn) -> dict[str, int]:
    """Mostly stamps; constant fills and zeroes are the special cases."""
    number = below(draw, 80)
    if number < 64:
        return {"stamp": number}
    return {"fill": 0 if number < 74 else 0xA5}


def granularities(size: int) -> Sequence[int]:
    """The granularities that a bitmap of a disk of ``size`` bytes may have here."""
    usual = (65536, 512, 1024, 4096, 32768, 131072, 1 << 20, 1 << 31)
    fit = [g for g in usual if size // g <= BITS_LIMIT]
    return fit or [1 << 31]
