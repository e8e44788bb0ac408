"""Snapshots, commits and streams, against a second, naive implementation: one array per disk."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qbprop_model.bitmap import Bits
from qbprop_model.data import Bytes
from qbprop_model.expectation import Reason
from qbprop_model.operations import (
    Abort,
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapMerge,
    BitmapRemove,
    BlockCommit,
    BlockdevBackup,
    BlockdevSnapshot,
    BlockStream,
    CloseDisk,
    CreateImage,
    DriveBackup,
    ExportAdd,
    ExportedBitmap,
    InvalidOperationError,
    Layer,
    MergeSource,
    Migrate,
    OpenDisk,
    Opening,
    Operation,
    Pattern,
    ReopenDisk,
    Resize,
    Restart,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.world import World

SECTOR = 512
DISKS = ("drive0", "drive1", "drive2")
NODES = st.sampled_from(DISKS)
FILLS = st.sampled_from((0, 1, 7))
REQUESTS = st.one_of(
    st.builds(
        Write,
        node=NODES,
        offset=st.integers(0, 150_000),
        length=st.sampled_from((1, 512, 5000, 70_000)),
        fill=FILLS,
    ),
    st.builds(
        WriteZeroes,
        node=NODES,
        offset=st.integers(0, 150_000),
        length=st.sampled_from((512, 5000, 70_000)),
    ),
    st.builds(BitmapClear, node=NODES, name=st.just("a")),
)
SNAPSHOT = BlockdevSnapshot(node="drive0", overlay="drive1")
ABOVE = BlockdevSnapshot(node="drive1", overlay="drive2")
COMMIT = BlockCommit(job="job0", node="drive1", base="drive0")
COMMITS = (
    COMMIT,
    BlockCommit(job="job0", node="drive2", base="drive1"),
    BlockCommit(job="job0", node="drive2", base="drive0", between=("drive1",)),
)
STREAMS = tuple(BlockStream(job="job0", node=node) for node in ("drive1", "drive2"))
COMMIT_BELOW = BlockCommit(job="job0", node="drive2", base="drive0", top="drive1")
STREAM_ABOVE = BlockStream(job="job0", node="drive2", base="drive0")
LEAVING = (COMMIT_BELOW, STREAM_ABOVE, CloseDisk(node="drive1"))
GRAPHS = (SNAPSHOT, ABOVE, *COMMITS, *STREAMS, *LEAVING, CloseDisk(node="drive2"))
PARTS = st.lists(REQUESTS, max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Snapshots, then commits and streams, with requests before and behind each."""
    found: list[Operation] = [*draw(PARTS)]
    snapshots: tuple[Operation, ...] = (SNAPSHOT, ABOVE)
    for graph in snapshots[: draw(st.integers(0, 2))]:
        found += [graph, *draw(PARTS)]
    for graph in draw(st.lists(st.sampled_from(GRAPHS), max_size=4)):
        found += [graph, *draw(PARTS)]
    return found


SIZES = st.integers(1, 300).map(lambda sectors: sectors * SECTOR)
CLUSTERS = st.sampled_from((512, 4096, 65536))


@dataclass(eq=False)
class NaiveDisk:
    """Every byte, which of them the disk has itself, and the dirty sectors."""

    cluster: int
    data: Bytes
    own: Bits
    dirty: set[int] = field(default_factory=set)
    base: "NaiveDisk | None" = None

    def view(self) -> Bytes:
        below = np.zeros_like(self.data)
        if self.base is not None:
            shown = self.base.view()[: len(below)]
            below[: len(shown)] = shown
        return np.where(self.own, self.data, below)

    def take(self, start: int, data: Bytes) -> None:
        """Put bytes down; whole clusters become the disk's own."""
        shown = self.view()
        shown[start : start + len(data)] = data
        first = start // self.cluster * self.cluster
        last = -(-(start + len(data)) // self.cluster) * self.cluster
        self.data[first:last], self.own[first:last] = shown[first:last], True

    def touch(self, start: int, length: int) -> None:
        self.dirty.update(range(start // SECTOR, -(-(start + length) // SECTOR)))

    def owns(self, at: int, *, deep: bool) -> bool:
        """Whether a layer has a byte; behind its end a deeper one has the zeroes."""
        return bool(self.own[at]) if at < len(self.own) else deep

    def grow(self, size: int) -> None:
        old = len(self.data)
        if size <= old:
            return
        hidden = self.base is not None and len(self.base.data) > old
        self.data = np.append(self.data, np.zeros(size - old, np.uint8))
        self.own = np.append(self.own, np.zeros(size - old, np.bool_))
        edge = -(-old // self.cluster) * self.cluster
        self.own[old:edge] = self.own[old - 1]
        if hidden:
            self.take(old, np.zeros(size - old, np.uint8))

    def chain(self) -> "list[NaiveDisk]":
        return [self, *(self.base.chain() if self.base is not None else ())]

    def commit(self, base: "NaiveDisk") -> None:
        layers = self.chain()[: self.chain().index(base)]
        size, unit = len(self.data), min(max(base.cluster, 4096), 65536)
        shown = self.view()
        base.grow(size)
        for start in range(0, size, unit):
            end = min(start + unit, size)
            if any(
                layer.owns(at, deep=depth > 0)
                for depth, layer in enumerate(layers)
                for at in range(start, end, SECTOR)
            ):
                base.take(start, shown[start:end])
                base.touch(start, end - start)

    def commit_below(self, base: "NaiveDisk") -> None:
        """What is right below goes into the base, sector by sector."""
        top = self.base
        assert top is not None
        shown, size = top.view(), len(top.data)
        base.grow(size)
        for start in range(0, size, SECTOR):
            if top.own[start]:
                base.take(start, shown[start : start + SECTOR])
                base.touch(start, len(shown[start : start + SECTOR]))
        hidden = base.view()[size : len(self.data)]
        if hidden.any():
            base.take(size, np.zeros_like(hidden))
            base.touch(size, len(hidden))
        self.base = base

    def stream(self, base: "NaiveDisk | None" = None) -> None:
        assert self.base is not None
        shown, below = self.view(), self.base.chain()
        edge = min(len(self.data), len(self.base.data))
        hidden = base is not None and bool(base.view()[edge : len(self.data)].any())
        below = below if base is None else below[: below.index(base)]
        for start in range(0, len(self.data), self.cluster):
            end = min(start + self.cluster, len(self.data))
            there = range(start, min(end, edge), SECTOR)
            needed = any(
                layer.owns(at, deep=depth > 0) for depth, layer in enumerate(below) for at in there
            )
            needed = needed or (hidden and edge < end and start < len(base.data) if base else False)
            if needed and not self.own[start]:
                self.take(start, shown[start:end])
        self.base = base


def perform(op: Operation, disks: dict[str, NaiveDisk]) -> None:
    match op:
        case (
            Write(node=node, offset=offset, length=length)
            | WriteZeroes(node=node, offset=offset, length=length)
        ):
            fill = op.fill or 0 if isinstance(op, Write) else 0
            disks[node].take(offset, np.full(length, fill, np.uint8))
            disks[node].touch(offset, length)
        case BlockdevSnapshot(node=node, overlay=overlay):
            disks[overlay].base = disks[node]
        case BlockCommit(node=node, base=base, top=None):
            disks[node].commit(disks[base])
        case BlockCommit(node=node, base=base):
            disks[node].commit_below(disks[base])
        case BlockStream(node=node, base=base) if disks[node].base is not None:
            disks[node].stream(disks[base] if base else None)
        case BitmapClear(node=node):
            disks[node].dirty.clear()


LOW = Write(node="drive0", offset=0, length=70_000, fill=1)


@given(
    st.tuples(SIZES, SIZES, SIZES),
    st.tuples(CLUSTERS, CLUSTERS, CLUSTERS),
    histories(),
)
@example((102400, 1024, 4096), (65536, 512, 512), [LOW, SNAPSHOT, ABOVE, COMMIT])
@example(
    (102400, 51200, 102400),
    (512, 4096, 65536),
    [
        *(LOW, SNAPSHOT, ABOVE, Write(node="drive2", offset=60_000, length=1, fill=7)),
        COMMITS[2],
    ],
)
@example((51200, 102400, 102400), (4096, 512, 4096), [LOW, SNAPSHOT, ABOVE, STREAMS[1]])
@example(
    (512, 70144, 70656),
    (512, 4096, 512),
    [SNAPSHOT, WriteZeroes(node="drive1", offset=0, length=70_000), ABOVE, COMMITS[1]],
)
@example(
    (102400, 1024, 102400),
    (512, 512, 4096),
    [Write(node="drive0", offset=90_000, length=512, fill=7), SNAPSHOT, ABOVE, STREAM_ABOVE],
)
@example(
    (102400, 1024, 102400),
    (65536, 512, 512),
    [LOW, SNAPSHOT, Write(node="drive1", offset=0, length=1, fill=7), ABOVE, COMMIT_BELOW],
)
@example(
    (1024, 70144, 70656),
    (512, 4096, 512),
    [LOW, SNAPSHOT, Write(node="drive1", offset=60_000, length=512, fill=7), ABOVE, COMMIT_BELOW],
)
def test_bytes_and_bits(
    sizes: tuple[int, ...], grains: tuple[int, ...], operations: list[Operation]
) -> None:
    world, disks = World(), {}
    for name, size, cluster in zip(DISKS, sizes, grains, strict=True):
        world.apply(AddDisk(node=name, layers=(Layer(size=size, cluster_size=cluster),)))
        world.apply(BitmapAdd(node=name, name="a", granularity=SECTOR))
        disks[name] = NaiveDisk(cluster, np.zeros(size, np.uint8), np.zeros(size, np.bool_))
    for operation in operations:
        try:
            refused = world.apply(operation).refusal is not None
        except InvalidOperationError:
            continue
        if not refused:
            perform(operation, disks)
        for name, node in world.nodes.items():
            disk = disks[name]
            assert set(np.flatnonzero(node.bitmaps["a"].bits).tolist()) == disk.dirty
            contents = world.contents(name)
            assert contents is not None
            assert np.array_equal(contents.render(0, contents.size), disk.view())
            allocated = np.zeros_like(disk.own)
            for start, end in world.images[node.image].allocated:
                allocated[start:end] = True
            assert np.array_equal(allocated, disk.own)


PLAIN = Layer(size=1 << 20)
OVER = AddDisk(node="drive2", layers=(PLAIN,))
SHORT = Layer(size=1 << 19)
WORLD: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(PLAIN,)),
    BitmapAdd(node="drive0", name="a"),
    BitmapAdd(node="drive0", name="kept", persistent=True),
    LOW,
    AddDisk(node="drive1", layers=(PLAIN,)),
)


def world_after(*operations: Operation) -> World:
    world = World()
    for operation in (*WORLD, *operations):
        assert world.apply(operation).refusal is None, operation
    return world


def test_what_is_below_keeps_its_bitmaps_and_is_read_only() -> None:
    world = world_after(SNAPSHOT)
    assert world.nodes["drive0"].read_only
    assert not world.nodes["drive1"].bitmaps
    world.apply(Write(node="drive1", offset=300_000, length=1, fill=7))
    assert world.nodes["drive0"].bitmaps["a"].state.count == 2 * 65536
    assert reason(world, BitmapClear(node="drive0", name="kept")) is Reason.BITMAP_READ_ONLY
    assert reason(world, BitmapClear(node="drive0", name="a")) is None
    assert reason(world, CloseDisk(node="drive0")) is Reason.NODE_IN_USE
    assert reason(world, CloseDisk(node="drive1")) is None
    assert reason(world, ReopenDisk(node="drive0")) is None
    assert reason(world, BitmapClear(node="drive0", name="kept")) is None


def reason(world: World, operation: Operation) -> Reason | None:
    refusal = world.apply(operation).refusal
    return None if refusal is None else refusal.reason


def test_a_snapshot_takes_effect_when_its_transaction_commits() -> None:
    merge = BitmapMerge(
        node="drive1", target="b", sources=(MergeSource(name="kept", node="drive0"),)
    )
    actions = (
        SNAPSHOT,
        BitmapClear(node="drive0", name="kept"),
        BitmapAdd(node="drive1", name="b"),
        merge,
    )
    world = world_after(Transaction(actions=actions))
    assert not world.nodes["drive0"].bitmaps["kept"].state.count
    assert world.images["drive0.0"].stored["kept"].state.count == 0
    undone = world_after()
    assert reason(undone, Transaction(actions=(*actions, Abort()))) is Reason.ABORTED
    assert not undone.nodes["drive0"].read_only
    assert undone.nodes["drive0"].bitmaps["kept"].state.count == 2 * 65536
    assert not undone.overlays("drive0")


def test_a_target_above_a_disk_that_is_written_to_is_not_read() -> None:
    backup = DriveBackup(node="drive1", target="target0", sync="top", job="job0")
    world = world_after()
    assert reason(world, Transaction(actions=(SNAPSHOT, backup))) is Reason.IMAGE_LOCKED
    assert world.images["target0"].backing == "drive0.0"
    assert "target0" not in world.final().contents
    world.apply(CloseDisk(node="drive0"))
    assert "target0" in world.final().contents


def test_an_export_finds_the_bitmaps_of_what_is_below() -> None:
    world = world_after(SNAPSHOT)
    shared = ExportAdd(export="export0", node="drive1", bitmaps=(ExportedBitmap(name="a"),))
    assert reason(world, shared) is None
    assert world.nodes["drive0"].bitmaps["a"].busy
    world.apply(BitmapAdd(node="drive1", name="a", disabled=True))
    again = replace(shared, export="export1")
    assert reason(world, again) is None
    assert world.nodes["drive1"].bitmaps["a"].busy


def test_a_kill_forgets_who_was_above_whom_and_not_what_a_stream_has_copied() -> None:
    world = world_after(SNAPSHOT, STREAMS[0], CloseDisk(node="drive0"))
    world.apply(Restart(how="kill"))
    contents = world.contents("drive1.0")
    assert contents is not None
    assert contents.render(0, 1).tolist() == [1]
    other = world_after(SNAPSHOT)
    other.apply(Restart(how="kill"))
    contents = other.contents("drive1.0")
    assert contents is not None
    assert contents.render(0, 1).tolist() == [0]


def test_a_stream_ends_the_backing_file_in_the_header() -> None:
    pattern = Pattern(offset=0, length=512, fill=3)
    below = Layer(size=1 << 20, data=(pattern,))
    world = world_after(AddDisk(node="drive2", layers=(PLAIN, below)))
    expected = world.apply(BlockStream(job="job0", node="drive2"))
    assert expected.jobs["job0"].length == 1 << 20
    assert expected.jobs["job0"].kind == "stream"
    assert world.images["drive2.0"].backing is None


@pytest.mark.parametrize("leaving", [COMMIT_BELOW, STREAM_ABOVE])
def test_what_is_above_a_layer_that_goes_stands_on_the_base_also_by_its_header(
    leaving: Operation,
) -> None:
    world = world_after(SNAPSHOT, OVER, ABOVE)
    expected = world.apply(leaving)
    assert expected.jobs["job0"].length == 1 << 20
    assert "ready" not in expected.words["job0"]
    assert world.chain_names("drive2.0") == ("drive2.0", "drive0.0")
    assert world.nodes["drive0"].read_only
    assert reason(world, BitmapClear(node="drive0", name="kept")) is Reason.BITMAP_READ_ONLY
    assert reason(world, CloseDisk(node="drive1")) is None
    assert reason(world, CloseDisk(node="drive0")) is Reason.NODE_IN_USE
    for name in ("drive2", "drive0"):
        assert reason(world, CloseDisk(node=name)) is None
    with pytest.raises(InvalidOperationError, match="no name"):
        world.apply(OpenDisk(node="drive2"))


@pytest.mark.parametrize("leaving", [COMMIT_BELOW, STREAM_ABOVE])
def test_a_disk_finds_the_base_that_its_header_names_when_it_is_opened_again(
    leaving: Operation,
) -> None:
    closing = (CloseDisk(node=name) for name in ("drive1", "drive2", "drive0"))
    world = world_after(
        BitmapRemove(node="drive0", name="kept"),
        SNAPSHOT,
        OVER,
        ABOVE,
        leaving,
        *closing,
        OpenDisk(node="drive2"),
    )
    contents = world.contents("drive2")
    assert contents is not None
    assert contents.render(0, 1).tolist() == [1]
    with pytest.raises(InvalidOperationError, match="backing file of drive2"):
        world.apply(OpenDisk(node="drive0"))
    with pytest.raises(InvalidOperationError, match="two nodes"):
        world.apply(OpenDisk(node="drive0", read_only=True))


TWICE = BlockdevSnapshot(node="drive2", overlay="drive1")
PENDING = DriveBackup(node="drive1", target="target0", sync="full", auto_finalize=False)
NAMELESS = BlockdevBackup(node="drive1", target="target0", sync="full", job=None)
COMPRESSED = WriteCompressed(node="drive0", offset=0, length=0, fill=1)
MIGRATE = Migrate(disks=(Opening(node="drive0", read_only=True), Opening(node="drive1")))


@pytest.mark.parametrize(
    ("before", "operation", "due"),
    [
        ((), BlockdevSnapshot(node="drive0", overlay="drive2"), Reason.DEVICE_NOT_FOUND),
        ((SNAPSHOT,), SNAPSHOT, Reason.NODE_IN_USE),
        ((SNAPSHOT,), BlockdevSnapshot(node="drive0", overlay="device0"), Reason.NODE_IN_USE),
        ((SNAPSHOT,), TWICE, Reason.OVERLAY_HAS_BACKING),
        ((), BlockdevSnapshot(node="drive0", overlay="drive2"), Reason.OVERLAY_UNSUPPORTED),
        ((), BlockCommit(job="job0", node="drive2", base="drive0"), Reason.ROOT_NOT_FOUND),
        ((), BlockStream(job="job0", node="drive2"), Reason.DEVICE_NOT_FOUND),
        ((SNAPSHOT,), COMPRESSED, Reason.READ_ONLY),
        ((SNAPSHOT, PENDING), COMPRESSED, Reason.PERMISSION_DENIED),
    ],
)  # fmt: skip
def test_refusals(before: tuple[Operation, ...], operation: Operation, due: Reason) -> None:
    world = world_after(*before)
    if due not in (Reason.DEVICE_NOT_FOUND, Reason.ROOT_NOT_FOUND):
        raw = Layer(size=1 << 20, format="raw")
        world.apply(AddDisk(node="drive2", layers=(raw,)))
    assert reason(world, operation) is due


@pytest.mark.parametrize(
    ("before", "operation"),
    [
        ((SNAPSHOT,), BlockdevBackup(node="drive0", target="target0", sync="full")),
        ((SNAPSHOT, COMMIT), BlockdevBackup(node="drive1", target="target0", sync="full")),
        ((SNAPSHOT, COMMIT), NAMELESS),
        ((SNAPSHOT, COMMIT), BlockStream(job="job0", node="drive1")),
        ((SNAPSHOT, COMMIT), Resize(node="drive0", size=512)),
        ((SNAPSHOT, ExportAdd(export="export0", node="drive0")), Resize(node="drive0", size=512)),
        ((SNAPSHOT,), BlockStream(job="job0", node="drive0")),
        ((SNAPSHOT,), ReopenDisk(node="drive0")),
        ((SNAPSHOT,), MIGRATE),
        ((ExportAdd(export="export0", node="drive0"),), SNAPSHOT),
        ((ExportAdd(export="export0", node="drive1"),), SNAPSHOT),
        ((CloseDisk(node="drive0"), OpenDisk(node="drive0", drive="device0")), SNAPSHOT),
        ((), COMMIT),
        ((SNAPSHOT,), BlockStream(job="job0", node="drive1", base="drive0")),
        ((SNAPSHOT,), BlockStream(job="job0", node="drive1", base="drive2")),
        ((SNAPSHOT,), replace(COMMIT, top="drive0")),
        ((SNAPSHOT,), replace(COMMIT, top="drive1")),
        ((SNAPSHOT, OVER, ABOVE, COMMIT_BELOW), COMMITS[2]),
        ((SNAPSHOT, OVER, ABOVE, COMMIT_BELOW), replace(COMMITS[2], between=())),
    ],
)  # fmt: skip
def test_what_is_not_judged(before: tuple[Operation, ...], operation: Operation) -> None:
    world = world_after(CreateImage(image="target0", layer=PLAIN), *before)
    with pytest.raises(InvalidOperationError):
        world.apply(operation)


def test_a_commit_in_units_too_many_to_wait_for_is_not_judged() -> None:
    world = World()
    small, huge = Layer(size=1 << 20, cluster_size=4096), Layer(size=1 << 43, cluster_size=1 << 21)
    for operation in (
        AddDisk(node="drive0", layers=(small,)),
        AddDisk(node="drive1", layers=(huge,)),
        SNAPSHOT,
    ):
        world.apply(operation)
    with pytest.raises(InvalidOperationError, match="units"):
        world.apply(COMMIT)


@pytest.mark.parametrize(("cluster", "followed"), [(512, False), (65536, True)])
def test_more_pieces_than_can_be_followed_are_not_judged(cluster: int, followed: bool) -> None:  # noqa: FBT001
    size = 1 << 25
    data = (Pattern(offset=0, length=size // 2, fill=1),)
    layers = (Layer(size=size, cluster_size=cluster), Layer(size=size, data=data))
    world = World()
    world.apply(AddDisk(node="drive0", layers=layers))
    stream = BlockStream(job="job0", node="drive0")
    if followed:
        assert world.apply(stream).refusal is None
        return
    with pytest.raises(InvalidOperationError, match="followed"):
        world.apply(stream)


@pytest.mark.parametrize("operation", [COMMIT_BELOW, STREAM_ABOVE])
def test_what_a_layer_had_hidden_is_not_followed_over_more_pieces(operation: Operation) -> None:
    world, huge = World(), Layer(size=1 << 40, cluster_size=4096)
    below = Layer(size=1 << 40, data=(Pattern(offset=1 << 39, length=512, fill=1),))
    for each in (
        AddDisk(node="drive0", layers=(below,)),
        AddDisk(node="drive1", layers=(Layer(size=65536),)),
        AddDisk(node="drive2", layers=(huge,)),
        SNAPSHOT,
        ABOVE,
    ):
        assert world.apply(each).refusal is None
    with pytest.raises(InvalidOperationError, match="followed"):
        world.apply(operation)
