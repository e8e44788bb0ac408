"""Disks: formats, sizes, chains, patterns already on disk, injected errors."""

from collections.abc import Sequence
from typing import Literal

from hypothesis import strategies as st

from qbprop.machine.draws import JOB_CLUSTER, SECTOR, SMALL, below, data, pick, present, seldom
from qbprop_model.disk.creation import RAW_LIMIT
from qbprop_model.operations import (
    DRIVE_FAULTS,
    DRIVES,
    NODES,
    AddDisk,
    Compat,
    Errno,
    Fault,
    Layer,
    Pattern,
    Request,
    rules_of,
)
from qbprop_model.world import World

CLUSTERS = (65536, 4096, 512, 1024, 16384, 32768, 262144, 2 << 20)
COMPATS: tuple[Compat, ...] = ("1.1", "0.10", "1.1")
DISCARDS: tuple[Literal["ignore", "unmap"], ...] = ("ignore", "unmap")
DETECTS: tuple[Literal["off", "on", "unmap"], ...] = ("off", "off", "on", "unmap")
FAULTY: tuple[Request, ...] = (
    *("read", "write", "read", "write", "write_zeroes"),
    *("read", "flush", "discard", "write_zeroes", "flush"),
)
ERRNOS: tuple[Errno, ...] = ("EIO", "ENOSPC")
TIMES = (1, 1, 2, 1, 3, 0)
HUGE = (1 << 40, (8 << 40) - 512, (8 << 40) + 65536, (16 << 40) - 512)


def sizes(draw: st.DrawFn, cluster: int, largest: int) -> int:
    """A disk's size in bytes, a multiple of 512: mostly small and awkward."""
    if seldom(draw, 40):
        return pick(draw, [size for size in HUGE if size <= largest])
    grains = (65536, 65536, 1 << 20, 65536, cluster, 1 << 18, 64 * SECTOR, SECTOR)
    grain = pick(draw, grains)
    size = (1 + below(draw, max(1, min(SMALL // grain, 40)))) * grain
    if cluster == SECTOR and seldom(draw, 2):
        size = pick(draw, (SMALL, SMALL - (1 << 20)))  # a bitmap's bits may take several clusters
    size += pick(draw, [0, 0, SECTOR, -SECTOR, 3 * SECTOR])
    return min(max(size, SECTOR), SMALL)


def patterns(draw: st.DrawFn, size: int, least: int) -> tuple[Pattern, ...]:
    """What is on an image before it is opened: nothing, or a few stamped ranges."""
    found = []
    for _ in range(max(least, pick(draw, [0, 0, 0, 0, 1, 2]))):
        length = min(pick(draw, [1 << 20, 70000, SECTOR, SMALL]), size)
        offset = below(draw, min(size - length, SMALL) // SECTOR + 1) * SECTOR
        found.append(Pattern(offset=offset, length=length, **data(draw)))
    return tuple(found)


def layers(draw: st.DrawFn, size: int | None = None, *, data_in_it: int = 0) -> Layer:
    """One image, which may hold data already: ``data_in_it`` ranges at least."""
    raw = (size is None or size <= RAW_LIMIT) and seldom(draw, 4)
    cluster = 65536 if raw else pick(draw, CLUSTERS)
    if size is None:
        size = sizes(draw, cluster, RAW_LIMIT if raw else max(HUGE))
    data_in = patterns(draw, size, data_in_it)
    if raw:
        return Layer(format="raw", size=size, data=data_in)
    if size > SMALL:
        cluster = max(cluster, 65536)
    compat = pick(draw, COMPATS)
    extended = cluster >= 16384 and compat == "1.1" and seldom(draw, 6)
    return Layer(size=size, cluster_size=cluster, compat=compat, extended_l2=extended, data=data_in)


def faults(draw: st.DrawFn, size: int, kinds: Sequence[Request] = FAULTY) -> tuple[Fault, ...]:
    """One to three faults of a node of ``size`` bytes, mostly near the edge of a job cluster."""
    found = []
    for _ in range(pick(draw, (1, 2, 3))):
        cluster = below(draw, min(max(1, -(-size // JOB_CLUSTER)), SMALL // JOB_CLUSTER))
        offset = cluster * JOB_CLUSTER + pick(draw, (0, SECTOR, JOB_CLUSTER - SECTOR))
        offset = min(offset, max(0, size - 1) // SECTOR * SECTOR)
        errno, times = pick(draw, ERRNOS), pick(draw, TIMES)
        found.append(Fault(request=pick(draw, kinds), offset=offset, errno=errno, times=times))
    return tuple(found)


def of_disk(draw: st.DrawFn, layer: Layer) -> tuple[Fault, ...]:
    """The faults of a disk; there may be none, so that writes can be held."""
    kind = below(draw, 10)
    if kind == 8 and layer.format == "qcow2":
        return (Fault(request="write_aio", errno=pick(draw, ERRNOS), after=pick(draw, (1, 0, 2))),)
    if kind == 7 and layer.format == "qcow2":
        return (Fault(request="resize", errno=pick(draw, ERRNOS), times=pick(draw, TIMES)),)
    if kind == 6:
        blind = Fault(request="block_status", errno=pick(draw, ERRNOS), times=0)
        return (blind, *faults(draw, layer.size)) if seldom(draw, 2) else (blind,)
    return faults(draw, layer.size) if kind > 1 else ()


def alike(draw: st.DrawFn, world: World) -> int:
    """The size of a disk that exists, in whole sectors, or a sector beside it."""
    size = world.size(world.nodes[pick(draw, present(world))])
    return max(SECTOR, size // SECTOR * SECTOR + pick(draw, (0, 0, -SECTOR, SECTOR)))


def empty_slots(world: World) -> list[int]:
    """The numbers of the slots in which there has been no disk."""
    return [
        index
        for index, name in enumerate(NODES)
        if name not in world.nodes and f"{name}.0" not in world.images
    ]


def detects(discard: Literal["ignore", "unmap"]) -> Sequence[Literal["off", "on", "unmap"]]:
    """What ``detect-zeroes`` may be beside a ``discard``."""
    return DETECTS if discard == "unmap" else DETECTS[:3]


def add_disk(draw: st.DrawFn, world: World) -> AddDisk:
    """A disk in the first empty slot, every other one of about the size of an earlier one."""
    slot = empty_slots(world)[0]
    chain = [layers(draw, alike(draw, world) if world.nodes and seldom(draw, 2) else None)]
    while chain[-1].format == "qcow2" and len(chain) < 3 and seldom(draw, 2):
        same = chain[0].size
        longer = min(same + (1 << 20), max(same, SMALL))
        other = pick(draw, (same, longer, None, same, longer))
        chain.append(layers(draw, other, data_in_it=1))
    discard = pick(draw, DISCARDS)
    drive = DRIVES[slot] if world.traits.human_monitor_command and seldom(draw, 2) else None
    faulty = of_disk(draw, chain[0]) if seldom(draw, 5) else None
    while drive is not None and faulty and rules_of(faulty) > DRIVE_FAULTS:
        faulty = faulty[1:]
    return AddDisk(
        node=NODES[slot],
        layers=tuple(chain),
        drive=drive,
        discard=discard,
        detect_zeroes=pick(draw, detects(discard)),
        faults=faulty,
    )
