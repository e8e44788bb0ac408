"""Wrong rules about what goes along to another QEMU."""

from collections.abc import Mapping
from dataclasses import replace

from tests.sensitivity.registry import wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.image import Image
from qbprop_model.rules import Rules


@wrong_rule("a disabled bitmap is enabled by a migration")
class MigratedIsEnabled(Rules):
    def migrate(self, bitmap: Bitmap) -> Bitmap:
        return replace(bitmap, recording=True)


@wrong_rule("an enabled bitmap is disabled by a migration")
class MigratedIsDisabled(Rules):
    def migrate(self, bitmap: Bitmap) -> Bitmap:
        return replace(bitmap, recording=False)


@wrong_rule("a persistent bitmap is not persistent behind a migration")
class MigratedIsTransient(Rules):
    def migrate(self, bitmap: Bitmap) -> Bitmap:
        return replace(bitmap, persistent=False)


@wrong_rule("a migration loses the last bit of a bitmap")
class MigratedWithoutItsLastBit(Rules):
    def migrate(self, bitmap: Bitmap) -> Bitmap:
        bits = bitmap.bits.copy()
        bits[-1:] = False
        return replace(bitmap, bits=bits)


@wrong_rule("a migration loses the bits behind the first word")
class MigratedWithoutTheSecondWord(Rules):
    def migrate(self, bitmap: Bitmap) -> Bitmap:
        bits = bitmap.bits.copy()
        bits[64:] = False
        return replace(bitmap, bits=bits)


@wrong_rule("bitmaps that do not go along are not stored")
class LeftBehindIsLost(Rules):
    def hand_over(self, image: Image, stays: Mapping[str, Bitmap]) -> Image:
        return super().hand_over(image, {})


@wrong_rule("a stored bitmap that goes along under another name leaves nothing in the file")
class RenamedLeavesNothing(Rules):
    def hand_over(self, image: Image, stays: Mapping[str, Bitmap]) -> Image:
        return super().hand_over(replace(image, stored={}), stays)


@wrong_rule("a bitmap with a long name is migrated")
class LongNamesMigrate(Rules):
    def check_migrating(self, name: str, bitmap: Bitmap, *, mapped: bool) -> None:
        super().check_migrating(name, bitmap, mapped=True)


@wrong_rule("an inconsistent bitmap is migrated")
class InconsistentMigrates(Rules):
    def check_migrating(self, name: str, bitmap: Bitmap, *, mapped: bool) -> None:
        super().check_migrating(name, replace(bitmap, inconsistent=False), mapped=mapped)
