"""Wrong rules about commands on one bitmap."""

from dataclasses import replace

import numpy as np
from tests.sensitivity.registry import wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.rules import Rules


@wrong_rule("clearing leaves the bits of the last word where that is not full")
class ClearLeavesThePartialWord(Rules):
    def clear(self, bitmap: Bitmap) -> Bitmap:
        whole = len(bitmap.bits) // 64 * 64
        bits = bitmap.bits.copy()
        bits[:whole] = False
        return replace(bitmap, bits=bits)


@wrong_rule("clearing a disabled bitmap enables it")
class ClearEnables(Rules):
    def clear(self, bitmap: Bitmap) -> Bitmap:
        return self.enable(super().clear(bitmap))


@wrong_rule("clearing a disabled bitmap changes nothing")
class ClearSparesDisabled(Rules):
    def clear(self, bitmap: Bitmap) -> Bitmap:
        return super().clear(bitmap) if bitmap.recording else bitmap


@wrong_rule("enabling a disabled bitmap clears it")
class EnableClears(Rules):
    def enable(self, bitmap: Bitmap) -> Bitmap:
        return super().enable(bitmap if bitmap.recording else self.clear(bitmap))


@wrong_rule("enabling an enabled bitmap disables it")
class EnableToggles(Rules):
    def enable(self, bitmap: Bitmap) -> Bitmap:
        return replace(bitmap, recording=not bitmap.recording)


@wrong_rule("disabling clears the last bit")
class DisableLosesTheLastBit(Rules):
    def disable(self, bitmap: Bitmap) -> Bitmap:
        bits = bitmap.bits.copy()
        bits[-1:] = False
        return super().disable(replace(bitmap, bits=bits))


@wrong_rule("the default granularity is the cluster size, however small")
class DefaultGranularityIsTheCluster(Rules):
    def default_granularity(self, cluster_size: int | None) -> int:
        return 65536 if cluster_size is None else min(max(cluster_size, 512), 65536)


@wrong_rule("a bitmap that is coarser than its disk starts with its bit set")
class SingleBitStartsDirty(Rules):
    def add(self, size: int, granularity: int, *, disabled: bool) -> Bitmap:
        new = super().add(size, granularity, disabled=disabled)
        return replace(new, bits=np.ones_like(new.bits)) if granularity > size else new
