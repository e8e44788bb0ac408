"""Persistent bitmaps: what an image stores when it is closed, and what comes back (semantics 8)."""

from collections.abc import Mapping
from dataclasses import replace

from qbprop_model.bitmap import Bitmap, BitmapRules, ceil_div
from qbprop_model.expectation import Reason
from qbprop_model.image import Image, Refused

NAME_LIMIT = 1023
"""The longest bitmap name, in bytes of UTF-8."""

STORED_LIMIT = 1 << 29
"""Most bytes that the bits of one stored bitmap may take."""

ALIAS_LIMIT = 255
"""The longest name of a bitmap in a migration, in bytes of UTF-8."""


class StorageRules(BitmapRules):
    """How bitmaps survive. Override one method to state another rule.

    ``Image.stored`` is what a file holds, by name. While a disk is open for writing these are
    marked as in use: whatever ends QEMU then leaves them inconsistent.
    """

    def check_storable(self, image: Image, name: str, granularity: int) -> None:
        """Refuse a persistent bitmap that could not be stored (semantics 3, 8.7)."""
        if image.compat == "0.10":
            raise Refused(Reason.PERSISTENT_IN_OLD_IMAGE)
        if len(name.encode()) > NAME_LIMIT:
            raise Refused(Reason.PERSISTENT_NAME_TOO_LONG)
        if not self.fits_image(image.size, granularity):
            raise Refused(Reason.PERSISTENT_TOO_LARGE)

    def fits_image(self, size: int, granularity: int) -> bool:
        """Whether the bits for a disk of ``size`` bytes can be stored (8.7)."""
        return ceil_div(self.length(size, granularity), 8) <= STORED_LIMIT

    def open_image(self, image: Image) -> Image:
        """The file when it has been opened for writing: what it stores is in use (8.1)."""
        in_use = {name: replace(each, inconsistent=True) for name, each in image.stored.items()}
        return replace(image, stored=in_use)

    def close_image(self, image: Image, bitmaps: Mapping[str, Bitmap]) -> Image:
        """The file when it is closed, or opened read-only: all persistent bitmaps are stored.

        What came back as inconsistent stays so (8.2, 8.3), and so does what the file has of a
        bitmap that a migration has renamed: in use, be its name another's by now (8.10). Who uses
        a bitmap is not stored.
        """
        stored = {
            name: replace(each, busy=False)
            for name, each in bitmaps.items()
            if self.is_stored(each)
        }
        return replace(image, stored={**image.stored, **stored})

    def is_stored(self, bitmap: Bitmap) -> bool:
        """Whether a bitmap outlives its node (8.1)."""
        return bitmap.persistent

    def forget(self, image: Image, name: str) -> Image:
        """The file when a persistent bitmap is removed: at once, it is on disk no more (8.5)."""
        return replace(image, stored={k: v for k, v in image.stored.items() if k != name})

    def load(self, image: Image, *, read_only: bool) -> dict[str, Bitmap]:
        """The bitmaps of a node that is opened (8.2 to 8.4)."""
        return {
            name: replace(self.revive(each, image.size), read_only=read_only)
            for name, each in image.stored.items()
        }

    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        """One bitmap as it comes back, bit for bit; in use, it is inconsistent (8.2, 8.3)."""
        if not stored.inconsistent:
            return stored
        clean = self.add(size, stored.granularity, disabled=True)
        return replace(clean, persistent=True, inconsistent=True)

    def check_migrating(self, name: str, bitmap: Bitmap, *, mapped: bool) -> None:
        """Refuse a migration for a bitmap that goes along, ``mapped`` under an alias (8.10)."""
        obstacle = self.obstacle(bitmap, "change")
        if obstacle is not None:
            raise Refused(obstacle, name)
        if not mapped and len(name.encode()) > ALIAS_LIMIT:
            raise Refused(Reason.MIGRATED_NAME_TOO_LONG, name)

    def migrate(self, bitmap: Bitmap) -> Bitmap:
        """A bitmap as it comes out of a migration: bit for bit, flag for flag (8.10)."""
        return bitmap

    def hand_over(self, image: Image, stays: Mapping[str, Bitmap]) -> Image:
        """The file when a migration closes it: bitmaps that do not go along are stored (8.10).

        What the file has of the others stays as it is: in use.
        """
        return self.close_image(image, stays)

    def reopen(self, bitmap: Bitmap, *, read_only: bool) -> Bitmap:
        """A bitmap when its node is made read-only, or writable again (8.4)."""
        return replace(bitmap, read_only=read_only) if bitmap.persistent else bitmap
