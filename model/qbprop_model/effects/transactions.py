"""Transactions: all actions, or none (semantics 3.2)."""

from dataclasses import replace

from qbprop_model.effects import graphs
from qbprop_model.effects.backups import check_tuning, open_target, start_backup
from qbprop_model.effects.bitmaps import check_arguments, finish_removes, start_remove
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.jobs import start_jobs
from qbprop_model.expectation import Reason
from qbprop_model.image import Refused
from qbprop_model.operations import (
    Abort,
    Action,
    Backup,
    BitmapAdd,
    BitmapRemove,
    BlockdevBackup,
    BlockdevSnapshot,
    DriveBackup,
    Transaction,
    operation_name,
)
from qbprop_model.state import Outcome, State


@effect.register
def _(op: Transaction, world: State) -> Outcome:
    opened: set[str] = set()
    before = tuple(world.jobs)
    for action in op.actions:
        if isinstance(action, BlockdevBackup) and action.target not in opened:
            open_target(action, world)
            opened.add(action.target)
    for action in op.actions:
        if isinstance(action, BitmapAdd):
            check_arguments(action)
        if isinstance(action, Backup):
            check_tuning(action, world)
    if (
        op.grouped
        and world.traits.groups_checked_first
        and not all(isinstance(action, Backup) for action in op.actions)
    ):
        raise Refused(Reason.GROUPED_UNSUPPORTED)
    for position, action in enumerate(op.actions):
        try:
            _act(action, world, grouped=op.grouped)
        except Refused as refused:
            name = operation_name(action)
            refused.refusal = replace(refused.refusal, action=name, position=position)
            raise
    finish_removes(world)
    graphs.finish_snapshots(world)
    start_jobs(world, [job for job in world.jobs if job not in before], grouped=op.grouped)
    return Outcome()


def _act(action: Action, world: State, *, grouped: bool) -> None:
    """One action sees what the earlier ones did."""
    match action:
        case Abort():
            raise Refused(Reason.ABORTED)
        case DriveBackup() | BlockdevBackup():
            start_backup(action, world)
        case _ if grouped:
            raise Refused(Reason.GROUPED_UNSUPPORTED)
        case BitmapRemove():
            start_remove(action, world)
        case BlockdevSnapshot():
            graphs.start_snapshot(action, world)
        case _:
            effect(action, world)
