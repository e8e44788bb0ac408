"""Wrong rules about merging bitmaps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap, Bits
from qbprop_model.expectation import Reason
from qbprop_model.operations import BitmapMerge, InvalidOperationError, MergeSource, Transaction
from qbprop_model.rules import Rules
from qbprop_model.world import World


@wrong_rule("a coarse bit sets only the first of the fine ones that it covers")
class CoarseSetsTheFirstFine(Rules):
    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        if source <= target:
            return super().project(bits, source, target, size)
        fine = np.zeros(self.length(size, target), np.bool_)
        fine[np.flatnonzero(bits) * (source // target)] = True
        return fine


@wrong_rule("of the coarse bits only those whose cluster ends on the disk reach a fine bitmap")
class CoarseLosesThePartialCluster(Rules):
    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        if source > target and size % source:
            bits = bits.copy()
            bits[-1:] = False
        return super().project(bits, source, target, size)


@wrong_rule("fine bits set a coarse one only where they all are set")
class FineMustBeFull(Rules):
    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        if source >= target:
            return super().project(bits, source, target, size)
        per = target // source
        padded = np.ones(self.length(size, target) * per, np.bool_)
        padded[: len(bits)] = bits
        full: Bits = np.logical_and.reduce(padded.reshape(-1, per), axis=1)
        return full


@wrong_rule("merging fine bits into a coarse bitmap loses those behind the first word")
class FineLosesTheSecondWord(Rules):
    def project(self, bits: Bits, source: int, target: int, size: int) -> Bits:
        if source < target:
            bits = bits.copy()
            bits[64:] = False
        return super().project(bits, source, target, size)


@wrong_rule("a merge replaces the target's bits")
class MergeReplaces(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        blank = self.clear(target) if len(sources) else target
        return super().merge(blank, sources, size)


@wrong_rule("a merge takes only the last of its sources")
class MergeTakesTheLast(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        return super().merge(target, sources[-1:], size)


@wrong_rule("a bitmap merged into itself becomes clean")
class MergeWithItselfCancels(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        merged = super().merge(target, sources, size)
        return self.clear(merged) if any(source is target for source in sources) else merged


@wrong_rule("a disabled bitmap takes in nothing")
class DisabledTakesNothing(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        return super().merge(target, sources, size) if target.recording else target


@wrong_rule("the target of a merge records from then on if its source does")
class MergeCopiesRecording(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        merged = super().merge(target, sources, size)
        recording = any(source.recording for source in sources)
        return replace(merged, recording=merged.recording or recording)


@wrong_effect("a merge that fails keeps what its first sources brought", World, "apply")
def failed_merge_kept(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        expected = original(world, operation)
        if not isinstance(operation, BitmapMerge) or expected.refusal is None:
            return expected
        for count in range(len(operation.sources) - 1, 0, -1):
            first = replace(operation, sources=operation.sources[:count])
            trial = world.copy()
            if original(trial, first).refusal is None:
                kept = original(world, first)
                return replace(kept, refusal=expected.refusal)
        return expected

    return apply


@wrong_effect("a merge from another disk takes the bitmap of that name of its own", World, "apply")
def merge_ignores_the_node(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        if not isinstance(operation, BitmapMerge):
            return original(world, operation)
        own = tuple(MergeSource(name=source.name) for source in operation.sources)
        trial = world.copy()
        try:
            if original(trial, replace(operation, sources=own)).refusal is None:
                return original(world, replace(operation, sources=own))
        except InvalidOperationError:
            pass
        return original(world, operation)

    return apply


@wrong_effect("disks of one number of 64 KiB can be merged", World, "apply")
def sizes_differ_by_little(original: Any) -> Any:
    def apply(world: World, operation: Any) -> Any:
        expected = original(world, operation)
        actions = operation.actions if isinstance(operation, Transaction) else (operation,)
        merged = [action for action in actions if isinstance(action, BitmapMerge)]
        names = {each.node for each in merged}
        names |= {source.node for each in merged for source in each.sources if source.node}
        found = filter(None, map(world.find, names))
        alike = len({-(-world.size(node) // 65536) for node in found}) == 1
        if expected.refusal is not None and expected.refusal.reason is Reason.BITMAP_SIZES_DIFFER:
            return replace(expected, refusal=None) if alike else expected
        return expected

    return apply
