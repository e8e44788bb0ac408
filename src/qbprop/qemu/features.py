"""What a QEMU can do and is like, as it shows itself: never concluded from its version.

All is found in ``query-qmp-schema``, and by trials of commands that change nothing.
:data:`TABLE` is the one place that says how a feature is recognised and what becomes of a
campaign without it; :data:`ESSENTIAL` lists what nothing works without.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from qbprop.errors import EnvironmentProblem
from qbprop.qemu.monitor import Command, Error, Monitor, Reply
from qbprop_model.traits import Traits

Entity = Mapping[str, Any]
"""An element of the schema, as QEMU's QMP reference describes it under ``SchemaInfo``."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a QEMU has; ``version`` is for display alone.

    The fields that are named as those of :class:`Traits` are what the model asks for.
    """

    version: str
    blockdev_backup_x_perf: bool
    blockdev_backup_discard_source: bool
    blockdev_backup_on_cbw_error: bool
    drive_backup: bool
    blockdev_reopen: bool
    block_export_add: bool
    export_bitmap_nodes: bool
    human_monitor_command: bool
    groups_checked_first: bool
    copy_bitmap_on_filter: bool
    unmap_needs_discard: bool
    merge_checks_target_last: bool
    exports_check_use_first: bool
    raw_takes_backing: bool
    empty_discards_count: bool
    discards_split: bool
    graph_waits: bool
    filter_end_flushes: bool
    commit_skips_zeroes: bool
    mirror_bitmap_on_filter: bool
    cancelled_commit_freezes: bool
    skip_broken_bitmaps: bool
    copy_before_write: bool
    migrate: bool
    bitmap_mapping: bool
    announces_switchover: bool
    trace_events: bool

    @property
    def traits(self) -> Traits:
        """What the model is told."""
        found = asdict(self)
        return Traits(**{field.name: found[field.name] for field in fields(Traits)})


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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a QEMU has shown of itself: its schema, and its replies to :data:`TRIALS`."""

    schema: Schema
    replies: Mapping[str, Reply]


@dataclass(frozen=True, slots=True)
class Sign:
    """By what a feature is recognised, in words for people and as a function."""

    words: str
    seen: Callable[[Evidence], bool]


@dataclass(frozen=True, slots=True)
class Feature:
    """``name`` is a field of :class:`Features`, ``what`` its name for people.

    ``without`` tells what is skipped, or else what is true, of a QEMU that lacks it.
    """

    name: str
    what: str
    sign: Sign
    without: str


def _command(name: str) -> Sign:
    return Sign(f"the command {name}", lambda shown: shown.schema.has_command(name))


def _argument(command: str, name: str) -> Sign:
    return Sign(
        f"{name} of {command}", lambda shown: shown.schema.argument(command, name) is not None
    )


def _lacking(command: str, name: str) -> Sign:
    there = _argument(command, name)
    return Sign(f"no {there.words}", lambda shown: not there.seen(shown))


def _exports_bitmap_nodes(shown: Evidence) -> bool:
    """Whether an exported bitmap may be an object (node and name) as well as a string."""
    bitmaps = shown.schema.argument("block-export-add", "bitmaps")
    return bitmaps is not None and shown.schema.element(bitmaps)["meta-type"] == "alternate"


def _exports_bitmap_names_alone(shown: Evidence) -> bool:
    return not _exports_bitmap_nodes(shown)


def _copies_before_write(shown: Evidence) -> bool:
    driver = shown.schema.argument("blockdev-add", "driver")
    return driver is not None and "copy-before-write" in driver["values"]


def _announces_switchover(shown: Evidence) -> bool:
    properties = shown.replies[MIGRATION_PROPERTIES]
    return isinstance(properties, list) and any(
        each["name"] == "send-switchover-start" for each in properties
    )


def _refused(trial: str, text: str) -> Sign:
    def seen(shown: Evidence) -> bool:
        reply = shown.replies[trial]
        return isinstance(reply, Error) and text in reply.text

    return Sign(f"trial: {trial}", seen)


MIGRATION_PROPERTIES = "the properties of migration"

TRIALS: Mapping[str, Command] = {
    "a grouped transaction of abort alone": Command(
        "transaction",
        {
            "actions": [{"type": "abort", "data": {}}],
            "properties": {"completion-mode": "grouped"},
        },
    ),
    MIGRATION_PROPERTIES: Command("qom-list-properties", {"typename": "migration"}),
}
"""What is tried on a QEMU that has just been launched; nothing of it changes anything."""

TABLE = (
    Feature(
        "blockdev_backup_x_perf",
        "x-perf of blockdev-backup",
        _argument("blockdev-backup", "x-perf"),
        "backups copy one job cluster at a time, or let the host copy; no speed limit, no pause",
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
        Sign("objects among bitmaps of block-export-add", _exports_bitmap_nodes),
        "exported bitmaps are given by name alone",
    ),
    Feature(
        "human_monitor_command",
        "human-monitor-command",
        _command("human-monitor-command"),
        "no drives, compressed writes or held writes; guest I/O goes over NBD",
    ),
    Feature(
        "groups_checked_first",
        "groups refuse what cannot be grouped before they begin",
        _refused("a grouped transaction of abort alone", "completion-mode"),
        "such an action is refused in its turn, and abort can be grouped",
    ),
    Feature(
        "copy_bitmap_on_filter",
        "a backup's copy bitmap belongs to its filter",
        # Both came in one series of changes to QEMU.
        _argument("blockdev-backup", "discard-source"),
        "it belongs to the source",
    ),
    Feature(
        "unmap_needs_discard",
        "zeroing frees clusters only with discard=unmap",
        # Both came with QEMU 9.1; to see it otherwise takes an image.
        _argument("blockdev-backup", "discard-source"),
        "zeroing with unmap frees clusters of every node",
    ),
    Feature(
        "merge_checks_target_last",
        "a merge is refused for its sources before its target",
        # Seen where this is missing; to see it otherwise takes bitmaps in use.
        _lacking("blockdev-backup", "x-perf"),
        "in the order of the sources, each after the target",
    ),
    Feature(
        "exports_check_use_first",
        "an exported bitmap is refused for being in use before it is for recording",
        # Seen where this is missing; to see it otherwise takes bitmaps in use.
        Sign("no objects among bitmaps of block-export-add", _exports_bitmap_names_alone),
        "a read-only export refuses a bitmap that records first",
    ),
    Feature(
        "raw_takes_backing",
        "drive-backup with sync none opens a raw target over its disk",
        # Seen where this is missing; to see it otherwise takes an image.
        _lacking("blockdev-backup", "x-perf"),
        "it is refused",
    ),
    Feature(
        "empty_discards_count",
        "a discard of nothing is something to flush",
        # Seen where this is; to see it otherwise takes a disk with faults.
        _argument("blockdev-backup", "x-perf"),
        "it is nothing",
    ),
    Feature(
        "discards_split",
        "a discard gets to a filter in parts, cut at clusters",
        # Seen where this is; to see it otherwise takes a disk with faults.
        _argument("blockdev-backup", "x-perf"),
        "it gets there as a whole",
    ),
    Feature(
        "graph_waits",
        "changes of the block graph wait for requests in flight, and no write is held",
        # Seen where this is, from 10.0 on; to see it otherwise takes a request that never ends.
        _argument("blockdev-backup", "discard-source"),
        "guests' writes are held in flight",
    ),
    Feature(
        "filter_end_flushes",
        "a backup's filter flushes its disk as it goes",
        # Seen where this is, from 10.0 on; to see it otherwise takes a disk with faults.
        _argument("blockdev-backup", "discard-source"),
        "it flushes nothing",
    ),
    Feature(
        "commit_skips_zeroes",
        "commits and mirrors write no zeroes where they know that zeroes are",
        # Both came in one series of changes to QEMU.
        _argument("blockdev-mirror", "target-is-zero"),
        "it writes them",
    ),
    Feature(
        "mirror_bitmap_on_filter",
        "a mirror's bitmap belongs to its filter",
        # Both came in one series of changes to QEMU.
        _command("block-job-change"),
        "it belongs to the source",
    ),
    Feature(
        "cancelled_commit_freezes",
        "the base of a cancelled commit is read-only again",
        # Seen where this is, from 10.0 on; to see it otherwise takes a chain.
        _argument("blockdev-backup", "discard-source"),
        "it stays writable",
    ),
    Feature(
        "skip_broken_bitmaps",
        "--skip-broken-bitmaps of qemu-img convert",
        # Both came with QEMU 6.1.
        Sign("copy-before-write among the drivers of blockdev-add", _copies_before_write),
        "inconsistent bitmaps are not converted",
    ),
    Feature(
        "copy_before_write",
        "the block driver copy-before-write",
        Sign("copy-before-write among the drivers of blockdev-add", _copies_before_write),
        "the filter of a backup keeps no bitmaps",
    ),
    Feature("migrate", "live migration", _command("migrate"), "no migration"),
    Feature(
        "bitmap_mapping",
        "bitmaps are renamed by a migration",
        _argument("migrate-set-parameters", "block-bitmap-mapping"),
        "bitmaps keep their names in a migration",
    ),
    Feature(
        "announces_switchover",
        "a migration announces its end to the destination",
        Sign("send-switchover-start among the properties of migration", _announces_switchover),
        "every QEMU understands its migration stream",
    ),
    Feature(
        "trace_events",
        "trace events that are switched over QMP",
        _command("trace-event-set-state"),
        "what QEMU does inside is no measure of what was reached",
    ),
)
"""Every feature that may be missing."""

ESSENTIAL: Mapping[str, Sign] = {
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
    "block-export-add or human-monitor-command": Sign(
        "either command",
        lambda shown: (
            shown.schema.has_command("block-export-add")
            or shown.schema.has_command("human-monitor-command")
        ),
    ),
}
"""What every campaign needs; all of it is in QEMU 4.2 and later."""

assert [field.name for field in fields(Features)] == [
    "version",
    *(feature.name for feature in TABLE),
]


def probe(monitor: Monitor) -> Features:
    """Ask a QEMU what it can do.

    Raises EnvironmentProblem when something essential is missing, and QemuGone.
    """
    version, entities, *replies = monitor.execute_all(
        [Command("query-version"), Command("query-qmp-schema"), *TRIALS.values()]
    )
    if isinstance(version, Error) or isinstance(entities, Error):
        raise EnvironmentProblem("QEMU cannot describe itself: use QEMU 4.2 or newer")
    number = "{major}.{minor}.{micro}".format(**version["qemu"])
    shown = Evidence(Schema(entities), dict(zip(TRIALS, replies, strict=True)))
    missing = [what for what, sign in ESSENTIAL.items() if not sign.seen(shown)]
    if missing:
        raise EnvironmentProblem(
            f"QEMU {number} is too old, it lacks {', '.join(missing)}: use QEMU 4.2 or newer"
        )
    return Features(number, *(feature.sign.seen(shown) for feature in TABLE))
