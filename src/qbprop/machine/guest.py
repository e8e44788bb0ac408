"""What guests do: reads, writes, zeroes, discards; and resizing their disks."""

from collections.abc import Callable

from hypothesis import strategies as st

from qbprop.machine.draws import (
    JOB_CLUSTER,
    LENGTH_LIMIT,
    SECTOR,
    SMALL,
    Draft,
    below,
    byte_range,
    data,
    named,
    pick,
    present,
    recorded,
    seldom,
)
from qbprop_model.bitmap import ceil_div
from qbprop_model.image import Alloc
from qbprop_model.operations import (
    BitmapDisable,
    Discard,
    Flush,
    Operation,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.state import Node
from qbprop_model.world import World

SHRINK_LIMIT = 1 << 20
"""Most clusters by which a qcow2 disk shrinks; QEMU visits each, whether it exists or not."""

KINDS = ("write", "write", "write", "zeroes", "discard", "read", "flush")


def request(draw: st.DrawFn, world: World, name: str | None = None) -> Operation:
    """One guest request, to the disk ``name`` or to any, mostly one whose bitmaps record it."""
    name = pick(draw, present(world) + 2 * recorded(world)) if name is None else name
    node, ref = world.nodes[name], named(draw, world, name)
    kind = pick(draw, KINDS)
    if kind == "flush":
        return Flush(node=ref)
    offset, length = byte_range(draw, world, node)
    match kind:
        case "write":
            detected = node.detect_zeroes != "off" and seldom(draw, 3)
            given = {"fill": 0} if detected else data(draw)
            return Write(node=ref, offset=offset, length=length, **given)
        case "zeroes":
            unmap = seldom(draw, 2)
            return WriteZeroes(node=ref, offset=offset, length=length, unmap=unmap)
        case "discard":
            return Discard(node=ref, offset=offset, length=length)
        case _:
            return Read(node=ref, offset=offset, length=length)


def requests(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A few guest requests in one step; none changes what the others may be."""
    return looked_at(draw, world, pick(draw, (1, 2, 3, 5)))


def few(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """No request as often as some."""
    return looked_at(draw, world, pick(draw, (0, 1, 0, 3)))


def looked_at(
    draw: st.DrawFn, world: World, count: int, name: str | None = None
) -> tuple[Operation, ...]:
    """``count`` requests, to the disk ``name`` or to any; every other one is looked at.

    Behind it the disk is read there. A read costs next to nothing, and what is wrong on a disk
    may be written over soon.
    """
    found: list[Operation] = []
    for _ in range(count):
        operation = request(draw, world, name)
        found.append(operation)
        if isinstance(operation, Write | WriteZeroes | Discard) and seldom(draw, 2):
            found.append(read_around(world, operation.node, operation.offset, operation.length))
    return tuple(found)


def read_around(world: World, ref: str, offset: int, length: int) -> Read:
    """A read of a range of a disk and of a job cluster on either side of it."""
    node = world.find(ref)
    size = world.size(node) if node is not None else 0
    start, end = max(0, offset - JOB_CLUSTER), min(size, offset + length + JOB_CLUSTER)
    return Read(node=ref, offset=start, length=min(max(0, end - start), LENGTH_LIMIT))


def behind_writes(
    draw: st.DrawFn, world: World, choose: Callable[[st.DrawFn, World], Operation]
) -> tuple[Operation, ...]:
    """What ``choose`` returns, behind what a guest may have written."""
    return (*few(draw, world), choose(draw, world))


def burst(
    draw: st.DrawFn, world: World, choose: Callable[[st.DrawFn, World], Operation]
) -> tuple[Operation, ...]:
    """A few times what ``choose`` returns, each behind writes: what is cheap comes in numbers."""
    draft = Draft(world)
    for _ in range(pick(draw, (1, 2, 3, 4))):
        draft.add(*behind_writes(draw, draft.world, choose))
    return tuple(draft.operations)


def write_compressed(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A compressed write of whole clusters, mostly of one that is free, of a qcow2 disk.

    Every other one is then zeroed or written over, or the disk grows behind it.
    """
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
    partial = size % cluster
    if partial and seldom(draw, 4):
        index = clusters - 1
    length = pick(draw, (1, 1, 1, 2, 3)) * cluster
    offset = min(index * cluster, size)
    ref = named(draw, world, name)
    length = min(length, size - offset)
    write = WriteCompressed(node=ref, offset=offset, length=length, **data(draw))
    if partial and offset + length == size and seldom(draw, 2):
        grown = Resize(node=ref, size=size - partial + cluster)
        return (write, grown, Read(node=ref, offset=offset, length=grown.size - offset))
    match pick(draw, ("read", "nothing", "zeroes", "write")):
        case "read":
            return (write, read_around(world, ref, offset, length))
        case "zeroes":
            unmap = seldom(draw, 2)
            over: Operation = WriteZeroes(node=ref, offset=offset, length=length, unmap=unmap)
        case "write":
            over = Write(node=ref, offset=offset, length=min(SECTOR, length), **data(draw))
        case _:
            return (write,)
    return (write, over, read_around(world, ref, offset, length))


def resizes(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """Grow, shrink, same, to zero; every other time there and back again.

    Then the end of the disk is written before, so that there is something to be cut off, and
    often a bitmap that has recorded it is disabled. Behind it the seam, where the disk ended in
    between, is mostly read or written over.
    """
    able = [name for name in present(world) if name not in world.exported]
    if able and not seldom(draw, 8):
        name = pick(draw, able + 2 * [name for name in able if covered(world, name)])
    else:
        name = pick(draw, present(world))
    node, old = world.nodes[name], world.size(world.nodes[name])
    ref, size = named(draw, world, name), new_size(draw, world, node)
    resize, low = Resize(node=ref, size=size), min(size, old)
    if old % SECTOR or seldom(draw, 2):
        return (resize, *across(draw, ref, low, size))
    offset = max(0, low - pick(draw, (0, SECTOR, 65536)), old - LENGTH_LIMIT)
    write = Write(node=ref, offset=offset, length=old - offset, **data(draw))
    end = max(pick(draw, (old, max(size, old), low + SECTOR)), smallest(world, node, size))
    back = (resize, Resize(node=ref, size=end), *across(draw, ref, low, end))
    if seldom(draw, 3):
        return back
    if node.bitmaps and seldom(draw, 2):
        return (write, BitmapDisable(node=ref, name=pick(draw, sorted(node.bitmaps))), *back)
    return (write, *back)


def covered(world: World, name: str) -> bool:
    """Whether a disk hides the end of a longer backing file, and ends within a cluster."""
    image, *below = world.chain(world.nodes[name].image)
    longer = bool(below) and below[0].size > image.size
    return longer and image.size < image.capacity(image.size)


def across(draw: st.DrawFn, ref: str, seam: int, end: int) -> tuple[Operation, ...]:
    """A read or a write across byte ``seam`` of a disk of ``end`` bytes, or neither."""
    kind = pick(draw, ("read", "read", "write", "nothing"))
    start = max(0, seam - pick(draw, (SECTOR, JOB_CLUSTER, LENGTH_LIMIT - SECTOR)))
    if kind == "nothing" or start >= end:
        return ()
    if kind == "read":
        return (Read(node=ref, offset=start, length=min(LENGTH_LIMIT, end - start)),)
    length = min(seam + SECTOR, end) - start
    return (Write(node=ref, offset=start, length=length, **data(draw)),)


def smallest(world: World, node: Node, size: int) -> int:
    """The least size in bytes to which a disk of ``size`` shrinks in little time."""
    image = world.images[node.image]
    return max(0, size - SHRINK_LIMIT * image.cluster_size) if image.format == "qcow2" else 0


def new_size(draw: st.DrawFn, world: World, node: Node) -> int:
    """A size in bytes that a disk can get."""
    image, old = world.images[node.image], world.size(node)
    qcow2 = image.format == "qcow2"
    room = image.capacity(old) - old if qcow2 else 0
    if room >= SECTOR and seldom(draw, 4):
        return old // SECTOR * SECTOR + pick(draw, (1, room // SECTOR, 3)) * SECTOR
    grains = [SECTOR, 65536, image.cluster_size if qcow2 else SECTOR]
    grains += [64 * bitmap.granularity for bitmap in node.bitmaps.values()]
    steps = pick(draw, [1, -1, 2, -2, 0, 5, -5, -(10**6), 17])
    size = max(0, old // SECTOR * SECTOR + steps * pick(draw, grains))
    if size > max(SMALL, old) and old <= SMALL:
        size = pick(draw, [SMALL, old, SMALL - SECTOR])
    size = max(size, smallest(world, node, old))
    if not qcow2 and seldom(draw, 2):
        size += 1000
    return size
