"""Transactions: lists of bitmap actions and backups, seldom doomed by one of them."""

from hypothesis import strategies as st

from qbprop.machine.backups import backup_action
from qbprop.machine.bitmaps import bitmap_add, bitmap_merge, by_name
from qbprop.machine.draws import below, pick, seldom
from qbprop.machine.guest import writes
from qbprop_model.operations import (
    JOBS,
    Abort,
    Action,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapRemove,
    InvalidOperationError,
    Operation,
    Transaction,
)
from qbprop_model.world import World

KINDS = ("clear", "add", "merge", "enable", "disable", "remove", "backup")


def transactions(draw: st.DrawFn, world: World) -> tuple[Operation, ...]:
    """A transaction, often behind guest writes."""
    return (*writes(draw, world), transaction(draw, world))


def transaction(draw: st.DrawFn, world: World) -> Transaction:
    """Actions that mostly go together: each is drawn from the World as the ones before left it."""
    count = pick(draw, [1, 2, 3, 4, 0])
    grouped = seldom(draw, 12)
    actions: list[Action] = []
    for _ in range(count):
        scratch = world.copy()
        before = Transaction(actions=tuple(actions), grouped=grouped)
        try:
            doomed = scratch.apply(before).refusal is not None
        except InvalidOperationError:
            doomed = True
        actions.append(_action(draw, world if doomed else scratch, len(actions), grouped=grouped))
    if seldom(draw, 12):
        actions.insert(below(draw, len(actions) + 1), Abort())
    return Transaction(actions=tuple(actions), grouped=grouped)


def _action(draw: st.DrawFn, world: World, index: int, *, grouped: bool) -> Action:
    kind = pick(draw, ("backup",) if grouped and not seldom(draw, 8) else KINDS)
    match kind:
        case "clear":
            return by_name(draw, world, BitmapClear)
        case "add":
            return bitmap_add(draw, world)
        case "merge":
            return bitmap_merge(draw, world)
        case "enable":
            return by_name(draw, world, BitmapEnable)
        case "disable":
            return by_name(draw, world, BitmapDisable)
        case "remove":
            return by_name(draw, world, BitmapRemove)
        case _:
            return backup_action(draw, world, JOBS[min(index, len(JOBS) - 1)])
