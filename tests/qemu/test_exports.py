"""Bitmaps in NBD exports on a real QEMU, as the driver sees them and as the model judges."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest

from qbprop.findings import DirtySetFinding
from qbprop.lab import Lab
from qbprop.qemu import guest_nbd
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.driver import Driver
from qbprop.qemu.guest_nbd import NbdConnection, Status
from qbprop.qemu.nbd_server import context
from qbprop.qemu.observation import RequestRefused
from qbprop_model import operations as op
from qbprop_model.bitmap import Bitmap
from qbprop_model.expectation import BitmapState
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules

MIB = 1 << 20
KIB = 1024
ODD = "ü\n'\"\\"


@pytest.fixture(params=["nbd", "hmp"])
def driver(request: pytest.FixtureRequest, binaries: Binaries, tmp_path: Path) -> Iterator[Driver]:
    transport: Literal["nbd", "hmp"] = request.param
    with Driver(binaries, tmp_path, transport=transport) as made:
        for each in (
            op.AddDisk(node="drive0", layers=(op.Layer(size=MIB),)),
            op.BitmapAdd(node="drive0", name=ODD, granularity=512),
        ):
            assert made.perform(each).refused is None
        yield made


def export(name: str = ODD, **more: Any) -> op.ExportAdd:
    usual: dict[str, Any] = {"export": "export0", "node": "drive0", "writable": True}
    usual["bitmaps"] = (op.ExportedBitmap(name=name),)
    return op.ExportAdd(**(usual | more))


def write(offset: int, length: int = 512, node: str = "drive0") -> op.Write:
    return op.Write(node=node, offset=offset, length=length, stamp=1)


def ask(offset: int = 0, length: int = MIB, bitmap: str = ODD) -> op.ReadDirtyExtents:
    return op.ReadDirtyExtents(export="export0", bitmap=bitmap, offset=offset, length=length)


def test_a_client_is_told_what_is_dirty_also_of_a_part(driver: Driver) -> None:
    assert driver.perform(export()).refused is None
    for offset in (0, 700, 64 * KIB, MIB - 1):
        driver.perform(write(offset, 1))
    seen = driver.perform(ask())
    assert seen.extents == ((0, 1024), (64 * KIB, 64 * KIB + 512), (MIB - 512, MIB))
    assert driver.perform(ask(100, 64 * KIB)).extents == ((100, 1024), (64 * KIB, 64 * KIB + 100))
    assert seen.bitmaps is None


def test_a_client_asks_on_until_all_is_told(driver: Driver) -> None:
    driver.perform(export())
    driver.perform(write(90_000, 100_000))
    driver.perform(write(MIB - 1, 1))
    limit = 50_000
    assert MIB // limit > guest_nbd.STATUS_AHEAD
    with mock.patch.object(guest_nbd, "STATUS_LIMIT", limit):
        assert driver.perform(ask()).extents == ((89_600, 190_464), (MIB - 512, MIB))


@pytest.mark.parametrize(
    ("told", "due"),
    [
        ([[(4, 1)], [(2, 1), (1, 0)], [(9, 1)]], ((0, 6), (7, 10))),
        ([[(3, 0), (7, 3)]], ((3, 10),)),
        ([[(10, 2)]], ()),
    ],
)
def test_replies_that_tell_less_or_more_than_was_asked(
    told: list[list[tuple[int, int]]], due: Ranges
) -> None:
    asked, extents = replied(told)
    assert extents == due
    position = 0
    for question, reply in zip(asked, told, strict=True):
        assert question == (position, 10)
        position += sum(length for length, _ in reply)


def test_a_reply_that_tells_nothing_is_no_answer() -> None:
    with pytest.raises(RequestRefused, match="no status of byte 0"):
        replied([[]])


def replied(told: list[list[tuple[int, int]]]) -> tuple[list[tuple[int, int]], Ranges]:
    """What is asked for ten bytes, as (start, end), and what comes of such answers."""
    asked: list[tuple[int, int]] = []

    def ask(_context: str, start: int, end: int) -> Status:
        asked.append((start, end))
        return Status(start, end, 0, [])

    connection = object.__new__(NbdConnection)
    with (
        mock.patch.object(connection, "_ask", ask),
        mock.patch.object(connection, "_told", side_effect=told),
    ):
        return asked, connection.dirty_extents("c", 0, 10)


def test_an_export_keeps_its_bitmap_busy_and_is_gone_when_it_is_deleted(driver: Driver) -> None:
    busy = BitmapState(512, 512, busy=True)
    driver.perform(export())
    assert driver.perform(write(0)).bitmaps == {"drive0": {ODD: busy}}
    driver.perform(ask())
    refused = driver.perform(op.ExportDel(export="export0")).refused
    assert refused is not None
    assert "still in use" in refused.text
    seen = driver.perform(op.ExportDel(export="export0", mode="hard"))
    assert (seen.refused, seen.events) == (None, ())
    assert seen.bitmaps == {"drive0": {ODD: BitmapState(512, 512)}}
    driver.perform(export())
    assert driver.perform(ask()).extents == ((0, 512),)


def test_a_reset_deletes_exports_below_and_beside_jobs(driver: Driver) -> None:
    for each in (
        export(),
        ask(),
        op.CreateImage(image="target0", layer=op.Layer(size=MIB)),
        op.BlockdevBackup(
            node="drive0", target="target0", sync="full", auto_finalize=False, filter="filter0"
        ),
        export(export="export1", node="filter0", bitmaps=()),
    ):
        rests = {"job0": "pending"} if isinstance(each, op.BlockdevBackup) else None
        assert driver.perform(each, rests=rests).refused is None
    driver.reset()
    assert driver.launches == 1
    assert driver.observe().bitmaps == {}


def test_without_libnbd_no_client_can_ask(driver: Driver) -> None:
    assert driver.can_perform(ask())
    with mock.patch("importlib.util.find_spec", return_value=None):
        assert not driver.can_perform(ask())
        assert driver.can_perform(export())


def test_what_the_driver_cannot_do_is_left_out(binaries: Binaries) -> None:
    with Lab(binaries).session() as session:
        session.begin()
        with (
            mock.patch("importlib.util.find_spec", return_value=None),
            pytest.raises(op.InvalidOperationError, match="needs another QEMU, or libnbd"),
        ):
            session.step(ask())
        assert session.trace == []
        assert session.step(ask()).expected.refusal is not None


class TellsTheFirstCluster(Rules):
    def extents(self, bitmap: Bitmap, size: int, offset: int, length: int) -> Ranges:
        return super().extents(bitmap, size, offset, length)[:1]


def test_extents_that_differ_are_a_finding_that_names_them(binaries: Binaries) -> None:
    with Lab(binaries).session(TellsTheFirstCluster()) as session:
        session.begin()
        for each in (
            op.AddDisk(node="drive0", layers=(op.Layer(size=MIB),)),
            op.BitmapAdd(node="drive0", name=ODD, granularity=512),
            export(),
            write(0),
            ask(),
            write(4096),
        ):
            session.step(each)
        with pytest.raises(DirtySetFinding) as found:
            session.step(ask())
    assert found.value.title == "dirty-set after read_dirty_extents: extents"
    assert found.value.observed.endswith("dirty, but should be clean: 4096–4608")


def job(number: int, **more: Any) -> op.BlockdevBackup:
    common: dict[str, Any] = {"node": "drive0", "target": f"target{number}", "job": f"job{number}"}
    held: dict[str, Any] = {"sync": "incremental", "bitmap": "b", "speed": 1}
    held |= {"max_workers": 1, "max_chunk": 65536}
    return op.BlockdevBackup(**(held | common | more))


def named(name: str, node: str | None = None) -> tuple[op.ExportedBitmap]:
    return (op.ExportedBitmap(name=name, node=node),)


STORY: list[op.Operation] = [
    op.AddDisk(node="drive0", layers=(op.Layer(size=MIB + 512),), drive="device0"),
    op.AddDisk(node="drive1", layers=(op.Layer(size=64 * KIB, format="raw"),)),
    op.BitmapAdd(node="drive0", name="b", granularity=4096),
    op.BitmapAdd(node="drive0", name="c", granularity=1 << 31),
    op.BitmapAdd(node="drive0", name="off", disabled=True),
    op.BitmapAdd(node="drive1", name="c", granularity=512),
    op.CreateImage(image="target0", layer=op.Layer(size=MIB + 512)),
    export("c"),
    op.ExportAdd(export="export1", node="drive0", bitmaps=named("off")),
    op.ExportAdd(export="export2", node="drive0", bitmaps=named("c", "drive1")),
    write(100, 300_000),
    write(60 * KIB, 4096, "drive1"),
    ask(MIB, 512, "c"),
    op.ReadDirtyExtents(export="export2", bitmap="c", offset=0, length=MIB + 512),
    job(0, filter="filter0"),
    write(MIB, 512),
    ask(0, MIB + 512, "c"),
    export("b", export="export2"),
    op.ExportDel(export="export2"),
    op.ExportDel(export="export2", mode="hard"),
    op.ExportAdd(export="export2", node="filter0", bitmaps=named("c", "drive1"), writable=True),
    op.ExportAdd(export="export1", node="filter0", bitmaps=named("off"), writable=True),
    op.ExportDel(export="export1"),
    op.ExportAdd(export="export1", node="filter0", bitmaps=named("off"), writable=True),
    op.Resize(node="drive0", size=MIB),
    op.JobSetSpeed(job="job0"),
    op.Resize(node="drive0", size=MIB),
    op.ReadDirtyExtents(export="export1", bitmap="off", offset=0, length=MIB + 512),
    op.ReadDirtyExtents(export="export2", bitmap="c", offset=60 * KIB, length=900 * KIB),
    op.Transaction(
        actions=(
            op.BitmapClear(node="drive0", name="b"),
            op.BitmapMerge(
                node="drive0", target="b", sources=(op.MergeSource(name="c"),)
            ),
        )
    ),
    op.ExportDel(export="export0", mode="hard"),
    op.ExportDel(export="export1", mode="hard"),
    op.ExportDel(export="export2", mode="hard"),
    op.Resize(node="drive0", size=MIB),
    export("c"),
    ask(0, MIB, "c"),
]  # fmt: skip
"""Exports beside jobs, of filters, of bitmaps far away; of a disk that was resized between."""


@pytest.mark.needs("blockdev_backup_x_perf")
@pytest.mark.parametrize("transport", ["nbd", "hmp"])
def test_a_story_of_exports_goes_as_the_model_says(
    binaries: Binaries, transport: Literal["nbd", "hmp"]
) -> None:
    with Lab(binaries, transport=transport).session() as session:
        session.begin()
        refusals = [session.step(each).expected.refusal for each in STORY]
        session.finish()
    assert [number for number, each in enumerate(refusals) if each] == [17, 18, 21, 24, 26, 29]


def test_two_contexts_of_one_export(binaries: Binaries, tmp_path: Path) -> None:
    """A client for each bitmap: both are told their own."""
    with Driver(binaries, tmp_path) as driver:
        for each in (
            op.AddDisk(node="drive0", layers=(op.Layer(size=MIB),)),
            op.BitmapAdd(node="drive0", name="fine", granularity=512),
            op.BitmapAdd(node="drive0", name="coarse", granularity=65536),
            export("fine", bitmaps=(op.ExportedBitmap(name="fine"), *named("coarse"))),
            write(0, 1),
        ):
            assert driver.perform(each).refused is None
        assert driver.perform(ask(bitmap="fine")).extents == ((0, 512),)
        assert driver.perform(ask(bitmap="coarse")).extents == ((0, 65536),)
    assert context("fine") == "qemu:dirty-bitmap:fine"
