"""Jobs in flight on a real QEMU, as the driver sees them; the model has no part in it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.driver import Driver
from qbprop.qemu.monitor import QemuSilent
from qbprop_model import operations as op
from qbprop_model.data import Stamp

MIB = 1 << 20
DISK = op.AddDisk(
    node="drive0",
    layers=(op.Layer(size=MIB, data=(op.Pattern(offset=0, length=MIB, stamp=1),)),),
)
TARGET = op.CreateImage(image="target0", layer=op.Layer(size=MIB))
HELD = op.BlockdevBackup(
    node="drive0", target="target0", sync="full", speed=1, max_workers=1, max_chunk=65536
)

holds = pytest.mark.needs("blockdev_backup_x_perf")


@pytest.fixture(params=["nbd", "hmp"])
def driver(request: pytest.FixtureRequest, binaries: Binaries, tmp_path: Path) -> Iterator[Driver]:
    transport: Literal["nbd", "hmp"] = request.param
    with Driver(binaries, tmp_path, transport=transport) as made:
        for each in (DISK, TARGET):
            assert made.perform(each).refused is None
        yield made


def job_of(seen: Any) -> Any:
    (job,) = seen.jobs
    return job


@holds
def test_a_held_job_has_copied_exactly_one_cluster(driver: Driver) -> None:
    job = job_of(driver.perform(HELD, rests={"job0": "running"}))
    assert (job["status"], job["current-progress"]) == ("running", 65536)


@holds
def test_sync_top_is_held_when_it_has_looked_through_the_disk(driver: Driver) -> None:
    """Of a chain of small clusters, where that takes many steps; time and again."""
    layers = (op.Layer(size=MIB, cluster_size=512), op.Layer(size=MIB))
    driver.perform(op.AddDisk(node="drive1", layers=layers))
    for cluster in (3, 7, 15):
        driver.perform(op.Write(node="drive1", offset=cluster * 65536, length=700, stamp=2))
    top = replace(HELD, node="drive1", sync="top")
    for _ in range(10):
        job = job_of(driver.perform(top, rests={"job0": "running"}))
        assert (job["total-progress"], job["current-progress"]) == (3 * 65536, 65536)
        driver.perform(op.JobCancel(job="job0"), rests={"job0": "null"})


def test_a_refused_start_does_not_wait_for_an_earlier_job_of_its_name(driver: Driver) -> None:
    driver.timeout = 1.0
    endless = op.BlockdevBackup(node="drive0", target="target0", sync="none")
    driver.perform(endless, rests={"job0": "running"})
    again = op.DriveBackup(
        node="drive0", target="target1", sync="full", speed=1, max_workers=1, max_chunk=65536
    )
    assert driver.perform(again).refused is not None


@holds
def test_a_guest_reaches_its_disk_through_the_filter(driver: Driver) -> None:
    """The export is made when the job is there; the human monitor is refused the disk itself."""
    driver.perform(HELD, rests={"job0": "running"})
    write = op.Write(node="drive0", offset=5 * 65536, length=512, stamp=9)
    seen = driver.perform(write)
    assert seen.refused is None
    assert job_of(seen)["current-progress"] == 2 * 65536
    read = driver.perform(op.Read(node="target0", offset=5 * 65536, length=512))
    assert read.data is not None
    assert read.data.tolist() == Stamp(1).render(5 * 65536, 512).tolist()


@holds
def test_a_target_is_closed_behind_its_job(driver: Driver) -> None:
    assert driver.perform(HELD, rests={"job0": "running"}).other_nodes == ("target0",)
    driver.perform(op.Read(node="target0", offset=0, length=1))
    seen = driver.perform(op.JobCancel(job="job0"), rests={"job0": "null"})
    assert (seen.other_nodes, seen.jobs, seen.aftermath) == ((), (), ())
    gone = driver.perform(op.Read(node="target0", offset=0, length=1))
    assert gone.refused is not None


@holds
def test_a_write_that_leaves_nothing_ends_the_job_in_the_same_step(driver: Driver) -> None:
    driver.perform(HELD, rests={"job0": "running"})
    write = op.Write(node="drive0", offset=0, length=MIB, stamp=9)
    seen = driver.perform(write, rests={"job0": "null"})
    assert [e.name for e in seen.events if e.name.startswith("BLOCK")] == ["BLOCK_JOB_COMPLETED"]
    assert seen.other_nodes == ()


@holds
def test_a_reset_ends_jobs_in_every_state(driver: Driver) -> None:
    for more, rest, then in (
        (HELD, "running", None),
        (HELD, "running", op.JobPause(job="job0")),
        (
            op.DriveBackup(node="drive0", target="target1", sync="full", auto_finalize=False),
            "pending",
            None,
        ),
        (
            op.DriveBackup(node="drive0", target="target1", sync="full", auto_dismiss=False),
            "concluded",
            None,
        ),
    ):
        driver.reset()
        driver.perform(DISK)
        driver.perform(TARGET)
        assert driver.perform(more, rests={"job0": rest}).refused is None
        if then is not None:
            driver.perform(then, rests={"job0": "paused"})
    driver.reset()
    assert driver.launches == 1


@holds
def test_a_job_that_does_not_move_is_a_silence_that_names_its_state(driver: Driver) -> None:
    driver.timeout = 0.5
    with pytest.raises(QemuSilent, match="job job0 is running, not pending"):
        driver.perform(HELD, rests={"job0": "pending"})
