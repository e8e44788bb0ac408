import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.qemu.arrays import Pieces

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.contents import Difference
from qbprop.qemu.driver import Driver
from qbprop.qemu.monitor import Command, QemuDied, QemuSilent
from qbprop.qemu.observation import Refused
from qbprop_model import operations as op
from qbprop_model.data import Bytes, Stamp
from qbprop_model.expectation import BitmapState

MIB = 1 << 20
CLEAN_64K_OF_1M = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
"""The SHA-256 of one 64-bit word of zeroes."""


@pytest.fixture(scope="module", params=["nbd", "hmp"])
def module_driver(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    transport: Literal["nbd", "hmp"] = request.param
    folder = tmp_path_factory.mktemp("qemu")
    with Driver(binaries, folder, transport=transport) as made:
        yield made


@pytest.fixture
def driver(module_driver: Driver) -> Driver:
    module_driver.reset()
    return module_driver


def add_disk(driver: Driver, node: str = "drive0", size: int = MIB, **more: Any) -> None:
    layers = more.pop("layers", (op.Layer(size=size),))
    assert driver.perform(op.AddDisk(node=node, layers=layers, **more)).refused is None


def problems_of(driver: Driver, *images: str) -> dict[str, str]:
    with driver.checking_images(images) as problems:
        return problems()


def statuses(events: tuple[Any, ...], job: str) -> list[str]:
    return [
        event.data["status"]
        for event in events
        if event.name == "JOB_STATUS_CHANGE" and event.data["id"] == job
    ]


def test_a_write_is_seen_in_bitmap_digest_and_data(driver: Driver) -> None:
    add_disk(driver)
    key = ("drive0", "bitmap0")
    seen = driver.perform(op.BitmapAdd(node="drive0", name="bitmap0"), [key])
    assert seen.bitmaps == {"drive0": {"bitmap0": BitmapState(65536, 0)}}
    assert seen.digests == {key: CLEAN_64K_OF_1M}
    seen = driver.perform(op.Write(node="drive0", offset=65535, length=2, stamp=7), [key])
    assert seen.bitmaps == {"drive0": {"bitmap0": BitmapState(65536, 131072)}}
    assert seen.digests[key] not in {None, CLEAN_64K_OF_1M}
    assert (seen.refused, seen.events, seen.anonymous, seen.aftermath) == (None, (), (), ())
    assert (seen.jobs, seen.other_nodes, seen.stderr) == (None, (), "")
    assert seen.sizes == {"drive0": MIB}
    seen = driver.perform(op.Read(node="drive0", offset=65535, length=2))
    assert seen.data is not None
    assert seen.data.tobytes() == Stamp(7).render(65535, 2).tobytes()
    assert seen.bitmaps is None


def test_a_plain_read_asks_nothing_else(driver: Driver) -> None:
    add_disk(driver)
    driver.perform(op.Read(node="drive0", offset=0, length=1))
    before = driver.round_trips
    driver.perform(op.Read(node="drive0", offset=0, length=1))
    assert driver.round_trips - before == (0 if driver.transport == "nbd" else 1)


def test_a_state_that_qemu_does_not_tell_is_observed_as_refused(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_disk(driver)
    monkeypatch.setattr(
        "qbprop.qemu.driver.NODES_QUERY", Command("query-named-block-nodes", {"flat": "no"})
    )
    seen = driver.perform(op.Write(node="drive0", offset=0, length=1, stamp=1))
    assert seen.bitmaps is None
    (refused,) = seen.aftermath
    assert "flat" in refused.text


def test_an_unknown_bitmap_has_no_digest(driver: Driver) -> None:
    add_disk(driver)
    seen = driver.perform(op.Flush(node="drive0"), [("drive0", "nope")])
    refused = seen.digests["drive0", "nope"]
    assert isinstance(refused, Refused)
    assert "'nope' not found" in refused.text


def test_a_refusal_comes_with_the_state(driver: Driver) -> None:
    add_disk(driver)
    seen = driver.perform(op.BitmapClear(node="drive0", name="nope"))
    assert seen.refused == Refused("qmp", "GenericError", "Dirty bitmap 'nope' not found")
    assert seen.bitmaps == {"drive0": {}}


def test_a_drive_answers_to_both_names(driver: Driver) -> None:
    add_disk(driver, drive="device0", layers=(op.Layer(size=MIB, format="raw"),), discard="unmap")
    assert driver.perform(op.Write(node="device0", offset=0, length=9, fill=3)).refused is None
    assert driver.perform(op.Discard(node="device0", offset=4, length=5)).refused is None
    data = driver.read_disk("drive0", 0, 9)
    assert not isinstance(data, Refused)
    assert data.tobytes() == b"\3\3\3\3\0\0\0\0\0"
    seen = driver.perform(op.Resize(node="device0", size=512))
    assert (seen.refused, seen.sizes, seen.events) == (None, {"drive0": 512}, ())
    assert driver.perform(op.Write(node="device0", offset=511, length=1, fill=3)).refused is None
    assert driver.perform(op.Write(node="device1", offset=0, length=1, fill=3)).refused is not None


def test_discard_needs_unmap(driver: Driver) -> None:
    add_disk(driver, layers=(op.Layer(size=MIB, format="raw"),))
    driver.perform(op.Write(node="drive0", offset=0, length=MIB, fill=3))
    assert driver.perform(op.Discard(node="drive0", offset=0, length=MIB)).refused is None
    assert driver.differences("drive0", Pieces(MIB, {0: b"\3" * MIB})) is None


def test_a_resize_that_is_refused_leaves_the_guest_its_disk(driver: Driver) -> None:
    add_disk(driver)
    assert driver.perform(op.Resize(node="drive0", size=1000)).refused is not None
    assert driver.perform(op.Write(node="drive0", offset=0, length=1, fill=3)).refused is None


def test_a_backup_runs_to_its_end(driver: Driver) -> None:
    add_disk(driver)
    driver.perform(op.Write(node="drive0", offset=100, length=3, fill=9))
    written = Pieces(MIB, {100: b"\t\t\t"})
    backup = op.DriveBackup(node="drive0", target="target0", sync="full")
    seen = driver.perform(backup)
    assert seen.refused is None
    assert statuses(seen.events, "job0")[0] == "created"
    assert statuses(seen.events, "job0")[-2:] == ["concluded", "null"]
    assert (seen.jobs, seen.anonymous, seen.other_nodes) == ((), (), ())
    driver.perform(op.CreateImage(image="target1", layer=op.Layer(size=MIB, format="raw")))
    onto = op.BlockdevBackup(node="drive0", target="target1", sync="full", job="job1")
    seen = driver.perform(onto)
    assert (seen.refused, seen.aftermath, seen.other_nodes) == (None, (), ())
    assert statuses(seen.events, "job1")[-1] == "null"
    for target in ("target0", "target1"):
        assert driver.differences(target, written) is None
        assert driver.differences(target, written, "program") is None
        assert problems_of(driver, target) == {}


def test_a_target_is_opened_for_its_backup_alone(driver: Driver) -> None:
    """Even when the transaction is refused, and when a later target cannot be opened."""
    add_disk(driver)
    driver.perform(op.CreateImage(image="target0", layer=op.Layer(size=MIB)))
    first = op.BlockdevBackup(node="drive0", target="target0", sync="full")
    second = op.BlockdevBackup(node="drive0", target="target1", sync="full", job="job1")
    seen = driver.perform(op.Transaction(actions=(first, op.Abort())))
    assert statuses(seen.events, "job0") == ["created", "aborting", "concluded", "null"]
    assert (seen.other_nodes, seen.aftermath) == ((), ())
    seen = driver.perform(op.Transaction(actions=(first, second)))
    assert seen.refused is not None
    assert "target1.img" in seen.refused.text
    assert (seen.events, seen.other_nodes, seen.aftermath) == ((), (), ())


def test_grouped_jobs_are_all_awaited(driver: Driver) -> None:
    add_disk(driver)
    jobs = ("job0", "job1", "job2")
    actions = tuple(
        op.DriveBackup(node="drive0", target=f"target{index}", sync="full", job=job)
        for index, job in enumerate(jobs)
    )
    seen = driver.perform(op.Transaction(actions=actions, grouped=True))
    assert [statuses(seen.events, job)[-1] for job in jobs] == ["null"] * 3


def test_targets_have_chains(driver: Driver) -> None:
    driver.perform(op.CreateImage(image="target0", layer=op.Layer(size=MIB, format="raw")))
    below = op.CreateImage(image="target1", layer=op.Layer(size=MIB), backing="target0")
    assert driver.perform(below).refused is None
    add_disk(driver)
    driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9))
    onto = op.BlockdevBackup(node="drive0", target="target0", sync="full")
    driver.perform(onto)
    assert driver.differences("target1", Pieces(MIB, {0: b"\t"})) is None
    assert driver.perform(op.RebaseImage(image="target1")).refused is None
    assert driver.differences("target1", Pieces(MIB, {})) is None


@pytest.mark.parametrize("through", ["qemu", "program"])
def test_a_difference_is_found_in_a_target(
    driver: Driver, through: Literal["qemu", "program"]
) -> None:
    add_disk(driver)
    driver.perform(op.Write(node="drive0", offset=70_000, length=1, fill=9))
    driver.perform(op.DriveBackup(node="drive0", target="target0", sync="full"))
    found = driver.differences("target0", Pieces(MIB, {}), through)
    assert isinstance(found, Difference)
    assert (found.offset, found.observed[:2], found.expected[:2]) == (70_000, b"\t\0", b"\0\0")
    missing = driver.differences("target3", Pieces(MIB, {}), through)
    assert isinstance(missing, Refused)
    assert driver.perform(op.Flush(node="drive0")).other_nodes == ()


def test_an_open_disk_is_read_as_its_guest_sees_it(driver: Driver) -> None:
    layers = (
        op.Layer(size=MIB),
        op.Layer(size=MIB, data=(op.Pattern(offset=512, length=2, fill=1),)),
    )
    add_disk(driver, layers=layers)
    driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9))
    assert driver.differences("drive0", Pieces(MIB, {0: b"\t", 512: b"\1\1"})) is None
    found = driver.differences("drive0", Pieces(MIB, {0: b"\t", 512: b"\1\2"}))
    assert isinstance(found, Difference)
    assert found.offset == 513


def test_closed_disks_can_be_checked(driver: Driver) -> None:
    add_disk(driver)
    add_disk(driver, "drive1", drive="device1")
    driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9))
    assert list(problems_of(driver, "drive0.0", "drive1.0")) == ["drive0.0"]
    driver.close_disks()
    assert problems_of(driver, "drive0.0", "drive1.0") == {}
    assert driver.differences("drive0.0", Pieces(MIB, {0: b"\t"}), "program") is None


def test_a_huge_disk_is_compared_sparsely(binaries: Binaries, tmp_path: Path) -> None:
    size = 16 << 40
    with Driver(binaries, tmp_path, transport="nbd") as driver:
        add_disk(driver, size=size)
        driver.perform(op.Write(node="drive0", offset=size - 5, length=5, fill=9))
        want = Pieces(size, {size - 5: b"\t" * 5})
        assert driver.differences("drive0", want) is None
        found = driver.differences("drive0", Pieces(size, {}))
        assert isinstance(found, Difference)
        assert found.offset == size - 5
        driver.close_disks()
        assert driver.differences("drive0.0", want) is None


def test_a_leftover_node_is_reported(driver: Driver) -> None:
    monitor = driver.process.monitor
    options = {"driver": "null-co", "node-name": "stray", "size": 512}
    assert monitor.execute(Command("blockdev-add", options)) == {}
    add = {"node": "stray", "name": "bitmap0"}
    assert monitor.execute(Command("block-dirty-bitmap-add", add)) == {}
    seen = driver.observe()
    assert seen.other_nodes == ("stray",)
    assert seen.bitmaps == {}


def test_bitmaps_without_a_name_are_reported(driver: Driver) -> None:
    """While a job holds the disk, QEMU shows its own ones (semantics 4)."""
    add_disk(driver)
    driver.perform(op.BitmapAdd(node="drive0", name="bitmap0"))
    driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9))
    held = {
        "device": "drive0",
        "target": "target0.img",
        "sync": "incremental",
        "bitmap": "bitmap0",
        "job-id": "job0",
        "auto-finalize": False,
    }
    assert driver.process.monitor.execute(Command("drive-backup", held)) == {}
    seen = driver.observe()
    assert seen.bitmaps is not None
    assert set(seen.bitmaps["drive0"]) == {"bitmap0"}
    assert seen.bitmaps["drive0"]["bitmap0"].busy
    assert "drive0" in {node for node, _ in seen.anonymous}
    assert [job["id"] for job in seen.jobs or ()] == ["job0"]


def test_reset_leaves_nothing_and_keeps_qemu(driver: Driver) -> None:
    launches, folder = driver.launches, driver.process
    for _ in range(2):
        add_disk(driver)
        add_disk(driver, "drive1", drive="device1")
        driver.perform(op.BitmapAdd(node="drive0", name="bitmap0"))
        driver.perform(op.DriveBackup(node="drive0", target="target0", sync="full"))
        driver.reset()
        seen = driver.observe()
        assert (seen.bitmaps, seen.other_nodes, seen.jobs, seen.events) == ({}, (), (), ())
    assert driver.launches == launches
    assert driver.process is folder


def test_reset_costs_a_few_queries(driver: Driver) -> None:
    add_disk(driver)
    add_disk(driver, "drive1")
    before = driver.round_trips
    driver.reset()
    assert driver.round_trips - before <= 2


def test_reset_replaces_a_qemu_that_does_not_come_out_empty(driver: Driver) -> None:
    launches, trips = driver.launches, driver.round_trips
    options = {"driver": "null-co", "node-name": "stray"}
    driver.process.monitor.execute(Command("blockdev-add", options))
    driver.reset()
    assert driver.launches == launches + 1
    assert driver.observe().other_nodes == ()
    assert driver.round_trips > trips


def test_reset_deletes_the_images(binaries: Binaries, tmp_path: Path) -> None:
    with Driver(binaries, tmp_path) as driver:
        add_disk(driver)
        assert (tmp_path / "drive0.0.img").exists()
        driver.reset()
        assert not list(tmp_path.glob("*.img*"))


@pytest.mark.parametrize("signal_", [signal.SIGSTOP, signal.SIGKILL])
def test_a_lost_qemu_is_told_and_replaced(driver: Driver, signal_: signal.Signals) -> None:
    add_disk(driver)
    driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9))
    launches = driver.launches
    driver.timeout = 0.2
    os.kill(driver.process.pid, signal_)
    expected = QemuSilent if signal_ == signal.SIGSTOP else QemuDied
    for operation in (
        op.Write(node="drive0", offset=0, length=1, fill=9),
        op.BitmapAdd(node="drive0", name="bitmap0"),
    ):
        with pytest.raises(expected):
            driver.perform(operation)
    driver.timeout = 10
    driver.reset()
    assert driver.launches == launches + 1
    add_disk(driver)
    assert driver.perform(op.Write(node="drive0", offset=0, length=1, fill=9)).refused is None


def test_an_interrupted_qemu_is_replaced(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = driver.launches

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver.process.monitor, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            driver.perform(op.BitmapAdd(node="drive0", name="bitmap0"))
    driver.reset()
    assert driver.launches == launches + 1


def test_an_interrupted_comparison_asks_nothing_more(driver: Driver) -> None:
    driver.perform(op.CreateImage(image="target0", layer=op.Layer(size=MIB, format="raw")))
    driver.perform(op.CreateImage(image="target1", layer=op.Layer(size=MIB), backing="target0"))
    asked: list[int] = []

    class Interrupting(Pieces):
        def render(self, offset: int, length: int) -> Bytes:
            asked.append(driver.round_trips)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.differences("target1", Interrupting(MIB, {0: b"\1"}))
    assert asked == [driver.round_trips]


def test_the_exchange_can_be_read(driver: Driver) -> None:
    add_disk(driver)
    seen = driver.perform(op.BitmapClear(node="drive0", name="nope"))
    assert [(each.request, each.reply) for each in seen.exchange] == [
        (
            "block-dirty-bitmap-clear {'node': 'drive0', 'name': 'nope'}",
            "GenericError: Dirty bitmap 'nope' not found",
        )
    ]
    driver.perform(op.CreateImage(image="target0", layer=op.Layer(size=MIB)))
    seen = driver.perform(op.BlockdevBackup(node="drive0", target="target0", sync="full"))
    assert [each.request.split()[0] for each in seen.exchange] == [
        "blockdev-add",
        "blockdev-backup",
        "AwaitJobs()",
        "blockdev-del",
    ]
    assert all(isinstance(each.reply, str) for each in seen.exchange)


def test_a_write_that_fails_midway_is_done_in_part(driver: Driver) -> None:
    fault = op.Fault(request="write_aio", after=1)
    add_disk(driver, layers=(op.Layer(size=MIB, cluster_size=512),), faults=(fault,))
    failing = op.Write(node="drive0", offset=64512, length=3072, stamp=7)
    refused = driver.perform(failing).refused
    assert refused is not None
    assert "Input/output error" in refused.text
    whole = op.Read(node="drive0", offset=64512, length=3072)
    seen = driver.perform(whole)
    assert seen.data is not None
    assert seen.data[:1024].tobytes() == Stamp(7).render(64512, 1024).tobytes()
    assert not seen.data[1024:].any()
    assert driver.perform(failing).refused is None
    seen = driver.perform(whole)
    assert seen.data is not None
    assert seen.data.tobytes() == Stamp(7).render(64512, 3072).tobytes()
