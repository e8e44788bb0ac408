"""Wrong rules about snapshots, commits and streams."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.effects import graphs
from qbprop_model.image import Alloc, Chain, Image
from qbprop_model.operations import BlockdevSnapshot
from qbprop_model.ranges import Ranges, within
from qbprop_model.rules import Rules
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


@wrong_effect("what is below an overlay can still be written to", graphs, "finish_snapshots")
def below_is_writable(_: Any) -> Any:
    def forgotten(world: State) -> None:
        world.covering = ()

    return forgotten


@wrong_effect(
    "what is below an overlay is read-only before its transaction commits", graphs, "start_snapshot"
)
def below_is_read_only_at_once(start: Any) -> Any:
    def at_once(op: BlockdevSnapshot, world: State) -> None:
        start(op, world)
        graphs.finish_snapshots(world)

    return at_once


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


@wrong_effect("a commit leaves its base as short as it was", graphs, "grow")
def commit_does_not_grow(_: Any) -> Any:
    def left(world: State, name: str, size: int) -> None:
        pass

    return left


@wrong_effect("bitmaps of a base that a commit makes longer have no new bits", graphs, "grow")
def grown_base_keeps_its_bits(grow: Any) -> Any:
    def short(world: State, name: str, size: int) -> None:
        before = world.nodes[name].bitmaps
        grow(world, name, size)
        world.nodes[name] = replace(world.nodes[name], bitmaps=before)

    return short


@wrong_rule("a commit copies 64 KiB at once")
class CommitsLargeUnits(Rules):
    def commit_cluster(self, base: Image) -> int:
        return 65536


@wrong_rule("a commit copies clusters of the base")
class CommitsClustersOfTheBase(Rules):
    def commit_cluster(self, base: Image) -> int:
        return max(512, base.cluster_size)


@wrong_rule("a commit copies what is allocated, and nothing beside it")
class CommitsNoMore(Rules):
    def committed(self, layers: Chain, base: Image) -> Ranges:
        return self.owned(layers, layers[0].size)


@wrong_rule("a commit leaves zeroes out")
class CommitLeavesZeroesOut(Rules):
    def owned(self, layers: Chain, size: int) -> Ranges:
        data = [
            replace(layer, alloc=layer.alloc.replace(0, layer.size, _without_zeroes))
            for layer in layers
        ]
        return super().owned(data, size)


def _without_zeroes(kind: Alloc) -> Alloc:
    return Alloc.NONE if kind is Alloc.ZERO else kind


@wrong_rule("a commit takes the top layer alone")
class CommitsTheTopAlone(Rules):
    def owned(self, layers: Chain, size: int) -> Ranges:
        return super().owned(layers[:1], size)


@wrong_effect("what is below an overlay has stored nothing yet", graphs, "reopen")
def snapshot_stores_nothing(reopen: Any) -> Any:
    def later(world: State, name: str, *, read_only: bool) -> None:
        key = world.nodes[name].image
        before = world.images[key]
        reopen(world, name, read_only=read_only)
        if read_only:
            world.images[key] = before

    return later


@wrong_effect("a commit leaves its base's bitmaps read-only", graphs, "reopen")
def commit_leaves_bitmaps_read_only(reopen: Any) -> Any:
    def frozen(world: State, name: str, *, read_only: bool) -> None:
        before = world.nodes[name].bitmaps
        reopen(world, name, read_only=read_only)
        if not read_only:
            world.nodes[name] = replace(world.nodes[name], bitmaps=before)

    return frozen


@wrong_effect("a stream dirties what it copies", graphs, "take_all")
def stream_dirties(take_all: Any) -> Any:
    def dirty(world: State, name: str) -> None:
        chain = world.chain(world.nodes[name].image)
        ranges = world.rules.owned(chain[1:], min(chain[0].size, chain[1].size))
        take_all(world, name)
        graphs.touch(world, name, ranges)

    return dirty


@wrong_rule("a stream copies the layer right below alone")
class StreamsOneLayer(Rules):
    def stream(self, chain: Chain, depth: int | None = None) -> Image:
        return super().stream(chain[:2] if depth is None else chain, depth)


@wrong_rule("a commit below the top copies 64 KiB at once")
class CommitsBelowInUnits(Rules):
    def committed_below(self, layers: Chain) -> Ranges:
        return self.in_units(super().committed_below(layers), 65536, layers[0].size)


@wrong_rule("a stream down to a base copies nothing")
class StreamsNothingDownToABase(Rules):
    def stream(self, chain: Chain, depth: int | None = None) -> Image:
        return super().stream(chain, depth if depth is None else 1)


@wrong_effect("what stands on a base now finds it only while it is open", graphs, "stand_on")
def header_names_no_base(_: Any) -> Any:
    def mounted(world: State, image: str, base: str) -> None:
        world.mounted[image] = world.nodes[base].image

    return mounted
