"""Bitmaps in exports: the model beside the naive World, and against cases worked out by hand."""

import pytest
from hypothesis import given
from tests.model.compare import checked, compare
from tests.model.strategies import export_sequences

from qbprop_model.expectation import Expectation, Reason
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockdevBackup,
    CloseDisk,
    CreateImage,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    InvalidOperationError,
    JobCancel,
    Layer,
    MergeSource,
    OpenDisk,
    OpenOutcomeError,
    Operation,
    ReadDirtyExtents,
    Resize,
    Transaction,
    Write,
)
from qbprop_model.world import World

KIB = 1024
SIZE = 256 * KIB


@checked(150)
@given(export_sequences())
def test_exports_go_as_in_the_naive_world(operations: list[Operation]) -> None:
    compare(operations)


def after(*operations: Operation) -> World:
    """A World of two disks with an enabled and a disabled bitmap each, behind some operations."""
    world = World()
    for node in ("drive0", "drive1"):
        for made in (
            AddDisk(node=node, layers=(Layer(size=SIZE),), drive=f"device{node[-1]}"),
            BitmapAdd(node=node, name="on", granularity=64 * KIB),
            BitmapAdd(node=node, name="off", granularity=64 * KIB, disabled=True),
        ):
            assert world.apply(made).refusal is None
    for operation in operations:
        assert world.apply(operation).refusal is None
    return world


def export(*bitmaps: str | ExportedBitmap, slot: int = 0, node: str = "drive0") -> ExportAdd:
    wanted = tuple(ExportedBitmap(name=b) if isinstance(b, str) else b for b in bitmaps)
    return ExportAdd(export=f"export{slot}", node=node, bitmaps=wanted, writable=True)


def ask(bitmap: str, offset: int = 0, length: int = SIZE) -> ReadDirtyExtents:
    return ReadDirtyExtents(export="export0", bitmap=bitmap, offset=offset, length=length)


def reason(expected: Expectation) -> Reason | None:
    return None if expected.refusal is None else expected.refusal.reason


def write(offset: int, length: int, node: str = "drive0") -> Write:
    return Write(node=node, offset=offset, length=length, fill=1)


@pytest.mark.parametrize(
    "operation",
    [
        BitmapRemove(node="drive0", name="on"),
        BitmapClear(node="drive0", name="on"),
        BitmapEnable(node="drive0", name="on"),
        BitmapDisable(node="drive0", name="on"),
        BitmapMerge(node="drive0", target="on", sources=(MergeSource(name="off"),)),
        BitmapMerge(node="drive0", target="off", sources=(MergeSource(name="on"),)),
        Transaction(actions=(BitmapClear(node="drive0", name="on"),)),
        BlockdevBackup(node="drive0", target="target0", sync="incremental", bitmap="on"),
        export("on", slot=1),
        export(ExportedBitmap(name="on", node="device0"), slot=1, node="drive1"),
    ],
)
def test_an_exported_bitmap_is_busy_until_its_export_is_gone(operation: Operation) -> None:
    target = CreateImage(image="target0", layer=Layer(size=SIZE))
    world = after(target, export("on"))
    assert reason(world.apply(operation)) is Reason.BITMAP_BUSY
    assert world.apply(ExportDel(export="export0")).refusal is None
    assert world.apply(operation).refusal is None


def test_it_records_meanwhile_and_clients_see_that() -> None:
    world = after(export("on", "off"))
    expected = world.apply(write(64 * KIB - 1, 2))
    assert expected.bitmaps["drive0"]["on"].busy
    assert expected.bitmaps["drive0"]["on"].count == 128 * KIB
    assert world.apply(ask("on")).extents == ((0, 128 * KIB),)
    assert world.apply(ask("off")).extents == ()
    assert world.apply(ask("on", 70 * KIB, 100 * KIB)).extents == ((70 * KIB, 128 * KIB),)


def test_what_clients_are_told_ends_with_the_disk() -> None:
    world = after(
        AddDisk(node="drive2", layers=(Layer(size=512),)),
        BitmapAdd(node="drive2", name="b", granularity=64 * KIB),
        export("b", node="drive2"),
        write(0, 1, node="drive2"),
    )
    assert world.apply(ask("b", 0, 512)).extents == ((0, 512),)


@pytest.mark.parametrize(
    ("operation", "due"),
    [
        (ask("on", SIZE, 1), Reason.PAST_END),
        (ask("on", 1, 0), Reason.EMPTY_RANGE),
        (ask("none"), Reason.NO_SUCH_CONTEXT),
    ],
)
def test_a_client_that_asked_in_vain_is_connected_too(
    operation: ReadDirtyExtents, due: Reason
) -> None:
    world = after(export("on"))
    assert reason(world.apply(operation)) is due
    assert reason(world.apply(ExportDel(export="export0"))) is Reason.EXPORT_IN_USE
    assert world.apply(ExportDel(export="export0", mode="hard")).refusal is None
    assert reason(world.apply(ask("on"))) is Reason.NO_SUCH_EXPORT


def test_a_filter_above_a_read_only_disk_is_none() -> None:
    world = after(
        CloseDisk(node="device0"),
        OpenDisk(node="drive0", read_only=True),
        BitmapAdd(node="drive0", name="disk"),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        BlockdevBackup(node="drive0", target="target0", sync="none", filter="filter0"),
        BitmapAdd(node="filter0", name="filter"),
    )

    def exported(name: str) -> Reason | None:
        wanted = (ExportedBitmap(name=name),)
        add = ExportAdd(export="export0", node="filter0", bitmaps=wanted)
        return reason(world.copy().apply(add))

    assert exported("disk") is None
    assert exported("filter") is Reason.EXPORT_READ_ONLY


def test_a_read_only_export_wants_bitmaps_that_do_not_record_unless_named_by_node() -> None:
    for wanted, due in (
        (ExportedBitmap(name="on"), Reason.EXPORT_READ_ONLY),
        (ExportedBitmap(name="off"), None),
        (ExportedBitmap(name="on", node="drive0"), None),
    ):
        operation = ExportAdd(export="export0", node="drive0", bitmaps=(wanted,))
        assert reason(after().apply(operation)) is due


def test_a_refused_export_leaves_no_bitmap_busy() -> None:
    world = after()
    expected = world.apply(export("on", "off", "none"))
    assert reason(expected) is Reason.EXPORT_BITMAP_NOT_FOUND
    assert not any(state.busy for state in expected.bitmaps["drive0"].values())


def test_a_bitmap_may_be_listed_twice_but_two_of_one_name_cannot_be_asked_for() -> None:
    assert after(export("on", "on")).apply(ask("on")).extents == ()
    both = after(export("on", ExportedBitmap(name="on", node="drive1")))
    with pytest.raises(OpenOutcomeError):
        both.apply(ask("on"))


def test_an_exported_disk_keeps_its_size_and_so_does_that_of_a_bitmap_far_away() -> None:
    world = after(export(ExportedBitmap(name="on", node="drive1")))
    for node, due in (("drive0", Reason.PERMISSION_DENIED), ("drive1", Reason.BITMAP_BUSY)):
        assert reason(world.apply(Resize(node=node, size=2 * SIZE))) is due
    assert reason(world.apply(Resize(node="drive1", size=100))) is Reason.SIZE_NOT_ALIGNED


def test_whether_a_stored_bitmap_or_its_size_stops_a_resize_is_open() -> None:
    far = export(ExportedBitmap(name="stored", node="drive1"))
    again = (CloseDisk(node="device1"), OpenDisk(node="drive1"))
    stored = BitmapAdd(node="drive1", name="stored", persistent=True)
    endless = Resize(node="drive1", size=1 << 52)
    assert reason(after(stored, far).apply(endless)) is Reason.SIZE_TOO_LARGE
    with pytest.raises(OpenOutcomeError):
        after(stored, *again, far).apply(endless)


def test_a_bitmap_far_away_of_a_shorter_disk_is_clean_beyond_that() -> None:
    world = after(
        AddDisk(node="drive2", layers=(Layer(size=80 * KIB),)),
        BitmapAdd(node="drive2", name="b", granularity=64 * KIB),
        export(ExportedBitmap(name="b", node="drive2")),
        write(70 * KIB, 1, node="drive2"),
    )
    assert world.apply(ask("b")).extents == ((64 * KIB, 80 * KIB),)


def held(*operations: Operation) -> World:
    """A backup of drive0 with bitmap "on" is pending below filter0; then some operations."""
    return after(
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        BlockdevBackup(
            node="drive0", target="target0", sync="incremental", bitmap="on",
            auto_finalize=False, filter="filter0",
        ),
        BitmapAdd(node="drive0", name="more"),
        BitmapAdd(node="filter0", name="above"),
        *operations,
    )  # fmt: skip


def test_a_bitmap_is_found_below_a_filter_where_alone_guests_may_write() -> None:
    world = held()
    assert reason(world.apply(export("more"))) is Reason.PERMISSION_DENIED
    assert reason(world.apply(export("on", node="filter0"))) is Reason.BITMAP_BUSY
    assert world.apply(export("more", "above", node="filter0")).refusal is None
    world.apply(write(0, 1))
    assert world.apply(ask("more")).extents == ((0, 64 * KIB),)


def test_the_bitmap_of_a_job_does_not_record_so_that_it_is_busy_for_readers_first() -> None:
    wanted = (ExportedBitmap(name="on"),)
    read_only = ExportAdd(export="export0", node="drive0", bitmaps=wanted)
    assert reason(held().apply(read_only)) is Reason.BITMAP_BUSY


def test_an_export_of_a_filter_outlives_the_job_but_not_the_filters_bitmaps() -> None:
    world = held(export("more", node="filter0"), JobCancel(job="job0"))
    assert world.apply(ask("more")).extents == ()
    assert reason(world.apply(Resize(node="drive0", size=0))) is Reason.PERMISSION_DENIED
    world = held(export("above", "more", node="filter0"), JobCancel(job="job0"))
    with pytest.raises(OpenOutcomeError):
        world.apply(ask("more"))
    expected = world.apply(ExportDel(export="export0", mode="hard"))
    assert not any(state.busy for state in expected.bitmaps["drive0"].values())


def test_ids_and_names() -> None:
    world = after(export("on"))
    for operation, due in (
        (export(slot=0), Reason.EXPORT_ID_TAKEN),
        (ExportAdd(export="", node="drive0"), Reason.EXPORT_ID_INVALID),
        (export(slot=1, node="device0"), Reason.EXPORT_NODE_NOT_FOUND),
        (ExportAdd(export="export1", node="drive0", name="export0"), Reason.EXPORT_NAME_TAKEN),
        (ExportDel(export="export1"), Reason.EXPORT_NOT_FOUND),
    ):
        assert reason(world.apply(operation)) is due
    with pytest.raises(InvalidOperationError):
        world.apply(ExportAdd(export="export1", node="drive0", name="export2"))
