"""What each operation does to the World: one module for each family of operations."""

from qbprop_model.effects import (
    backups,
    bitmaps,
    commands,
    exports,
    graphs,
    guest,
    holds,
    images,
    jobs,
    migration,
    mirrors,
    offline,
    opening,
    transactions,
)
from qbprop_model.effects.dispatch import effect

__all__ = [
    "backups",
    "bitmaps",
    "commands",
    "effect",
    "exports",
    "graphs",
    "guest",
    "holds",
    "images",
    "jobs",
    "migration",
    "mirrors",
    "offline",
    "opening",
    "transactions",
]
