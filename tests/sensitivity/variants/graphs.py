"""Wrong rules about snapshots, commits and streams."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect

from qbprop_model.effects import graphs
from qbprop_model.ranges import Ranges, within
from qbprop_model.state import State


@wrong_effect("bitmaps go along to the overlay", graphs, "finish_snapshots")
def bitmaps_go_along(finish: Any) -> Any:
    def moved(world: State) -> None:
        for name in world.covering:
            for overlay in world.overlays(name):
                both = {**world.nodes[name].bitmaps, **world.nodes[overlay].bitmaps}
                world.nodes[overlay] = replace(world.nodes[overlay], bitmaps=both)
                world.nodes[name] = replace(world.nodes[name], bitmaps={})
        finish(world)

    return moved


@wrong_effect("a commit dirties nothing", graphs, "touch")
def commit_dirties_nothing(_: Any) -> Any:
    def clean(world: State, name: str, ranges: Ranges) -> None:
        pass

    return clean


@wrong_effect("a commit dirties the overlay, not the base", graphs, "touch")
def commit_dirties_the_overlay(touch: Any) -> Any:
    def other(world: State, name: str, ranges: Ranges) -> None:
        for overlay in world.overlays(name):
            touch(world, overlay, within(ranges, 0, world.size(world.nodes[overlay])))

    return other


@wrong_effect("a commit clears the base's bitmaps", graphs, "touch")
def commit_clears(_: Any) -> Any:
    def cleared(world: State, name: str, _: Ranges) -> None:
        rules, node = world.rules, world.nodes[name]
        clean = {key: rules.clear(bitmap) for key, bitmap in node.bitmaps.items()}
        world.nodes[name] = replace(node, bitmaps=clean)

    return cleared
