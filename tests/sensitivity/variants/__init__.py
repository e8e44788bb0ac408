"""Wrong rules by family; importing this lists them all in the registry."""

from tests.sensitivity.registry import VARIANTS, Variant
from tests.sensitivity.variants import (
    backups,
    bitmaps,
    commands,
    disks,
    exports,
    faults,
    graphs,
    guests,
    holds,
    jobs,
    merges,
    migration,
    mirrors,
    resizes,
    storage,
    transactions,
)

__all__ = [
    "VARIANTS",
    "Variant",
    "backups",
    "bitmaps",
    "commands",
    "disks",
    "exports",
    "faults",
    "graphs",
    "guests",
    "holds",
    "jobs",
    "merges",
    "migration",
    "mirrors",
    "resizes",
    "storage",
    "transactions",
]
