"""How jobs in flight are drawn."""

import pytest

from qbprop.machine.jobs import endings
from qbprop_model.operations import (
    AddDisk,
    BlockdevBackup,
    BlockdevMirror,
    CreateImage,
    Fault,
    JobCancel,
    JobComplete,
    JobDismiss,
    JobPause,
    JobResume,
    JobSetSpeed,
    Layer,
    OnError,
    Pattern,
    WriteZeroes,
)
from qbprop_model.traits import Traits
from qbprop_model.world import World

CLUSTER = 65536
SIZE = 4 * CLUSTER


@pytest.mark.parametrize("action", ["ignore", "stop"])
def test_an_error_that_lasts_does_not_keep_an_example_from_its_end(action: OnError) -> None:
    world = World()
    data = (Pattern(offset=0, length=SIZE, stamp=1),)
    fault = Fault(request="read", offset=2 * CLUSTER, times=0)
    for each in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE, data=data),), faults=(fault,)),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        BlockdevBackup(
            node="drive0",
            target="target0",
            sync="full",
            job="job0",
            speed=1,
            max_workers=1,
            max_chunk=CLUSTER,
            on_source_error=action,
            auto_dismiss=False,
        ),
    ):
        assert world.apply(each).refusal is None
    found = [type(each) for each in endings(world)]
    assert found == [JobSetSpeed, JobCancel, JobDismiss]


@pytest.mark.parametrize(("skips", "due"), [(False, [JobResume, JobComplete]), (True, [])])
def test_a_mirror_is_ended_unless_what_it_copies_is_open(skips: bool, due: list[type]) -> None:  # noqa: FBT001
    world = World(traits=Traits(commit_skips_zeroes=skips))
    data = (Pattern(offset=0, length=SIZE, stamp=1),)
    for each in (
        AddDisk(node="drive0", layers=(Layer(size=SIZE, data=data),)),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0"),
        JobPause(job="job0"),
        WriteZeroes(node="filter0", offset=0, length=CLUSTER),
    ):
        assert world.apply(each).refusal is None
    assert [type(each) for each in endings(world)] == due
