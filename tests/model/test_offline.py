"""What ``qemu-img`` copies of disks that are closed: commits, conversions, comparisons."""

from dataclasses import replace

import pytest

from qbprop_model.expectation import Reason, Refusal
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapRemove,
    BlockCommit,
    BlockdevSnapshot,
    ChangeBitmap,
    CloseDisk,
    CommitImage,
    CompareImages,
    ConvertImage,
    Flush,
    InvalidOperationError,
    Layer,
    OfflineAction,
    OpenDisk,
    OpenOutcomeError,
    Operation,
    Pattern,
    Restart,
    Write,
)
from qbprop_model.traits import Traits
from qbprop_model.world import World

SIZE = 3 * 65536 + 512
PATTERN = Pattern(offset=1000, length=2000, fill=3)
CHAIN = AddDisk(node="drive0", layers=(Layer(size=SIZE), Layer(size=65536, data=(PATTERN,))))


def after(*operations: Operation, traits: Traits | None = None) -> World:
    """A World behind some operations, none of which is refused."""
    world = World(traits=traits)
    for operation in operations:
        assert world.apply(operation).refusal is None, operation
    return world


def bytes_of(world: World, name: str) -> bytes:
    """All that a disk or an image shows."""
    view = world.contents(name)
    assert view is not None
    return view.render(0, view.size).tobytes()


@pytest.mark.parametrize("keep", [False, True])
def test_a_closed_disk_is_committed_and_empty_unless_it_keeps_what_it_has(keep: bool) -> None:  # noqa: FBT001
    write = Write(node="drive0", offset=SIZE - 600, length=600, fill=7)
    world = after(CHAIN, write, CloseDisk(node="drive0"))
    before = bytes_of(world, "drive0.0")
    assert world.apply(CommitImage(node="drive0", keep=keep)).refusal is None
    assert bytes_of(world, "drive0.0") == bytes_of(world, "drive0.1") == before
    assert bool(world.images["drive0.0"].allocated) == keep


def test_a_commit_of_a_closed_disk_is_dirty_in_its_base_by_units_of_64_kib() -> None:
    """Tried on 5.2, 7.2, 10.0 and 11.1: the base's bitmaps get bits, those of the disk none."""
    size = 4 * 65536
    world = after(
        AddDisk(node="drive0", layers=(Layer(size=size),)),
        BitmapAdd(node="drive0", name="a", granularity=512, persistent=True),
        BitmapAdd(node="drive0", name="off", disabled=True, persistent=True),
        *(AddDisk(node=f"drive{n}", layers=(Layer(size=size),)) for n in (1, 2)),
        BlockdevSnapshot(node="drive0", overlay="drive1"),
        BlockdevSnapshot(node="drive1", overlay="drive2"),
        BlockCommit(job="job0", node="drive2", top="drive1", base="drive0"),
        BitmapAdd(node="drive2", name="b", granularity=512, persistent=True),
        Write(node="drive2", offset=70_000, length=1, fill=1),
        *(CloseDisk(node=f"drive{n}") for n in (2, 1, 0)),
        CommitImage(node="drive2"),
    )
    shown = world.apply(OpenDisk(node="drive0", read_only=True)).bitmaps["drive0"]
    assert {name: each.count for name, each in shown.items()} == {"a": 65536, "off": 0}
    assert world.images["drive2.0"].stored["b"].state.count == 512


def test_a_disk_is_converted_with_its_bitmaps() -> None:
    world = after(
        CHAIN,
        BitmapAdd(node="drive0", name="a", granularity=512, persistent=True),
        Write(node="drive0", offset=1, length=1, fill=1),
        BitmapAdd(node="drive0", name="b", disabled=True, persistent=True),
        BitmapAdd(node="drive0", name="c"),
        CloseDisk(node="drive0"),
        ConvertImage(node="drive0", into="drive1", cluster_size=4096, bitmaps=True),
        ConvertImage(node="drive0", into="drive2"),
        *(CompareImages(node="drive0", other=f"drive{n}") for n in (1, 2)),
    )
    image = world.images["drive1.0"]
    assert (image.cluster_size, image.backing, image.allocated) == (4096, None, ((0, SIZE),))
    assert bytes_of(world, "drive1.0") == bytes_of(world, "drive0.0")
    before = world.apply(OpenDisk(node="drive0")).bitmaps["drive0"]
    assert world.apply(OpenDisk(node="drive1")).bitmaps["drive1"] == before
    assert before["a"].count == 512
    assert not world.apply(OpenDisk(node="drive2")).bitmaps["drive2"]


def test_inconsistent_bitmaps_are_converted_by_no_one() -> None:
    convert = ConvertImage(node="drive0", into="drive1", bitmaps=True)
    lost = (
        CHAIN,
        *(BitmapAdd(node="drive0", name=name, persistent=True) for name in ("a", "b")),
        CloseDisk(node="drive0"),
        OpenDisk(node="drive0"),
        BitmapRemove(node="drive0", name="b"),
        Flush(node="drive0"),
        Restart(how="kill"),
        ChangeBitmap(node="drive0", name="b", actions=(OfflineAction(kind="add"),)),
    )
    world = after(*lost)
    assert world.apply(convert).refusal == Refusal(Reason.BITMAP_INCONSISTENT, "a")
    assert "drive1.0" not in world.images
    assert world.apply(replace(convert, skip_broken=True)).refusal is None
    assert list(world.images["drive1.0"].stored) == ["b"]
    with pytest.raises(OpenOutcomeError):
        after(*lost, convert, traits=Traits(skip_broken_bitmaps=False))


@pytest.mark.parametrize(("size", "same"), [(SIZE, False), (SIZE + 512, False), (SIZE, True)])
def test_images_are_alike_where_what_is_longer_is_zero(size: int, same: bool) -> None:  # noqa: FBT001
    world = after(
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        AddDisk(node="drive1", layers=(Layer(size=size if not same else size + 512),)),
        Write(node="drive1", offset=size - 1, length=1, fill=0 if same else 1),
        CloseDisk(node="drive0"),
        CloseDisk(node="drive1"),
    )
    refusal = world.apply(CompareImages(node="drive0", other="drive1")).refusal
    assert refusal == (None if same else Refusal(Reason.IMAGES_DIFFER))


def test_what_qemu_has_open_is_not_read_by_programs() -> None:
    used = ConvertImage(node="drive0", into="drive2")
    taken = ConvertImage(node="drive0", into="drive1")
    other = AddDisk(node="drive1", layers=(Layer(size=SIZE),))
    for operations, operation in (
        ((CHAIN,), used),
        ((CHAIN, CloseDisk(node="drive0"), other), taken),
        ((CHAIN, CloseDisk(node="drive0"), other), CompareImages(node="drive0", other="drive1")),
    ):
        with pytest.raises(InvalidOperationError):
            after(*operations, operation)
