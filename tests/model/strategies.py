"""Small disks, few bitmaps, every operation, legal and illegal, near every edge."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from qbprop_model.operations import (
    BAD_BITMAPS,
    BAD_EXPORTS,
    BITMAPS,
    DRIVES,
    EXPORTS,
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
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    Flush,
    Layer,
    MergeSource,
    Operation,
    Pattern,
    Read,
    ReadDirtyExtents,
    RebaseImage,
    Resize,
    SyncMode,
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

KINDS: dict[str, dict[str, Any]] = {
    "v3-512": {"cluster_size": 512},
    "v3-4k": {"cluster_size": 4096},
    "v3-64k": {"cluster_size": 64 * KIB},
    "v2-4k": {"cluster_size": 4096, "compat": "0.10"},
    "v2-64k": {"cluster_size": 64 * KIB, "compat": "0.10"},
    "extended-16k": {"cluster_size": 16 * KIB, "extended_l2": True},
    "extended-64k": {"cluster_size": 64 * KIB, "extended_l2": True},
    "raw": {"format": "raw"},
}
"""Every kind of layer."""

BELOW: dict[str, tuple[Layer, ...]] = {
    "alone": (),
    "shorter": (Layer(size=40 * KIB, data=(Pattern(offset=512, length=30 * KIB, fill=9),)),),
    "longer": (Layer(size=256 * KIB, data=(Pattern(offset=0, length=256 * KIB, stamp=9),)),),
    "raw": (Layer(size=150 * KIB, format="raw", data=(Pattern(offset=0, length=9000, fill=9),)),),
}
"""What may lie below it."""

COPIED = 260 * KIB + 512
"""Size of the disks that backups copy."""


def disk(kind: str, below: str, size: int, **options: Any) -> AddDisk:
    """``drive0`` with a top layer of one of KINDS over one of BELOW."""
    return AddDisk(
        node="drive0", layers=(Layer(size=size, **KINDS[kind]), *BELOW[below]), **options
    )


def contents() -> st.SearchStrategy[dict[str, Any]]:
    """The fields of an operation that say what is written."""
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
    discard: Any
    zeroes: Any
    options = ["unmap off", "ignore off", "unmap unmap", "unmap on", "ignore on", "ignore unmap"]
    discard, zeroes = draw(st.sampled_from(options)).split()
    return AddDisk(
        node=node,
        layers=draw(layers()),
        drive=DRIVES[NODES.index(node)] if draw(st.booleans()) else None,
        discard=discard,
        detect_zeroes=zeroes,
    )


BITMAP_COMMANDS = (BitmapRemove, BitmapClear, BitmapDisable, BitmapEnable)
bitmap_names = st.sampled_from(BITMAPS[:3] * 6 + BITMAPS[3:] + BAD_BITMAPS)


@st.composite
def references(draw: st.DrawFn) -> str:
    """The first disk mostly; by its drive's name at times; seldom one that is not there."""
    names = NODES[:1] * 8 + NODES[1:2] * 4 + DRIVES[:2] * 2 + ("drive2",)
    return str(draw(st.sampled_from(names)))


@st.composite
def bitmap_actions(draw: st.DrawFn) -> Action:
    node, name = draw(references()), draw(bitmap_names)
    cls: Any = draw(
        st.sampled_from((BitmapAdd, BitmapMerge, *BITMAP_COMMANDS, BitmapAdd, BitmapMerge))
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
def export_operations(draw: st.DrawFn, sizes: dict[str, int]) -> Operation:
    """What clients and their exports do, mostly on two exports."""
    export = draw(st.sampled_from(EXPORTS[:2] * 6 + EXPORTS[2:] + BAD_EXPORTS))
    kind = draw(st.sampled_from([ExportAdd, ReadDirtyExtents, ReadDirtyExtents, ExportDel]))
    if kind is ExportDel:
        mode: Any = draw(st.sampled_from(["hard", "safe"]))
        return ExportDel(export=export, mode=mode)
    if kind is ReadDirtyExtents:
        offset, length = draw(ranges(draw(st.sampled_from(sorted(sizes.values())))))
        name = draw(bitmap_names)
        return ReadDirtyExtents(export=export, bitmap=name, offset=offset, length=length)
    bitmaps = st.builds(ExportedBitmap, name=bitmap_names, node=st.none() | references())
    return ExportAdd(
        export=export,
        node=draw(references()),
        bitmaps=tuple(draw(st.lists(bitmaps, max_size=2))),
        writable=draw(st.booleans()),
        name=draw(st.sampled_from([None, None, *EXPORTS[:2]])),
    )


@st.composite
def backups(draw: st.DrawFn) -> DriveBackup | BlockdevBackup:
    """Mostly what is accepted; the rest of the table of modes now and then."""
    legal: list[tuple[str, int, str | None]] = [
        ("full", 0, None),
        ("top", 0, None),
        ("incremental", 1, None),
    ]
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
        kind = draw(st.integers(0, 18))
        if kind > 15:
            found.append(draw(export_operations(sizes)))
        elif kind < 6:
            found.append(draw(guest_requests(node, size)))
        elif kind < 9:
            found.append(draw(bitmap_actions()))
        elif kind < 10:
            size = draw(st.sampled_from((*SIZES, *SIZES, 700, SIZE_LIMIT)))
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
            target, backing = (
                draw(st.sampled_from(TARGETS[:3])),
                draw(st.sampled_from([None, "target0", "target1"])),
            )
            found.append(RebaseImage(image=target, backing=backing))
    return found


@st.composite
def disk_sequences(draw: st.DrawFn, kind: str, below: str) -> list[Operation]:
    """Requests and resizes of one disk."""
    size = draw(st.sampled_from(SIZES[1:]))
    found: list[Operation] = [
        disk(kind, below, size, discard=draw(st.sampled_from(["unmap", "unmap", "ignore"])))
    ]
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 3)) == 3:
            size = draw(st.sampled_from(SIZES))
            found.append(Resize(node="drive0", size=size))
        else:
            found.append(draw(guest_requests("drive0", size)))
    return found


@st.composite
def bitmap_sequences(draw: st.DrawFn) -> list[Operation]:
    """Requests, resizes and commands on two bitmaps of one disk."""
    size = draw(st.sampled_from(SIZES[2:]))
    found: list[Operation] = [disk("v3-64k", "alone", size, discard="unmap")]
    names = BITMAPS[:2]
    for name in names:
        granularity = draw(st.sampled_from((None, *GRANULARITIES)))
        found.append(BitmapAdd(node="drive0", name=name, granularity=granularity))
    for _ in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from(names))
        cls: Any = draw(st.sampled_from([Write, BitmapMerge, Resize, BitmapClear, BitmapDisable]))
        if cls is Write:
            found.append(draw(guest_requests("drive0", size)))
        elif cls is Resize:
            size = draw(st.sampled_from(SIZES))
            found.append(Resize(node="drive0", size=size))
        elif cls is BitmapMerge:
            sources = tuple(MergeSource(name=other) for other in names if other != name)
            found.append(BitmapMerge(node="drive0", target=name, sources=sources))
        else:
            found.append(cls(node="drive0", name=name))
    return found


@st.composite
def export_sequences(draw: st.DrawFn) -> list[Operation]:
    """Two disks with bitmaps of the same names, exports of them, and what guests write."""
    found: list[Operation] = []
    sizes = {}
    for node in NODES[:2]:
        sizes[node] = draw(st.sampled_from(SIZES[1:]))
        found.append(AddDisk(node=node, layers=(Layer(size=sizes[node]),), discard="unmap"))
        for name in BITMAPS[: draw(st.integers(1, 2))]:
            granularity = draw(st.sampled_from(GRANULARITIES))
            disabled = draw(st.booleans())
            found.append(
                BitmapAdd(node=node, name=name, granularity=granularity, disabled=disabled)
            )
    for _ in range(draw(st.integers(1, 10))):
        node = draw(st.sampled_from(NODES[:2]))
        match draw(st.integers(0, 9)):
            case 0 | 1:
                found.append(draw(guest_requests(node, sizes[node])))
            case 2:
                found.append(draw(bitmap_actions()))
            case 3:
                found.append(Resize(node=node, size=draw(st.sampled_from(SIZES))))
            case _:
                found.append(draw(export_operations(sizes)))
    return found


@st.composite
def backup_sequences(draw: st.DrawFn, sync: SyncMode, cluster: int) -> list[Operation]:
    """Requests and a backup, twice: into a file, then into another over it."""
    chain = (
        Layer(size=COPIED, cluster_size=draw(st.sampled_from(CLUSTERS))),
        Layer(size=200 * KIB),
    )
    granularity = draw(st.sampled_from(GRANULARITIES))
    found: list[Operation] = [
        AddDisk(node="drive0", layers=chain, discard="unmap"),
        BitmapAdd(node="drive0", name="bitmap0", granularity=granularity),
    ]
    mode: Any = None if sync == "incremental" else "on-success"
    bitmap = sync in {"incremental", "bitmap"} or draw(st.booleans())
    for target, backing in (("target0", None), ("target1", "target0")):
        found += [draw(guest_requests("drive0", COPIED)) for _ in range(draw(st.integers(1, 3)))]
        layer = Layer(size=COPIED, cluster_size=cluster)
        found.append(CreateImage(image=target, layer=layer, backing=backing))
        if sync == "bitmap":
            mode = draw(st.sampled_from(["on-success", "never", "always"]))
        found.append(
            BlockdevBackup(
                node="drive0",
                target=target,
                sync=sync,
                bitmap="bitmap0" if bitmap else None,
                bitmap_mode=mode if bitmap else None,
                compress=draw(st.integers(0, 3)) == 3,
            )
        )
    return [*found, RebaseImage(image="target1"), RebaseImage(image="target1", backing="target0")]
