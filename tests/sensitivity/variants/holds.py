"""Wrong rules about a guest's write that is held in flight."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect

from qbprop_model.effects import effect, guest, holds
from qbprop_model.operations import HoldWrite
from qbprop_model.state import Outcome, State


@wrong_effect("a write sets its bits when it starts", holds, "hold")
def bits_at_the_start(original: Any) -> Any:
    def hold(op: HoldWrite, name: str, world: State) -> None:
        original(op, name, world)
        guest._touch(world, name, op.write)

    return hold


@wrong_effect("a write is there when it starts", holds, "hold")
def bytes_at_the_start(original: Any) -> Any:
    def hold(op: HoldWrite, name: str, world: State) -> None:
        bitmaps = world.nodes[name].bitmaps
        effect(op.write, world)
        world.nodes[name] = replace(world.nodes[name], bitmaps=bitmaps)
        original(op, name, world)

    return hold


@wrong_effect("what is cleared while a write is in flight stays clean", holds, "release")
def clears_win(original: Any) -> Any:
    def release(op: HoldWrite, world: State) -> Outcome:
        name = world.roots.get(op.node, op.node)
        bitmaps = world.nodes[name].bitmaps
        outcome: Outcome = original(op, world)
        world.nodes[name] = replace(world.nodes[name], bitmaps=bitmaps)
        return outcome

    return release
