"""What a QEMU can do, as it tells itself: never concluded from its version.

All is found in ``query-qmp-schema``. :data:`TABLE` is the one place that says how a feature is
recognised and what is skipped without it; :data:`ESSENTIAL` lists what nothing works without.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from qbprop.errors import EnvironmentProblem
from qbprop.qemu.monitor import Command, Error, Monitor

Entity = Mapping[str, Any]
"""An element of the schema, as QEMU's QMP reference describes it under ``SchemaInfo``."""


@dataclass(frozen=True, slots=True)
class Features:
    """What qbprop uses where a QEMU has it; ``version`` is for display alone."""

    version: str
    blockdev_backup_x_perf: bool
    blockdev_backup_discard_source: bool
    blockdev_backup_on_cbw_error: bool
    drive_backup: bool
    blockdev_reopen: bool
    block_export_add: bool
    export_bitmap_nodes: bool
    human_monitor_command: bool


class Schema:
    """QEMU's description of its own commands."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self._entities = {entity["name"]: entity for entity in entities}

    def has_command(self, name: str) -> bool:
        """Whether the command exists."""
        return self._entities.get(name, {}).get("meta-type") == "command"

    def argument(self, command: str, name: str) -> Entity | None:
        """The type of an argument, of whichever variant; None without it or the command."""
        if not self.has_command(command):
            return None
        return self._member(self._entities[self._entities[command]["arg-type"]], name)

    def element(self, array: Entity) -> Entity:
        """The type of an array's elements."""
        return self._entities[array["element-type"]]

    def _member(self, entity: Entity, name: str) -> Entity | None:
        for member in entity.get("members", []):
            if member["name"] == name:
                return self._entities[member["type"]]
        for variant in entity.get("variants", []):
            found = self._member(self._entities[variant["type"]], name)
            if found is not None:
                return found
        return None


Recognise = Callable[[Schema], bool]


@dataclass(frozen=True, slots=True)
class Feature:
    """``name`` is a field of :class:`Features`, ``what`` its name for people."""

    name: str
    what: str
    recognise: Recognise
    without: str


def _command(name: str) -> Recognise:
    return lambda schema: schema.has_command(name)


def _argument(command: str, name: str) -> Recognise:
    return lambda schema: schema.argument(command, name) is not None


def _bitmap_nodes(schema: Schema) -> bool:
    """Whether an exported bitmap may be an object (node and name) as well as a string."""
    bitmaps = schema.argument("block-export-add", "bitmaps")
    return bitmaps is not None and schema.element(bitmaps)["meta-type"] == "alternate"


TABLE = (
    Feature(
        "blockdev_backup_x_perf",
        "x-perf of blockdev-backup",
        _argument("blockdev-backup", "x-perf"),
        "no backups with few workers or small chunks",
    ),
    Feature(
        "blockdev_backup_discard_source",
        "discard-source of blockdev-backup",
        _argument("blockdev-backup", "discard-source"),
        "no backups that discard what they have copied",
    ),
    Feature(
        "blockdev_backup_on_cbw_error",
        "on-cbw-error of blockdev-backup",
        _argument("blockdev-backup", "on-cbw-error"),
        "no choice of what fails when a copy before a write fails",
    ),
    Feature("drive_backup", "drive-backup", _command("drive-backup"), "no drive-backup"),
    Feature("blockdev_reopen", "blockdev-reopen", _command("blockdev-reopen"), "no reopening"),
    Feature(
        "block_export_add",
        "block-export-add",
        _command("block-export-add"),
        "no guest I/O over NBD; it goes through HMP qemu-io",
    ),
    Feature(
        "export_bitmap_nodes",
        "export bitmaps given as {node, name}",
        _bitmap_nodes,
        "exported bitmaps are given by name alone",
    ),
    Feature(
        "human_monitor_command",
        "human-monitor-command",
        _command("human-monitor-command"),
        "no guest I/O through HMP qemu-io; it goes over NBD",
    ),
)
"""Every feature that may be missing."""

ESSENTIAL: Mapping[str, Recognise] = {
    **{
        command: _command(command)
        for command in (
            *("blockdev-add", "blockdev-del", "block_resize", "query-named-block-nodes"),
            *("block-dirty-bitmap-add", "block-dirty-bitmap-remove", "block-dirty-bitmap-clear"),
            *("block-dirty-bitmap-enable", "block-dirty-bitmap-disable"),
            *("block-dirty-bitmap-merge", "x-debug-block-dirty-bitmap-sha256"),
            *("transaction", "blockdev-backup", "query-jobs", "job-cancel", "job-dismiss"),
        )
    },
    "bitmap-mode of blockdev-backup": _argument("blockdev-backup", "bitmap-mode"),
    "block-export-add or human-monitor-command": lambda schema: (
        schema.has_command("block-export-add") or schema.has_command("human-monitor-command")
    ),
}
"""What every campaign needs; all of it is in QEMU 4.2 and later."""

assert {feature.name for feature in TABLE} == {field.name for field in fields(Features)} - {
    "version"
}


def probe(monitor: Monitor) -> Features:
    """Ask a QEMU what it can do.

    Raises EnvironmentProblem when something essential is missing, and QemuGone.
    """
    version, entities = monitor.execute_all([Command("query-version"), Command("query-qmp-schema")])
    if isinstance(version, Error) or isinstance(entities, Error):
        raise EnvironmentProblem("QEMU cannot describe itself: use QEMU 4.2 or newer")
    number = "{major}.{minor}.{micro}".format(**version["qemu"])
    schema = Schema(entities)
    missing = [what for what, recognise in ESSENTIAL.items() if not recognise(schema)]
    if missing:
        raise EnvironmentProblem(
            f"QEMU {number} is too old, it lacks {', '.join(missing)}: use QEMU 4.2 or newer"
        )
    return Features(number, **{feature.name: feature.recognise(schema) for feature in TABLE})
