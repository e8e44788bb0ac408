"""What guests do: reads, writes, zeroes, discards; and resizing their disks."""

from collections.abc import Callable

from hypothesis import strategies as st

from qbprop.machine.draws import (
    BITS_LIMIT,
    SECTOR,
    SMALL,
    below,
    byte_range,
    data,
    named,
    pick,
    present,
    seldom,
)
from qbprop_model.bitmap import ceil_div
from qbprop_model.image import Alloc
from qbprop_model.operations import (
    Discard,
    Flush,
    Operation,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.world import World

SHRINK_LIMIT = 1 << 20
"""Most clusters by which a qcow2 disk shrinks; QEMU visits each, whether it exists or not."""

KINDS = ("write", "write", "write", "zeroes", "discard", "read", "flush")


def request(draw: st.DrawFn, world: World) -> Operation:
    """One guest request."""
    name = pick(draw, present(world))
    node, ref = world.nodes[name], named(draw, world, name)
    kind = pick(draw, KINDS)
    if kind == "flush":
        return Flush(node=ref)
    offset, length = byte_range(draw, world, node)
    match kind:
        case "write":
            return Write(node=ref, offset=offset, length=length, **data(draw))
        case "zeroes":
            unmap = seldom(draw, 2)
            return WriteZeroes(node=ref, offset=offset, length=length, unmap=unmap)
        case "discard":
            return Discard(node=ref, offset=offset, length=length)
        case _:
            return Read(node=ref, offset=offset, length=length)


def requests(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A few guest requests in one step; none changes what the others may be."""
    return tuple(request(draw, world) for _ in range(pick(draw, (1, 2, 3, 5))))


def behind_writes(
    draw: st.DrawFn, world: World, choose: Callable[[st.DrawFn, World], Operation]
) -> tuple[Operation, ...]:
    """What ``choose`` returns, behind what a guest may have written: often nothing."""
    before = tuple(request(draw, world) for _ in range(pick(draw, (0, 1, 0, 2))))
    return (*before, choose(draw, world))


def write_compressed(draw: st.DrawFn, world: World) -> WriteCompressed:
    """A compressed write of whole clusters, mostly of one that is free, of a qcow2 disk."""
    able = [n for n in present(world) if world.images[world.nodes[n].image].format == "qcow2"]
    name = pick(draw, able or present(world))
    node, size = world.nodes[name], world.size(world.nodes[name])
    image = world.images[node.image]
    cluster = max(image.cluster_size, SECTOR)
    clusters = ceil_div(size, cluster)
    index = below(draw, clusters)
    if not seldom(draw, 4):
        spaces = [s for s, _, kind in image.alloc.runs(index * cluster) if kind is Alloc.NONE]
        index = spaces[0] // cluster if spaces else index
    length = pick(draw, (1, 1, 1, 2, 3)) * cluster
    offset = min(index * cluster, size)
    ref = named(draw, world, name)
    return WriteCompressed(node=ref, offset=offset, length=min(length, size - offset), **data(draw))


def resize(draw: st.DrawFn, world: World) -> Resize:
    """Grow, shrink, same, to zero."""
    name = pick(draw, present(world))
    node = world.nodes[name]
    image, old = world.images[node.image], world.size(node)
    qcow2 = image.format == "qcow2"
    grains = [SECTOR, 65536, image.cluster_size if qcow2 else SECTOR]
    grains += [64 * bitmap.granularity for bitmap in node.bitmaps.values()]
    steps = pick(draw, [1, -1, 2, -2, 0, 5, -5, -(10**6), 17])
    size = max(0, old // SECTOR * SECTOR + steps * pick(draw, grains))
    if size > max(SMALL, old) and old <= SMALL:
        size = pick(draw, [SMALL, old, SMALL - SECTOR])
    if qcow2:
        size = max(size, old - SHRINK_LIMIT * image.cluster_size)
    elif seldom(draw, 6):
        size += 1000
    finest = min((bitmap.granularity for bitmap in node.bitmaps.values()), default=1 << 31)
    if size // finest > BITS_LIMIT:
        size = old
    return Resize(node=named(draw, world, name), size=size)
