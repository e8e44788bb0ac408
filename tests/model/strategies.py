"""Small disks, few bitmaps, every operation, legal and illegal, near every edge."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from qbprop_model.operations import (
    BAD_BITMAPS,
    BITMAPS,
    DRIVES,
    NODES,
    SIZE_LIMIT,
    TARGETS,
    Abort,
    Action,
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockdevBackup,
    CreateImage,
    Discard,
    DriveBackup,
    Flush,
    Layer,
    MergeSource,
    Operation,
    Pattern,
    Read,
    RebaseImage,
    Resize,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)

KIB = 1024
SIZES = (0, 512, 4608, 64 * KIB, 64 * KIB + 512, 98 * KIB, 100 * KIB, 128 * KIB + 1536, 192 * KIB)
"""Disk sizes in bytes: around the edges of clusters, subclusters and job clusters."""

GRANULARITIES = (512, 1024, 4096, 32 * KIB, 64 * KIB, 128 * KIB, 2**31)
CLUSTERS = (512, 4096, 16 * KIB, 64 * KIB)


def contents() -> st.SearchStrategy[dict[str, int]]:
    stamps = st.integers(0, 5).map(lambda number: {"stamp": number})
    return st.one_of(stamps, st.sampled_from([{"fill": 0}, {"fill": 7}]))


@st.composite
def ranges(draw: st.DrawFn, size: int) -> tuple[int, int]:
    """``(offset, length)`` whose ends lie near edges; seldom past the end of the disk."""
    grain = draw(st.sampled_from([64 * KIB, 512, 2 * KIB, 4 * KIB, 32 * KIB]))
    ends = []
    for _ in range(2):
        edge = draw(st.integers(0, -(-size // grain))) * grain
        shift = draw(st.sampled_from([0, 0, 0, 512, -512, 1, -1, 37]))
        ends.append(min(max(edge + shift, 0), size))
    start, end = sorted(ends)
    past = draw(st.integers(0, 19)) == 19
    return start, size - start + 1 if past else end - start


@st.composite
def layers(draw: st.DrawFn, sizes: Sequence[int] = SIZES) -> tuple[Layer, ...]:
    """A chain of one to three images, of any lengths."""
    found: list[Layer] = []
    depth = draw(st.sampled_from([1, 1, 2, 2, 3]))
    for level in range(depth):
        size = draw(st.sampled_from(sizes))
        patterns = []
        for _ in range(draw(st.integers(0, 2))):
            start, length = draw(ranges(size))
            data = draw(contents())
            length = min(length, size - start)
            patterns.append(Pattern(offset=start, length=length, **data))
        raw = draw(st.integers(0, 3)) == 3 and level == depth - 1
        found.append(
            Layer(
                size=size,
                format="raw" if raw else "qcow2",
                cluster_size=draw(st.sampled_from(CLUSTERS)),
                compat=draw(st.sampled_from(["1.1", "1.1", "0.10"])),
                extended_l2=draw(st.integers(0, 3)) == 3,
                data=tuple(patterns),
            )
        )
        valid = found[-1].compat == "1.1" and found[-1].cluster_size >= 16 * KIB
        if found[-1].extended_l2 and not valid and draw(st.integers(0, 3)):
            found[-1] = Layer(size=size, extended_l2=True, data=tuple(patterns))
    return tuple(found)


@st.composite
def disks(draw: st.DrawFn, node: str) -> AddDisk:
    discard, zeroes = draw(
        st.sampled_from(
            [("unmap", "off"), ("ignore", "off"), ("unmap", "unmap"), ("unmap", "on")]
            + [("ignore", "on"), ("ignore", "unmap")]
        )
    )
    return AddDisk(
        node=node,
        layers=draw(layers()),
        drive=DRIVES[NODES.index(node)] if draw(st.booleans()) else None,
        discard=discard,
        detect_zeroes=zeroes,
    )


bitmap_names = st.sampled_from(BITMAPS[:3] * 6 + BITMAPS[3:] + BAD_BITMAPS)


@st.composite
def references(draw: st.DrawFn) -> str:
    """The first disk mostly; by its drive's name at times; seldom one that is not there."""
    return draw(st.sampled_from(NODES[:1] * 8 + NODES[1:2] * 4 + DRIVES[:2] * 2 + ("drive2",)))


@st.composite
def bitmap_actions(draw: st.DrawFn) -> Action:
    node, name = draw(references()), draw(bitmap_names)
    cls: Any = draw(
        st.sampled_from(
            [BitmapAdd, BitmapMerge, BitmapAdd, BitmapMerge, BitmapRemove]
            + [BitmapClear, BitmapDisable, BitmapEnable]
        )
    )
    if cls is BitmapAdd:
        size = draw(st.sampled_from((None, *GRANULARITIES * 2, 0, 256, 1536, 2**32, SIZE_LIMIT)))
        return BitmapAdd(node=node, name=name, granularity=size, disabled=draw(st.booleans()))
    if cls is BitmapMerge:
        other = st.none() | references()
        sources = st.lists(st.builds(MergeSource, name=bitmap_names, node=other), max_size=3)
        return BitmapMerge(node=node, target=name, sources=tuple(draw(sources)))
    found: Action = cls(node=node, name=name)
    return found


@st.composite
def backups(draw: st.DrawFn) -> DriveBackup | BlockdevBackup:
    """Mostly what is accepted; the rest of the table of modes now and then."""
    legal = [("full", 0, None), ("top", 0, None), ("incremental", 1, None)]
    legal += [("incremental", 1, "on-success"), ("full", 1, "always"), ("top", 1, "on-success")]
    legal += [("bitmap", 1, mode) for mode in ("on-success", "never", "always")]
    sync: Any
    mode: Any
    sync, wanted, mode = draw(st.sampled_from(legal))
    if draw(st.integers(0, 5)) == 5:
        sync = draw(st.sampled_from(["full", "top", "incremental", "bitmap", "none"]))
        mode = draw(st.sampled_from([None, "on-success", "never", "always"]))
        wanted = draw(st.integers(0, 1))
    common: dict[str, Any] = {
        "node": draw(references()),
        "target": draw(st.sampled_from(TARGETS[:3])),
        "sync": sync,
        "job": draw(st.sampled_from(["job0", "job1", "job0", None])),
        "bitmap": draw(bitmap_names) if wanted else None,
        "bitmap_mode": mode,
        "compress": draw(st.integers(0, 3)) == 3,
    }
    if draw(st.booleans()):
        return BlockdevBackup(**common)
    return DriveBackup(
        **common,
        mode=draw(st.sampled_from(["existing", "absolute-paths"])),
        format=draw(st.sampled_from(["qcow2", "qcow2", "raw"])),
    )


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    action = st.one_of(bitmap_actions(), bitmap_actions(), bitmap_actions(), backups())
    actions = draw(st.lists(action, max_size=4))
    if draw(st.integers(0, 4)) == 4:
        actions.insert(draw(st.integers(0, len(actions))), Abort())
    return Transaction(actions=tuple(actions), grouped=draw(st.integers(0, 4)) == 4)


@st.composite
def guest_requests(draw: st.DrawFn, node: str, size: int) -> Operation:
    offset, length = draw(ranges(size))
    place: dict[str, Any] = {"node": node, "offset": offset, "length": length}
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            return Write(**place, **draw(contents()))
        case 3 | 4:
            return WriteZeroes(**place, unmap=draw(st.booleans()))
        case 5 | 6:
            return Discard(**place)
        case 7:
            return Read(**place) if draw(st.integers(0, 3)) else Flush(node=node)
        case _:
            grain = draw(st.sampled_from([1, *CLUSTERS]))
            start = offset // grain * grain
            end = min(-(-(offset + length) // grain) * grain, size)
            place |= {"offset": start, "length": max(min(end - start, grain * 2), 0)}
            return WriteCompressed(**place, **draw(contents()))


@st.composite
def sequences(draw: st.DrawFn, steps: int = 16) -> list[Operation]:
    """A topology with bitmaps and targets, then any operations."""
    found: list[Operation] = [draw(disks("drive0"))]
    sizes = {"drive0": found[0].layers[0].size} if isinstance(found[0], AddDisk) else {}
    if draw(st.booleans()):
        second = draw(disks("drive1"))
        sizes["drive1"] = second.layers[0].size
        found.append(second)
    for name in BITMAPS[: draw(st.integers(0, 2))]:
        granularity = draw(st.sampled_from(GRANULARITIES))
        found.append(BitmapAdd(node="drive0", name=name, granularity=granularity))
    for _ in range(draw(st.integers(0, steps) | st.just(steps))):
        node = draw(st.sampled_from(list(sizes) * 3 + list(sizes)[:1] + ["drive2"]))
        size = sizes.get(node, 512)
        kind = draw(st.integers(0, 15))
        if kind < 6:
            found.append(draw(guest_requests(node, size)))
        elif kind < 9:
            found.append(draw(bitmap_actions()))
        elif kind < 10:
            size = draw(st.sampled_from((*SIZES, *SIZES, 700, 2**62, SIZE_LIMIT)))
            found.append(Resize(node=node, size=size))
            sizes[node] = size if size in SIZES else sizes.get(node, 512)
        elif kind < 12:
            backing = draw(st.sampled_from([None, None, "target0", "target1"]))
            layer = draw(layers([*sizes.values(), sizes["drive0"], 512]))[0]
            layer = Layer(
                size=layer.size,
                format=layer.format,
                cluster_size=draw(st.sampled_from((*CLUSTERS, 128 * KIB))),
                compat=layer.compat,
                extended_l2=layer.extended_l2 and draw(st.booleans()),
            )
            target = draw(st.sampled_from(TARGETS[:3]))
            found.append(CreateImage(image=target, layer=layer, backing=backing))
        elif kind < 14:
            found.append(draw(backups()))
        elif kind < 15:
            found.append(draw(transactions()))
        else:
            target, backing = draw(st.sampled_from(TARGETS[:3])), draw(
                st.sampled_from([None, "target0", "target1"])
            )
            found.append(RebaseImage(image=target, backing=backing))
    return found
