"""Which cells of the table of jobs' states an operation counts for."""

from dataclasses import replace

from qbprop.campaign.job_states import in_flight, met, state_of
from qbprop_model.jobs import Job
from qbprop_model.operations import (
    AddDisk,
    BlockdevBackup,
    CreateImage,
    Flush,
    JobPause,
    Layer,
    Operation,
)
from qbprop_model.world import World


def a_job() -> Job:
    world = World()
    operations: tuple[Operation, ...] = (
        AddDisk(node="drive0", layers=(Layer(size=65536),)),
        CreateImage(image="target0", layer=Layer(size=65536)),
        BlockdevBackup(node="drive0", target="target0", sync="none"),
    )
    for operation in operations:
        world.apply(operation)
    return world.jobs["job0"]


def test_a_command_counts_for_its_job_and_others_for_all() -> None:
    job = a_job()
    jobs = {"job0": job, "job1": replace(job, status="pending"), "job2": job}
    pause, flush = JobPause(job="job1"), Flush(node="drive0")
    assert list(met(pause, jobs, refused=False)) == [("job_pause", "pending", "ok")]
    assert list(met(JobPause(job="job9"), jobs, refused=True)) == [("job_pause", "none", "refused")]
    assert list(met(flush, jobs, refused=False)) == [
        ("flush", "pending", "ok"),
        ("flush", "running", "ok"),
    ]
    assert list(met(flush, {}, refused=False)) == [("flush", "none", "ok")]


def test_a_job_that_stopped_at_an_error_is_told_from_a_paused_one() -> None:
    paused = replace(a_job(), status="paused")
    assert state_of(paused) == "paused"
    assert state_of(replace(paused, faulty="ERROR read stop")) == "error-stopped"


def test_a_job_that_has_concluded_is_not_in_flight() -> None:
    job = a_job()
    concluded = replace(job, status="concluded")
    assert not in_flight({}, {"job0": concluded})
    assert in_flight({"job0": job}, {"job0": concluded})
    assert in_flight({}, {"job0": job})
