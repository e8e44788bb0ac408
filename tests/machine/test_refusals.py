"""What is drawn to be refused, where every name is taken."""

from hypothesis import given
from hypothesis import strategies as st

from qbprop.machine.refusals import refused_resize
from qbprop_model.operations import DRIVES, NODES, AddDisk, Layer, Resize
from qbprop_model.world import World

SIZES = (8 << 40, 65536, 512)
"""Shrinking the first disk to the size of another takes QEMU minutes."""


def full_world() -> World:
    world = World()
    for node, drive, size in zip(NODES, DRIVES, SIZES, strict=True):
        world.apply(AddDisk(node=node, drive=drive, layers=(Layer(size=size),)))
    return world


@given(st.data())
def test_no_disk_gets_the_size_of_another(data: st.DataObject) -> None:
    world = full_world()
    drawn = data.draw(st.composite(refused_resize)(world))
    assert isinstance(drawn, Resize)
    node = world.nodes[world.roots.get(drawn.node, drawn.node)]
    assert drawn.size >= world.size(node)
