"""Transactions: lists of bitmap actions and backups, some doomed by one of them."""

from hypothesis import strategies as st

from qbprop.machine.backups import backup
from qbprop.machine.bitmaps import BY_NAME, bitmap_add, bitmap_merge, by_name
from qbprop.machine.draws import below, pick, seldom, sited
from qbprop.machine.jobs import held
from qbprop.machine.refusals import refused_action
from qbprop_model.operations import (
    Abort,
    Action,
    Backup,
    BitmapAction,
    BitmapAdd,
    BitmapMerge,
    BlockdevBackup,
    BlockdevSnapshot,
    DriveBackup,
    InvalidOperationError,
    MergeSource,
    Transaction,
)
from qbprop_model.world import World

KINDS = (*BY_NAME, "add", "add", "merge", "backup", "merge", "backup", *("again",) * 4)


def transaction(
    draw: st.DrawFn, world: World, snapshot: BlockdevSnapshot | None = None
) -> Transaction:
    """Actions that go together: each is drawn from the World as the ones before left it.

    A ``snapshot`` is one of them.
    """
    grouped = seldom(draw, 12)
    doomed = seldom(draw, 40 if grouped else 3)
    actions: list[Action] = []
    scratch = world
    count = pick(draw, (2, 1, 3, 4, 0))
    place = below(draw, count + 1) if snapshot is not None else None
    for index in range(count + (snapshot is not None)):
        if snapshot is not None and index == place:
            actions.append(snapshot)
        else:
            actions.append(_action(draw, scratch, actions, grouped=grouped))
        scratch = _after(world, actions) or scratch
    if doomed:
        culprit = Abort() if seldom(draw, 2) else refused_action(draw, scratch)
        actions.insert(len(actions) - below(draw, len(actions) + 1), culprit)
    return Transaction(actions=tuple(actions), grouped=grouped)


def _after(world: World, actions: list[Action]) -> World | None:
    """The World behind a transaction of these actions, if it succeeds."""
    scratch = world.copy()
    try:
        refused = scratch.apply(Transaction(actions=tuple(actions))).refusal is not None
    except InvalidOperationError:
        return None
    return None if refused else scratch


def _action(draw: st.DrawFn, world: World, before: list[Action], *, grouped: bool) -> Action:
    kind = "backup" if grouped else pick(draw, KINDS)
    named = [
        (action.node, name)
        for action in before
        if not isinstance(action, Abort | BlockdevSnapshot)
        and (name := _bitmap_of(action)) is not None
    ]
    if kind == "again" and named:
        return _again(draw, world, *pick(draw, named))
    if kind == "backup":
        beside = [action for action in before if isinstance(action, Backup)]
        chosen = backup(draw, world, beside)
        return held(draw, world, chosen, beside) if seldom(draw, 3) else chosen
    if kind == "add" or not sited(world):
        return bitmap_add(draw, world)
    if isinstance(kind, str):
        return bitmap_merge(draw, world)
    return by_name(draw, world, kind)


def _bitmap_of(action: BitmapAction | Backup) -> str | None:
    """The bitmap that an action changes, if any."""
    match action:
        case DriveBackup() | BlockdevBackup():
            return action.bitmap
        case BitmapMerge():
            return action.target
        case _:
            return action.name


def _again(draw: st.DrawFn, world: World, node: str, name: str) -> Action:
    """What has to do with the bitmap of an earlier action, whatever became of it by then."""
    found = world.find(node)
    siblings = sorted({*(found.bitmaps if found else ()), name})
    cls = pick(draw, ("merge", *BY_NAME, "merge", "add"))
    if cls == "add":
        return BitmapAdd(node=node, name=name)
    if isinstance(cls, str):
        target, source = pick(draw, siblings), name
        if seldom(draw, 2):
            target, source = source, target
        return BitmapMerge(node=node, target=target, sources=(MergeSource(name=source),))
    return cls(node=node, name=name)
