"""What is drawn around exports, and how an example lets go of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qbprop.machine.exports import ASKED_LIMIT, closing, exports, refused_export
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BlockdevBackup,
    CreateImage,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    Layer,
    Operation,
    ReadDirtyExtents,
)
from qbprop_model.world import World

SIZE = 192 * 1024


def after(*operations: Operation) -> World:
    world = World()
    for operation in operations:
        assert world.apply(operation).refusal is None
    return world


def exported(*bitmaps: ExportedBitmap, export: str = "export0", node: str = "drive0") -> ExportAdd:
    return ExportAdd(export=export, node=node, bitmaps=bitmaps, writable=True)


TWO_DISKS: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=SIZE),), drive="device0"),
    AddDisk(node="drive1", layers=(Layer(size=512),)),
    BitmapAdd(node="drive0", name="a"),
    BitmapAdd(node="drive0", name="b", disabled=True),
    BitmapAdd(node="drive1", name="a"),
)
IN_USE = exported(ExportedBitmap(name="a"), ExportedBitmap(name="b"))
HELD = (
    CreateImage(image="target0", layer=Layer(size=SIZE)),
    BlockdevBackup(
        node="drive0", target="target0", sync="full", auto_finalize=False, filter="filter0"
    ),
    BitmapAdd(node="filter0", name="c"),
    exported(ExportedBitmap(name="c"), export="export1", node="filter0"),
)
WORLDS = ((), (IN_USE,), HELD, (IN_USE, *HELD))


@settings(deadline=None)
@given(st.data(), st.sampled_from(WORLDS))
def test_whatever_is_drawn_makes_sense_to_the_model(
    data: st.DataObject, more: tuple[Operation, ...]
) -> None:
    world = after(*TWO_DISKS, *more)
    for operation in data.draw(st.composite(exports)(world)):
        world.apply(operation)


@settings(deadline=None)
@given(st.data(), st.sampled_from(WORLDS))
def test_what_is_drawn_to_be_refused_is_refused(
    data: st.DataObject, more: tuple[Operation, ...]
) -> None:
    world = after(*TWO_DISKS, *more)
    drawn = data.draw(st.composite(refused_export)(world))
    assert world.apply(drawn).refusal is not None, drawn


def test_an_example_ends_with_every_exported_bitmap_read_and_filters_free() -> None:
    world = after(*TWO_DISKS, IN_USE, *HELD)
    assert list(closing(world)) == [
        ReadDirtyExtents(export="export0", bitmap="a", offset=0, length=SIZE),
        ReadDirtyExtents(export="export0", bitmap="b", offset=0, length=SIZE),
        ReadDirtyExtents(export="export1", bitmap="c", offset=0, length=SIZE),
        ExportDel(export="export1", mode="hard"),
    ]


def test_two_bitmaps_of_one_name_are_not_asked_for_and_huge_disks_at_their_ends() -> None:
    size = 1 << 40
    world = after(
        *TWO_DISKS,
        AddDisk(node="drive2", layers=(Layer(size=size),)),
        BitmapAdd(node="drive2", name="h"),
        exported(ExportedBitmap(name="a"), ExportedBitmap(name="a", node="drive1")),
        exported(ExportedBitmap(name="h"), export="export2", node="drive2"),
    )
    assert list(closing(world)) == [
        ReadDirtyExtents(export="export2", bitmap="h", offset=0, length=ASKED_LIMIT),
        ReadDirtyExtents(
            export="export2", bitmap="h", offset=size - ASKED_LIMIT, length=ASKED_LIMIT
        ),
    ]
