"""What guests do: reads, writes, zeroes, discards; and resizing their disks."""

from hypothesis import strategies as st

from qbprop.machine.draws import (
    BITS_LIMIT,
    SECTOR,
    SMALL,
    below,
    byte_range,
    data,
    find,
    named,
    pick,
    present,
    reference,
    seldom,
)
from qbprop_model.bitmap import ceil_div
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

KINDS = ("write", "write", "write", "zeroes", "discard", "read", "flush")


def request(draw: st.DrawFn, world: World) -> Operation:
    """One guest request."""
    ref = reference(draw, world, 100)
    node = find(world, ref)
    kind = pick(draw, KINDS)
    if kind == "flush":
        return Flush(node=reference(draw, world, 12))
    offset, length = (0, SECTOR) if node is None else byte_range(draw, world, node)
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


def writes(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """What a guest may have written before some other step: often nothing."""
    return tuple(request(draw, world) for _ in range(pick(draw, (0, 1, 0, 2))))


def guest_io(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """Any guest activity; seldom a compressed write or a resize."""
    match below(draw, 7):
        case 6:
            return (resize(draw, world),)
        case 5:
            return (write_compressed(draw, world),)
        case _:
            return requests(draw, world)


def write_compressed(draw: st.DrawFn, world: World) -> WriteCompressed:
    """A compressed write, mostly of one whole cluster of a qcow2 disk."""
    able = [n for n in present(world) if world.images[world.nodes[n].image].format == "qcow2"]
    ref = named(draw, world, pick(draw, able)) if able else reference(draw, world)
    if seldom(draw, 15):
        ref = reference(draw, world)
    node = find(world, ref)
    if node is None:
        return WriteCompressed(node=ref, offset=0, length=65536, stamp=0)
    image, size = world.images[node.image], world.size(node)
    cluster = max(image.cluster_size, SECTOR)
    if seldom(draw, 8):
        offset, length = byte_range(draw, world, node)
    else:
        offset = below(draw, ceil_div(size, cluster)) * cluster
        length = pick(draw, [1, 1, 2, 3]) * cluster
    length = min(length, size - offset)
    return WriteCompressed(node=ref, offset=offset, length=length, **data(draw))


def resize(draw: st.DrawFn, world: World) -> Resize:
    """Grow, shrink, same, to zero; seldom a size that is refused."""
    ref = reference(draw, world)
    node = find(world, ref)
    if node is None:
        return Resize(node=ref, size=65536)
    image, old = world.images[node.image], world.size(node)
    if seldom(draw, 6):
        odd = (
            [(1 << 63) - 1, old + 1000]
            if image.format == "raw"
            else [(1 << 63) - 1, 1 << 62, old + 100]
        )
        size = pick(draw, odd)
    else:
        grains = [
            SECTOR,
            65536,
            image.cluster_size * SECTOR if image.format == "raw" else image.cluster_size,
        ]
        grains += [64 * bitmap.granularity for bitmap in node.bitmaps.values()]
        grain = pick(draw, grains)
        steps = pick(draw, [1, -1, 2, -2, 0, 5, -5, -(10**6), 17])
        size = max(0, old // SECTOR * SECTOR + steps * grain)
        if size > max(SMALL, old) and old <= SMALL:
            size = pick(draw, [SMALL, old, SMALL - SECTOR])
    finest = min((bitmap.granularity for bitmap in node.bitmaps.values()), default=1 << 31)
    if size // finest > BITS_LIMIT and size < (1 << 62):
        size = old
    return Resize(node=ref, size=size)
