"""Wrong rules about what survives: closing, opening, reopening and the end of QEMU."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap, Use
from qbprop_model.effects import bitmaps, offline, opening
from qbprop_model.expectation import Reason
from qbprop_model.image import Image
from qbprop_model.rules import Rules
from qbprop_model.state import State


@wrong_rule("bitmaps that are not persistent are stored as well")
class TransientIsStored(Rules):
    def is_stored(self, bitmap: Bitmap) -> bool:
        return not bitmap.inconsistent


@wrong_rule("a disabled bitmap is not stored")
class DisabledIsNotStored(Rules):
    def is_stored(self, bitmap: Bitmap) -> bool:
        return bitmap.persistent and (bitmap.recording or bitmap.inconsistent)


@wrong_rule("a clean bitmap is not stored")
class CleanIsNotStored(Rules):
    def is_stored(self, bitmap: Bitmap) -> bool:
        return bitmap.persistent and (bool(bitmap.bits.any()) or bitmap.inconsistent)


@wrong_rule("a disabled bitmap comes back enabled")
class DisabledComesBackEnabled(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        return replace(super().revive(stored, size), recording=not stored.inconsistent)


@wrong_rule("an enabled bitmap comes back disabled")
class EnabledComesBackDisabled(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        return replace(super().revive(stored, size), recording=False)


@wrong_rule("a bitmap comes back with the default granularity")
class ComesBackAtTheDefault(Rules):
    def load(self, image: Image, *, read_only: bool) -> dict[str, Bitmap]:
        found = super().load(image, read_only=read_only)
        default = self.default_granularity(image.cluster_size)
        return {
            name: replace(
                each,
                granularity=default,
                bits=self.project(each.bits, each.granularity, default, image.size),
            )
            for name, each in found.items()
        }


@wrong_rule("the last bit of a bitmap is not stored")
class LastBitIsNotStored(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        revived = super().revive(stored, size)
        bits = revived.bits.copy()
        bits[-1:] = False
        return replace(revived, bits=bits)


@wrong_rule("only whole words of 64 bits are stored")
class WholeWordsAreStored(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        revived = super().revive(stored, size)
        bits = revived.bits.copy()
        bits[len(bits) // 64 * 64 :] = False
        return replace(revived, bits=bits)


@wrong_rule("of a bitmap only the first cluster of its bits is stored")
class FirstClusterOfBitsIsStored(Rules):
    def load(self, image: Image, *, read_only: bool) -> dict[str, Bitmap]:
        found = super().load(image, read_only=read_only)
        kept = image.cluster_size * 8
        for name, each in found.items():
            bits = each.bits.copy()
            bits[kept:] = False
            found[name] = replace(each, bits=bits)
        return found


@wrong_rule("a bitmap whose bits are all set comes back clean")
class FullComesBackClean(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        revived = super().revive(stored, size)
        full = bool(revived.bits.all())
        return replace(revived, bits=revived.bits & (not full))


@wrong_rule("only one bitmap of a disk is stored")
class OneBitmapIsStored(Rules):
    def close_image(self, image: Image, bitmaps: Mapping[str, Bitmap]) -> Image:
        closed = super().close_image(image, bitmaps)
        return replace(closed, stored=dict(list(closed.stored.items())[:1]))


@wrong_rule("after a kill bitmaps are as they were when the disk was opened")
class KillIsForgiven(Rules):
    def open_image(self, image: Image) -> Image:
        return image


@wrong_rule("after a kill a bitmap is gone instead of inconsistent")
class KillTakesBitmapsAway(Rules):
    def load(self, image: Image, *, read_only: bool) -> dict[str, Bitmap]:
        found = super().load(image, read_only=read_only)
        return {name: each for name, each in found.items() if not each.inconsistent}


@wrong_rule("an inconsistent bitmap shows what was on disk")
class InconsistentKeepsItsBits(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        return replace(super().revive(stored, size), bits=stored.bits)


@wrong_rule("an inconsistent bitmap records")
class InconsistentRecords(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        return replace(super().revive(stored, size), recording=stored.recording)


@wrong_rule("what is inconsistent is no more when the disk has been closed in order")
class ClosingHeals(Rules):
    def close_image(self, image: Image, bitmaps: Mapping[str, Bitmap]) -> Image:
        healed = {name: replace(each, inconsistent=False) for name, each in bitmaps.items()}
        return super().close_image(image, healed)


@wrong_rule("what is inconsistent is dropped when the disk is closed in order")
class ClosingDropsTheInconsistent(Rules):
    def close_image(self, image: Image, bitmaps: Mapping[str, Bitmap]) -> Image:
        stored = super().close_image(image, bitmaps).stored
        clean = {name: each for name, each in stored.items() if not each.inconsistent}
        return replace(image, stored=clean)


@wrong_rule("a removed bitmap is on disk until the disk is closed")
class RemovedStaysOnDisk(Rules):
    def forget(self, image: Image, name: str) -> Image:
        return image

    def close_image(self, image: Image, bitmaps: Mapping[str, Bitmap]) -> Image:
        there = {name: each for name, each in image.stored.items() if name in bitmaps}
        return super().close_image(replace(image, stored=there), bitmaps)


@wrong_rule("the bitmaps of a disk that is opened read-only can be changed")
class ReadOnlyIsNoObstacle(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        return super().obstacle(replace(bitmap, read_only=False), use)


@wrong_rule("a bitmap of a read-only disk cannot be enabled or disabled")
class ReadOnlyIsNotSwitched(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        return super().obstacle(bitmap, "change" if use == "switch" and bitmap.read_only else use)


@wrong_rule("a bitmap of a read-only disk cannot be read")
class ReadOnlyIsNotRead(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        return super().obstacle(bitmap, "change" if use == "read" else use)


@wrong_rule("an inconsistent bitmap can be cleared")
class InconsistentIsCleared(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        return super().obstacle(bitmap, "remove" if use == "change" else use)


@wrong_rule("an inconsistent bitmap can be merged and backed up from")
class InconsistentIsRead(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        found = super().obstacle(bitmap, use)
        return None if use == "read" and found is Reason.BITMAP_INCONSISTENT else found


@wrong_rule("an inconsistent bitmap cannot be removed")
class InconsistentStays(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        found = super().obstacle(bitmap, use)
        return found or (Reason.BITMAP_INCONSISTENT if bitmap.inconsistent else None)


@wrong_rule("inconsistent is found out before read-only")
class InconsistentComesFirst(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        found = super().obstacle(bitmap, use)
        first = found is Reason.BITMAP_READ_ONLY and bitmap.inconsistent and use != "remove"
        return Reason.BITMAP_INCONSISTENT if first else found


@wrong_rule("a disk that is made read-only leaves its bitmaps as they are")
class ReopeningFreezesNothing(Rules):
    def reopen(self, bitmap: Bitmap, *, read_only: bool) -> Bitmap:
        return bitmap if read_only else super().reopen(bitmap, read_only=read_only)


@wrong_rule("a disk that is made writable again leaves its bitmaps read-only")
class ReopeningThawsNothing(Rules):
    def reopen(self, bitmap: Bitmap, *, read_only: bool) -> Bitmap:
        return bitmap if not read_only else super().reopen(bitmap, read_only=read_only)


@wrong_rule("a disk that is made read-only freezes transient bitmaps too")
class ReopeningFreezesAll(Rules):
    def reopen(self, bitmap: Bitmap, *, read_only: bool) -> Bitmap:
        return replace(bitmap, read_only=read_only)


@wrong_rule("an image of version 2 stores bitmaps")
class OldImagesStore(Rules):
    def check_storable(self, image: Image, name: str, granularity: int) -> None:
        super().check_storable(replace(image, compat="1.1"), name, granularity)


@wrong_effect("what was not on disk is inconsistent after a kill, too", bitmaps, "check_storable")
def added_is_on_disk_at_once(check_storable: Any) -> Any:
    def stored_at_once(name: str, granularity: int, node: Any, world: State) -> None:
        check_storable(name, granularity, node, world)
        image = world.images[node.image]
        added = world.rules.add(image.size, granularity, disabled=False)
        stored = {**image.stored, name: replace(added, persistent=True, inconsistent=True)}
        world.images[node.image] = replace(image, stored=stored)

    return stored_at_once


@wrong_effect("a disk that is opened read-only has its bitmaps in use", opening, "attach")
def read_only_uses_bitmaps(attach: Any) -> Any:
    def used(world: State, name: str, node: Any) -> None:
        attach(world, name, node)
        world.images[node.image] = world.rules.open_image(world.images[node.image])

    return used


@wrong_effect("a kill stores the bitmaps as the end of QEMU does", opening, "kill")
def kill_stores(kill: Any) -> Any:
    def stored(world: State, jobs: list[str]) -> None:
        kill(world, jobs)
        for node in world.nodes.values():
            if node.filters is None and not node.read_only:
                image = world.images[node.image]
                world.images[node.image] = world.rules.close_image(image, node.bitmaps)

    return stored


@wrong_effect(
    "a bitmap that was on disk is stored with the recording flag that it had there",
    opening,
    "close",
)
def stored_as_it_was(close: Any) -> Any:
    def forgotten(world: State, name: str) -> None:
        node = world.nodes[name]
        kept = {
            key: replace(each, recording=stored.recording)
            if (stored := world.images[node.image].stored.get(key)) and not each.inconsistent
            else each
            for key, each in node.bitmaps.items()
        }
        world.nodes[name] = replace(node, bitmaps=kept)
        close(world, name)

    return forgotten


@wrong_effect(
    "what qemu-img has done is undone where a later action is refused", offline, "perform"
)
def offline_is_all_or_nothing(perform: Any) -> Any:
    def undone(op: Any, actions: Any, world: State, source: str | None = None) -> Any:
        images = dict(world.images)
        outcome = perform(op, actions, world, source)
        if outcome.refusal is not None:
            world.images = images
        return outcome

    return undone


@wrong_effect(
    "what qemu-img merges comes from the disk itself, whatever is named", offline, "_action"
)
def offline_merges_from_itself(action: Any) -> Any:
    return lambda op, each: action(replace(op, source=None), each)


@wrong_effect("qemu-img adds bitmaps that are disabled", offline, "_action")
def offline_adds_disabled(action: Any) -> Any:
    def disabled(op: Any, each: Any) -> Any:
        made = action(op, each)
        return replace(made, disabled=True) if each.kind == "add" else made

    return disabled


@wrong_effect("qemu-img converts all bitmaps but those that are disabled", offline, "_converted")
def disabled_are_not_converted(converted: Any) -> Any:
    def some(op: Any, image: Image, world: State) -> Any:
        found = converted(op, image, world)
        return {name: bitmap for name, bitmap in found.items() if bitmap.recording}

    return some


@wrong_effect("bitmaps are empty behind a conversion", offline, "_converted")
def converted_are_clean(converted: Any) -> Any:
    def clean(op: Any, image: Image, world: State) -> Any:
        found = converted(op, image, world)
        return {name: world.rules.clear(bitmap) for name, bitmap in found.items()}

    return clean


@wrong_effect("what qemu-img commits is not dirty in the backing file", offline, "commit")
def offline_commit_dirties_nothing(commit: Any) -> Any:
    def clean(world: State, base: str, *what: Any) -> Any:
        before = world.nodes[base].bitmaps
        below = commit(world, base, *what)
        world.nodes[base] = replace(world.nodes[base], bitmaps=before)
        return below

    return clean


@wrong_rule("a disk that qemu-img has committed keeps what it has")
class CommittedIsKept(Rules):
    def empty(self, image: Image) -> Image:
        return image
