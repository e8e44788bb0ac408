"""Wrong rules about what a guest request sets."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.data import SECTOR
from qbprop_model.effects import guest
from qbprop_model.image import Image
from qbprop_model.operations import Discard, Write, WriteCompressed, WriteZeroes
from qbprop_model.rules import Rules
from qbprop_model.state import Node, State


@wrong_rule("a request's first cluster is recorded only if it is written from its start")
class StartRoundsInward(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        return slice(-(-offset // granularity), super().covered(granularity, offset, length).stop)


@wrong_rule("a request's last cluster is recorded only if it is written to its end")
class EndRoundsInward(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        return slice(offset // granularity, (offset + length) // granularity)


@wrong_rule("a request that ends at a cluster's edge records the next cluster too")
class EndRoundsTooFar(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        return slice(offset // granularity, (offset + length) // granularity + 1)


@wrong_rule("what a request touches behind a 64-bit word's end is not recorded")
class StopsAtTheWord(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        whole = super().covered(granularity, offset, length)
        return slice(whole.start, min(whole.stop, (whole.start // 64 + 1) * 64))


@wrong_rule("a request of zero bytes records the cluster that it stands in")
class NothingIsRecorded(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        return super().touch(bitmap, offset, max(length, 1))


@wrong_rule("a request of less than a sector is not recorded")
class LessThanASectorIsNothing(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        return bitmap if length < SECTOR else super().touch(bitmap, offset, length)


@wrong_rule("a disabled bitmap records what is in its last cluster")
class DisabledRecordsTheLastCluster(Rules):
    def touch(self, bitmap: Bitmap, offset: int, length: int) -> Bitmap:
        last = self.covered(bitmap.granularity, offset, length).stop == len(bitmap.bits)
        touched = super().touch(replace(bitmap, recording=bitmap.recording or last), offset, length)
        return replace(touched, recording=bitmap.recording)


def _unrecorded(original: Any, kind: type, unless: str = "") -> Any:
    def store(world: State, name: str, image: Image | None, op: Any) -> None:
        skip = isinstance(op, kind) and (not unless or getattr(op, unless))
        original(world, name, image, replace(op, length=0) if skip else op)

    return store


@wrong_effect("discards are not recorded", guest, "_store")
def discards_not_recorded(original: Any) -> Any:
    return _unrecorded(original, Discard)


@wrong_effect("writing zeroes is not recorded", guest, "_store")
def zeroes_not_recorded(original: Any) -> Any:
    return _unrecorded(original, WriteZeroes)


@wrong_effect("writing zeroes is not recorded where it may unmap", guest, "_store")
def unmapping_zeroes_not_recorded(original: Any) -> Any:
    return _unrecorded(original, WriteZeroes, "unmap")


@wrong_effect("compressed writes are not recorded", guest, "_store")
def compressed_not_recorded(original: Any) -> Any:
    return _unrecorded(original, WriteCompressed)


@wrong_effect("a write that failed is not recorded", guest, "_store")
def failed_write_not_recorded(original: Any) -> Any:
    def store(world: State, name: str, image: Image | None, op: Any) -> None:
        original(world, name, image, op if image is not None else replace(op, length=0))

    return store


@wrong_effect("a write that is detected to be zeroes is not recorded", guest, "_store")
def detected_zeroes_not_recorded(original: Any) -> Any:
    def store(world: State, name: str, image: Image | None, op: Any) -> None:
        found = isinstance(op, Write) and guest.detected(op, world.nodes[name])
        original(world, name, image, replace(op, length=0) if found else op)

    return store


@wrong_effect("a write of zeroes is detected only where zeroes are unmapped", guest, "detected")
def zeroes_detected_only_to_unmap(original: Any) -> Any:
    def detected(op: Write | WriteCompressed, node: Node) -> bool:
        return node.detect_zeroes == "unmap" and bool(original(op, node))

    return detected


@wrong_effect("the last cluster is not recorded where the disk ends inside it", guest, "_store")
def last_partial_cluster_forgotten(original: Any) -> Any:
    def store(world: State, name: str, image: Image | None, op: Any) -> None:
        before = world.nodes[name].bitmaps
        original(world, name, image, op)
        size = world.size(world.nodes[name])
        for key, bitmap in world.nodes[name].bitmaps.items():
            if size % bitmap.granularity:
                bits = bitmap.bits.copy()
                bits[-1] = before[key].bits[-1]
                world.put_bitmap(name, key, replace(bitmap, bits=bits))

    return store
