"""How jobs in flight are drawn."""

import pytest

from qbprop.machine.jobs import endings
from qbprop_model.operations import (
    AddDisk,
    BlockdevBackup,
    CreateImage,
    Fault,
    JobCancel,
    JobDismiss,
    JobSetSpeed,
    Layer,
    OnError,
    Pattern,
)
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
