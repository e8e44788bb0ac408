"""Which writes beside a limited job are named after the drain that never ends behind them."""

import pytest

from qbprop.hazards import HELD_COPY, Hazards
from qbprop_model.operations import AddDisk, BlockdevBackup, CreateImage, Layer, Write
from qbprop_model.world import World

ONE_TABLE = 4096 // 8 * 4096


@pytest.mark.parametrize(
    ("cluster", "size", "speed", "due"),
    [
        (2048, 1 << 20, 1, True),
        (4096, ONE_TABLE, 1, False),
        (4096, ONE_TABLE + 512, 1, True),
        (4096, ONE_TABLE + 512, 0, False),
        (65536, 4 << 20, 1, False),
    ],
)
def test_writes_that_make_a_limited_job_read_tables(
    cluster: int,
    size: int,
    speed: int,
    due: bool,  # noqa: FBT001
) -> None:
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=size, cluster_size=cluster),)))
    world.apply(CreateImage(image="target0", layer=Layer(size=size)))
    held = BlockdevBackup(
        node="drive0",
        target="target0",
        job="job0",
        sync="full" if speed else "none",
        speed=speed,
        max_workers=1,
        max_chunk=65536,
    )
    assert world.apply(held).refusal is None
    write = Write(node="drive0", offset=65536, length=65536, fill=1)
    before = world.copy()
    provoked = tuple(Hazards().provoked(write, world.apply(write), before))
    assert (HELD_COPY in provoked) == due
