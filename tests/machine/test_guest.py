"""What guests are drawn to do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qbprop.machine.guest import SHRINK_LIMIT, resizes
from qbprop_model.operations import AddDisk, BitmapAdd, Layer, Resize
from qbprop_model.world import World


@given(st.data())
@settings(max_examples=400)
def test_no_disk_is_shrunk_for_minutes(data: st.DataObject) -> None:
    """QEMU visits each cluster, also where a disk has just grown."""
    world = World()
    world.apply(AddDisk(node="drive0", layers=(Layer(size=8 << 30),)))
    world.apply(BitmapAdd(node="drive0", name="bitmap0", granularity=1 << 31))
    size = 8 << 30
    for drawn in data.draw(st.composite(resizes)(world)):
        if isinstance(drawn, Resize):
            assert size - drawn.size <= SHRINK_LIMIT * 65536
            size = drawn.size
