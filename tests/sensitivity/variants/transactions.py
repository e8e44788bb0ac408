"""Wrong rules about transactions, and about what a refused command leaves behind."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.effects import transactions
from qbprop_model.effects.bitmaps import finish_removes
from qbprop_model.expectation import Expectation, Reason
from qbprop_model.operations import (
    Abort,
    Action,
    Backup,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapMerge,
    BitmapRemove,
    InvalidOperationError,
    Transaction,
    Write,
)
from qbprop_model.rules import Rules
from qbprop_model.state import State
from qbprop_model.world import World


def _keeps(original: Any, kind: type) -> Any:
    """Of a refused transaction, the actions of one kind that came before the refused one stay."""

    def apply(world: World, operation: Any) -> Expectation:
        expected: Expectation = original(world, operation)
        if not isinstance(operation, Transaction) or expected.refusal is None:
            return expected
        kept = expected
        for action in operation.actions[: expected.refusal.position]:
            trial = world.copy()
            if isinstance(action, kind) and original(trial, action).refusal is None:
                found = original(world, action)
                kept = replace(found, digests={**kept.digests, **found.digests})
        return replace(kept, refusal=expected.refusal, jobs=expected.jobs)

    return apply


@wrong_effect("a clear stays when its transaction is undone", World, "apply")
def clear_not_undone(original: Any) -> Any:
    return _keeps(original, BitmapClear)


@wrong_effect("a merge stays when its transaction is undone", World, "apply")
def merge_not_undone(original: Any) -> Any:
    return _keeps(original, BitmapMerge)


@wrong_effect("a disable stays when its transaction is undone", World, "apply")
def disable_not_undone(original: Any) -> Any:
    return _keeps(original, BitmapDisable)


@wrong_effect("an added bitmap stays when its transaction is undone", World, "apply")
def add_not_undone(original: Any) -> Any:
    return _keeps(original, BitmapAdd)


@wrong_effect("a removed bitmap stays away when its transaction is undone", World, "apply")
def remove_not_undone(original: Any) -> Any:
    return _keeps(original, BitmapRemove)


@wrong_effect("the actions of a transaction are performed from the last to the first", World,
              "apply")  # fmt: skip
def actions_run_backwards(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        if not isinstance(operation, Transaction):
            return original(world, operation)
        backwards = replace(operation, actions=operation.actions[::-1])
        try:
            if original(world.copy(), operation).refusal is None:
                trial = world.copy()
                if original(trial, backwards).refusal is None:
                    return original(world, backwards)
        except InvalidOperationError:
            pass
        return original(world, operation)

    return apply


@wrong_effect("a name is free as soon as the action that removes its bitmap was performed",
              transactions, "start_remove")  # fmt: skip
def removed_at_once(original: Any) -> Any:
    def start_remove(op: BitmapRemove, world: State) -> None:
        original(op, world)
        finish_removes(world)

    return start_remove


@wrong_rule("a bitmap that a backup of the same transaction uses can be changed")
class FrozenIsNotBusy(Rules):
    def freeze(self, bitmap: Bitmap) -> Bitmap:
        return replace(super().freeze(bitmap), busy=False)


@wrong_rule("a bitmap that is being removed can be used by the actions after it")
class RemovedIsNotBusy(Rules):
    def occupy(self, bitmap: Bitmap) -> Bitmap:
        return bitmap


@wrong_rule("bitmap mode never is accepted by a full backup")
class NeverGoesWithFull(Rules):
    def check_modes(self, op: Backup, bitmap: Bitmap | None) -> None:
        if bitmap is None or op.bitmap_mode != "never":
            super().check_modes(op, bitmap)


@wrong_effect("grouped transactions take bitmap actions", transactions, "_act")
def grouped_takes_bitmap_actions(original: Any) -> Any:
    def act(action: Action, world: State, *, grouped: bool) -> None:
        original(action, world, grouped=grouped and isinstance(action, Backup | Abort))

    return act


@wrong_effect("an abort that comes last undoes nothing", World, "apply")
def last_abort_ignored(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        match operation:
            case Transaction(actions=(*before, Abort())) if before:
                trial, without = world.copy(), replace(operation, actions=tuple(before))
                refused = original(world.copy(), operation)
                found = original(trial, without)
                if found.refusal is None:
                    world.__dict__.update(trial.__dict__)
                    return replace(found, refusal=refused.refusal)
        return original(world, operation)

    return apply


@wrong_effect("a write across the end of the disk records what lies on it", World, "apply")
def write_past_the_end_recorded(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        expected = original(world, operation)
        refusal = expected.refusal
        if not isinstance(operation, Write) or refusal is None or refusal.reason != Reason.PAST_END:
            return expected
        name = world.roots.get(operation.node, operation.node)
        node, size = world.nodes[name], world.size(world.nodes[name])
        if operation.offset >= size:
            return expected
        bitmaps = {
            key: world.rules.touch(bitmap, operation.offset, size - operation.offset)
            for key, bitmap in node.bitmaps.items()
        }
        world.nodes[name] = replace(node, bitmaps=bitmaps)
        final = world.final()
        return replace(expected, bitmaps=final.bitmaps, digests={
            key: value for key, value in final.digests.items() if key[0] == name
        })  # fmt: skip

    return apply
