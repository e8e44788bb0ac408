"""Transactions: all or nothing. A refused command changes nothing that can be seen."""

from hypothesis import given, reject
from hypothesis import strategies as st
from tests.model.compare import checked, compare
from tests.model.strategies import KIB, backups, bitmap_actions, sequences, transactions

from qbprop_model.expectation import Expectation, Reason
from qbprop_model.operations import (
    TARGETS,
    Abort,
    Action,
    AddDisk,
    BitmapAdd,
    BitmapMerge,
    BitmapRemove,
    CreateImage,
    DriveBackup,
    InvalidOperationError,
    Layer,
    MergeSource,
    Operation,
    Transaction,
    Write,
)
from qbprop_model.world import World

START: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=192 * KIB),), drive="device0", discard="unmap"),
    AddDisk(node="drive1", layers=(Layer(size=192 * KIB, cluster_size=4096),)),
    BitmapAdd(node="drive0", name="bitmap0", granularity=512),
    BitmapAdd(node="drive0", name="bitmap1", disabled=True),
    BitmapAdd(node="drive1", name="bitmap0", granularity=4096),
    Write(node="drive0", offset=5000, length=100000, stamp=1),
    Write(node="drive1", offset=512, length=8192, stamp=3),
    *(CreateImage(image=name, layer=Layer(size=192 * KIB)) for name in TARGETS[:3]),
)
Seen = tuple[object, ...]


def seen(world: World) -> Seen:
    """Everything that can be seen from outside."""
    final: Expectation = world.final()
    contents = {
        name: (content.size, content.render(0, content.size).tobytes())
        for name, content in final.contents.items()
    }
    return dict(final.bitmaps), dict(final.sizes), dict(final.digests), contents


def started() -> World:
    world = World()
    for operation in START:
        assert world.apply(operation).refusal is None
    return world


def reason(*actions: Action, grouped: bool = False) -> Reason | None:
    refusal = started().apply(Transaction(actions=actions, grouped=grouped)).refusal
    return None if refusal is None else refusal.reason


@checked(60)
@given(st.lists(transactions(), min_size=1, max_size=4))
def test_transactions_go_as_in_the_naive_world(found: list[Transaction]) -> None:
    compare([*START, *found])


@checked(60)
@given(st.lists(st.one_of(bitmap_actions(), backups()), max_size=4), st.integers(0, 4))
def test_an_aborted_transaction_changes_nothing(actions: list[Action], place: int) -> None:
    world = started()
    before = seen(world)
    known = set(world.images)
    op = Transaction(actions=(*actions[:place], Abort(), *actions[place:]))
    try:
        expected = world.apply(op)
    except InvalidOperationError:
        reject()
    assert expected.refusal is not None
    kept = {
        action.target
        for action in actions
        if isinstance(action, DriveBackup) and action.mode == "absolute-paths"
    }
    after = seen(world)
    assert before[:3] == after[:3]
    assert isinstance(before[3], dict)
    assert isinstance(after[3], dict)
    for name in before[3].keys() - kept:
        assert before[3][name] == after[3][name]
    assert set(world.images) - known <= kept


@checked(30)
@given(sequences())
def test_a_refusal_leaves_no_trace(operations: list[Operation]) -> None:
    """But for image files: a refused drive-backup leaves the one it created (6.1)."""
    world = World()
    for operation in operations:
        before = seen(world)
        try:
            expected = world.apply(operation)
        except InvalidOperationError:
            assert seen(world) == before
            continue
        guest_like = "Write" in type(operation).__name__
        if expected.refusal is not None and not guest_like:
            after = seen(world)
            assert after[:3] == before[:3]
            makes_files = isinstance(operation, AddDisk | CreateImage | Transaction)
            if not makes_files and "mode" not in vars(operation):
                assert after[3] == before[3]


def test_a_removed_bitmap_keeps_its_name_until_the_commit() -> None:
    remove = BitmapRemove(node="drive0", name="bitmap0")
    again = BitmapAdd(node="drive0", name="bitmap0")
    merge = BitmapMerge(node="drive0", target="bitmap1", sources=(MergeSource(name="bitmap0"),))
    assert reason(remove, again) is Reason.BITMAP_EXISTS
    assert reason(remove, merge) is Reason.BITMAP_BUSY
    assert reason(remove, remove) is Reason.BITMAP_BUSY
    assert reason(merge, remove) is None
    world = started()
    world.apply(Transaction(actions=(merge, remove)))
    assert world.apply(again).refusal is None


def test_later_actions_see_earlier_ones() -> None:
    add = BitmapAdd(node="drive0", name="bitmap2", granularity=1024, disabled=True)
    merge = BitmapMerge(node="drive0", target="bitmap2", sources=(MergeSource(name="bitmap0"),))
    assert reason(add, merge) is None
    assert reason(merge, add) is Reason.BITMAP_NOT_FOUND
    assert reason(add, grouped=True) is Reason.GROUPED_UNSUPPORTED
    assert reason() is None
    assert reason(Abort(), add, grouped=True) is Reason.ABORTED
