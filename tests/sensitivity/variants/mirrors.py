"""Wrong rules about mirrors."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.effects import mirrors
from qbprop_model.image import Chain, Image
from qbprop_model.mirrors import Mirror
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_rule("a mirror copies of a chunk only what a guest has written")
class MirrorsBytes(Rules):
    def followed(self, offset: int, length: int, chunk: int, size: int) -> Ranges:
        return ((offset, offset + length),)


@wrong_rule("a mirror loses the last chunk of a write that meets several")
class MirrorsTheFirstChunks(Rules):
    def followed(self, offset: int, length: int, chunk: int, size: int) -> Ranges:
        ((start, end),) = super().followed(offset, length, chunk, size)
        last = (end - 1) // chunk * chunk
        return ((start, last if start < last else end),)


@wrong_rule("with write-blocking a guest's write is not in the target")
class WritesOnlyToTheSource(Rules):
    def written_through(self, offset: int, length: int) -> Ranges:
        return ()


@wrong_rule("a mirror copies clusters of its target at once, however large")
class MirrorsClusters(Rules):
    def mirror_chunk(self, target: Image) -> int:
        return max(super().mirror_chunk(target), target.cluster_size)


@wrong_rule("a mirror with sync top copies all layers")
class TopMirrorsAll(Rules):
    def mirrored(self, sync: str, source: Chain, chunk: int) -> Ranges:
        return super().mirrored("full" if sync == "top" else sync, source, chunk)


@wrong_rule("a mirror with sync full copies the top layer alone")
class FullMirrorsTheTop(Rules):
    def mirrored(self, sync: str, source: Chain, chunk: int) -> Ranges:
        return super().mirrored("top" if sync == "full" else sync, source, chunk)


@wrong_rule("a mirror with sync none copies what is there")
class NoneMirrorsAll(Rules):
    def mirrored(self, sync: str, source: Chain, chunk: int) -> Ranges:
        return super().mirrored("full", source, chunk)


@wrong_rule("a mirror with sync full zeroes its target first, whatever that takes")
class AlwaysZeroesFirst(Rules):
    def zeroes_target(self, target: Image, *, discard: bool) -> bool:
        return True


@wrong_effect("a mirror dirties its source", mirrors, "touch")
def mirror_dirties_the_source(touch: Any) -> Any:
    def other(world: State, name: str, ranges: Ranges) -> None:
        sources = [each.node for each in world.mirrors.values() if each.target == name]
        for node in (*sources, name):
            touch(world, node, ranges)

    return other


@wrong_effect("a mirror dirties nothing", mirrors, "touch")
def mirror_dirties_nothing(_: Any) -> Any:
    def clean(world: State, name: str, ranges: Ranges) -> None:
        pass

    return clean


@wrong_effect("what is written while a mirror is paused is lost", mirrors, "_go_on")
def pause_loses_writes(go_on: Any) -> Any:
    def forgetful(world: State, job_id: str) -> None:
        world.mirrors[job_id] = replace(world.mirrors[job_id], left=())
        go_on(world, job_id)

    return forgetful


@wrong_effect("what guests write above a commit is not dirty in its base", mirrors, "touch")
def followed_writes_are_not_dirty(touch: Any) -> Any:
    def clean(world: State, name: str, ranges: Ranges) -> None:
        if all(each.target != name or each.kind == "mirror" for each in world.mirrors.values()):
            touch(world, name, ranges)

    return clean


@wrong_effect("what guests write above a commit is not in its base", mirrors, "_carried")
def followed_writes_are_lost(carried: Any) -> Any:
    def kept(world: State, mirror: Mirror, image: Image, *place: Any, **options: Any) -> Image:
        if mirror.kind == "commit":
            return image
        copied: Image = carried(world, mirror, image, *place, **options)
        return copied

    return kept
