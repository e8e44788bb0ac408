"""What survives closing, opening and the end of QEMU, against a second, naive implementation."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from qbprop_model.expectation import Expectation, Reason, Refusal
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockdevBackup,
    ChangeBitmap,
    CloseDisk,
    CreateImage,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    Flush,
    Layer,
    MergeSource,
    OfflineAction,
    OpenDisk,
    Operation,
    ReopenDisk,
    ResizeImage,
    Restart,
    Write,
)
from qbprop_model.world import World

SIZE = 5 * 512 + 512
NAMES = st.sampled_from(("a", "b"))
OPERATIONS = st.one_of(
    st.builds(
        BitmapAdd,
        node=st.just("drive0"),
        name=NAMES,
        granularity=st.sampled_from((512, 1024)),
        disabled=st.booleans(),
        persistent=st.booleans(),
    ),
    *(
        st.builds(cls, node=st.just("drive0"), name=NAMES)
        for cls in (BitmapRemove, BitmapClear, BitmapEnable, BitmapDisable)
    ),
    st.builds(
        BitmapMerge,
        node=st.just("drive0"),
        target=NAMES,
        sources=st.tuples(st.builds(MergeSource, name=NAMES)),
    ),
    st.builds(
        Write, node=st.just("drive0"), offset=st.integers(0, 2560), length=st.just(512),
        stamp=st.just(1),
    ),
    st.builds(CloseDisk, node=st.just("drive0")),
    st.builds(OpenDisk, node=st.just("drive0"), read_only=st.booleans()),
    st.builds(ReopenDisk, node=st.just("drive0"), read_only=st.booleans()),
    st.builds(Restart, how=st.sampled_from(("quit", "terminate", "kill"))),
)  # fmt: skip


@dataclass
class NaiveBitmap:
    granularity: int
    recording: bool
    persistent: bool
    dirty: set[int] = field(default_factory=set)
    lost: bool = False
    frozen: bool = False

    def copy(self) -> "NaiveBitmap":
        return NaiveBitmap(**{**self.__dict__, "dirty": set(self.dirty)})


class NaiveDisk:
    """One disk: what is in its file, and what is open. ``apply`` tells the refusal, if any."""

    def __init__(self) -> None:
        self.file: dict[str, NaiveBitmap] = {}
        self.bitmaps: dict[str, NaiveBitmap] = {}
        self.mode = "rw"

    def store(self) -> None:
        if self.mode == "rw":
            self.file = {k: b.copy() for k, b in self.bitmaps.items() if b.persistent}

    def load(self, mode: str) -> None:
        self.mode = mode
        self.bitmaps = {name: bitmap.copy() for name, bitmap in self.file.items()}
        for bitmap in self.bitmaps.values():
            bitmap.frozen = mode == "ro"
            if bitmap.lost:
                bitmap.dirty, bitmap.recording = set(), False
        self.use()

    def use(self) -> None:
        if self.mode == "rw":
            for bitmap in self.file.values():
                bitmap.lost = True

    def apply(self, op: Operation) -> Reason | None:
        if self.mode == "closed" and not isinstance(op, OpenDisk | Restart):
            return {
                Write: Reason.GUEST_NOT_FOUND,
                BitmapAdd: Reason.DEVICE_NOT_FOUND,
                CloseDisk: Reason.NO_NODE_TO_CLOSE,
                ReopenDisk: Reason.NO_NODE_TO_CLOSE,
            }.get(type(op), Reason.NODE_NOT_FOUND)
        match op:
            case OpenDisk():
                if self.mode != "closed":
                    return Reason.NODE_NAME_TAKEN
                self.load("ro" if op.read_only else "rw")
            case CloseDisk():
                self.store()
                self.bitmaps, self.mode = {}, "closed"
            case ReopenDisk():
                if op.read_only:
                    self.store()
                self.mode = "ro" if op.read_only else "rw"
                for bitmap in self.bitmaps.values():
                    bitmap.frozen = op.read_only and bitmap.persistent
                if not op.read_only:
                    self.use()
            case Restart():
                if op.how != "kill":
                    self.store()
                self.bitmaps, self.mode = {}, "closed"
            case Write():
                if self.mode == "ro":
                    return Reason.READ_ONLY
                for bitmap in self.bitmaps.values():
                    if bitmap.recording:
                        g = bitmap.granularity
                        bitmap.dirty |= set(range(op.offset // g, (op.offset + 511) // g + 1))
            case BitmapAdd(name=name, granularity=granularity):
                if name in self.bitmaps:
                    return Reason.BITMAP_EXISTS
                assert granularity is not None
                self.bitmaps[name] = NaiveBitmap(granularity, not op.disabled, op.persistent)
            case _:
                return self.command(op)
        return None

    def command(self, op: Operation) -> Reason | None:
        names = [op.target, op.sources[0].name] if isinstance(op, BitmapMerge) else [op.name]  # type: ignore[attr-defined]
        for name in names:
            if name not in self.bitmaps:
                return Reason.BITMAP_NOT_FOUND
        bitmap = self.bitmaps[names[0]]
        if bitmap.frozen and isinstance(op, BitmapClear | BitmapRemove | BitmapMerge):
            return Reason.BITMAP_READ_ONLY
        if any(self.bitmaps[each].lost for each in names) and not isinstance(op, BitmapRemove):
            return Reason.BITMAP_INCONSISTENT
        match op:
            case BitmapRemove():
                del self.bitmaps[op.name]
                if bitmap.persistent:
                    self.file.pop(op.name, None)
            case BitmapClear():
                bitmap.dirty = set()
            case BitmapEnable() | BitmapDisable():
                bitmap.recording = isinstance(op, BitmapEnable)
            case BitmapMerge():
                source = self.bitmaps[names[1]]
                touched = {
                    n
                    for c in source.dirty
                    for n in range(c * source.granularity, min(SIZE, (c + 1) * source.granularity))
                }
                bitmap.dirty |= {at // bitmap.granularity for at in touched}
        return None


def check(disk: NaiveDisk, world: World, expected: Expectation) -> None:
    shown = expected.bitmaps.get("drive0", {})
    assert {
        name: (b.granularity, len(b.dirty) * b.granularity, b.recording, b.persistent, b.lost)
        for name, b in disk.bitmaps.items()
    } == {
        name: (s.granularity, s.count, s.recording, s.persistent, s.inconsistent)
        for name, s in shown.items()
    }
    for name, bitmap in disk.bitmaps.items():
        bits = world.nodes["drive0"].bitmaps[name].bits
        assert bitmap.dirty == set(map(int, np.flatnonzero(bits)))


@given(st.lists(OPERATIONS, max_size=25))
@example(
    [
        BitmapAdd(node="drive0", name="a", persistent=True, granularity=512),
        Restart(how="quit"),
        OpenDisk(node="drive0"),
        Restart(how="kill"),
        OpenDisk(node="drive0"),
        Restart(how="quit"),
        OpenDisk(node="drive0", read_only=True),
    ]
)
def test_what_survives(operations: list[Operation]) -> None:
    world, disk = World(), NaiveDisk()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=SIZE, cluster_size=512),)))
    for operation in operations:
        if isinstance(operation, BitmapAdd) and operation.persistent and disk.mode == "ro":
            continue
        if operation == Restart(how="kill") and disk.mode == "rw":
            world.apply(Flush(node="drive0"))
        expected = world.apply(operation)
        refused = disk.apply(operation)
        assert (expected.refusal.reason if expected.refusal else None) == refused, operation
        check(disk, world, expected)


def test_a_refused_program_leaves_the_image_as_it_was() -> None:
    world = World()
    merge = OfflineAction(kind="merge", source="a")
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        BitmapAdd(node="drive0", name="a", persistent=True),
        CloseDisk(node="drive0"),
        ResizeImage(node="drive0", size=0),
        ChangeBitmap(node="drive0", name="a", actions=(merge,), source="drive1"),
    ):
        world.apply(operation)
    expected = world.apply(OpenDisk(node="drive0"))
    assert not expected.bitmaps["drive0"]["a"].inconsistent


def test_what_a_program_has_done_before_it_is_refused_stays() -> None:
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=SIZE),)))
    world.apply(CloseDisk(node="drive0"))
    actions = tuple(OfflineAction(kind=kind) for kind in ("add", "disable", "add", "enable"))
    expected = world.apply(ChangeBitmap(node="drive0", name="a", actions=actions))
    assert expected.refusal == Refusal(Reason.BITMAP_EXISTS, "a")
    assert not world.apply(OpenDisk(node="drive0")).bitmaps["drive0"]["a"].recording


def test_an_export_outlives_the_disk_whose_bitmap_it_has() -> None:
    world = World()
    shared = ExportedBitmap(name="a", node="drive1")
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BitmapAdd(node="drive1", name="a"),
        ExportAdd(export="export0", node="drive0", bitmaps=(shared,), writable=True),
        CloseDisk(node="drive1"),
        ExportDel(export="export0"),
    ):
        assert world.apply(operation).refusal is None


def test_what_is_stored_is_in_nobodys_use() -> None:
    world = World()
    far = ExportedBitmap(node="drive0", name="a")
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BitmapAdd(node="drive0", name="a", persistent=True),
        ExportAdd(export="export0", node="drive1", bitmaps=(far,)),
        ReopenDisk(node="drive0", read_only=True),
    ):
        assert world.apply(operation).refusal is None
    assert world.nodes["drive0"].bitmaps["a"].busy
    assert not world.images["drive0.0"].stored["a"].busy


def test_a_read_only_disk_has_no_writable_export_whatever_is_above_it() -> None:
    world = World()
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        ReopenDisk(node="drive0", read_only=True),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        BlockdevBackup(node="drive0", target="target0", sync="none"),
    ):
        assert world.apply(operation).refusal is None
    refused = world.apply(ExportAdd(export="export0", node="drive0", writable=True))
    assert refused.refusal == Refusal(Reason.EXPORT_NOT_WRITABLE)
