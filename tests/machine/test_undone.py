"""What the undoing of a transaction provokes."""

import pytest

from qbprop.hazards import FAILED_ENABLE, Hazards
from qbprop_model.operations import (
    Action,
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapEnable,
    BitmapMerge,
    ExportAdd,
    ExportedBitmap,
    Layer,
    MergeSource,
    Operation,
    Transaction,
)
from qbprop_model.world import World

BUSY: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=65536),)),
    BitmapAdd(node="drive0", name="bitmap0"),
    BitmapAdd(node="drive0", name="bitmap1"),
    ExportAdd(
        export="export0", node="drive0", bitmaps=(ExportedBitmap(name="bitmap0"),), writable=True
    ),
)
NOTHING = BitmapMerge(node="drive0", target="bitmap0")
SOMETHING = BitmapMerge(
    node="drive0", target="bitmap0", sources=(MergeSource(node="drive0", name="bitmap1"),)
)
ENABLE = BitmapEnable(node="drive0", name="bitmap0")
CLEAR = BitmapClear(node="drive0", name="bitmap1")


@pytest.mark.parametrize(
    ("actions", "due"),
    [
        ((ENABLE,), True),
        ((CLEAR, ENABLE), True),
        ((NOTHING, CLEAR, ENABLE), True),
        ((NOTHING, CLEAR), False),
        ((SOMETHING, ENABLE), False),
    ],
)
def test_an_enable_fails_also_behind_what_qemu_lets_pass(
    actions: tuple[Action, ...],
    due: bool,  # noqa: FBT001
) -> None:
    world = World()
    for each in BUSY:
        assert world.apply(each).refusal is None
    before, last = world.copy(), Transaction(actions=actions)
    expected = world.apply(last)
    assert expected.refusal is not None
    assert (FAILED_ENABLE in Hazards().provoked(last, expected, before)) == due
