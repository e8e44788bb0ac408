"""Hazards: steps that are known to lead some QEMU astray, told from the operations alone.

A bug that corrupts memory or an image shows itself anywhere: as a crash, a hang, wrong bytes
many steps later. What follows such a step is therefore named after the hazard and not after
the step at which it came to light, so that one bug has one identity for each kind of finding
and hides no other. A QEMU without the bug is checked behind a hazard as everywhere.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from qbprop.findings import KINDS
from qbprop_model.expectation import FLOOD, Expectation, Reason
from qbprop_model.image import Alloc, Image
from qbprop_model.operations import (
    Abort,
    Action,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockCommit,
    BlockdevBackup,
    BlockdevSnapshot,
    BlockStream,
    ChangeBitmap,
    CloseDisk,
    DriveBackup,
    Flush,
    JobSetSpeed,
    Migrate,
    Operation,
    ReopenDisk,
    Resize,
    Restart,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.ranges import within
from qbprop_model.state import Node
from qbprop_model.world import World


@dataclass(frozen=True)
class Hazard:
    """What findings are named after: a label, and the kinds of finding that it explains.

    After a ``lasting`` one nothing in the example can be trusted; others end with their step.
    """

    label: str
    kinds: frozenset[str]
    lasting: bool = False

    def identity(self, kind: str) -> str:
        """The id of a finding of this kind that is named after it."""
        return KINDS[kind](self.label, "", "", "").id


EMPTY_MERGE = Hazard("a merge of nothing", frozenset({"crash", "reply"}))
FAILED_ENABLE = Hazard("undoing a failed enable", frozenset({"crash", "fields"}))
ALWAYS_UNDONE = Hazard("undoing a backup with mode always", frozenset({"count", "dirty-set"}))
ALWAYS_STALE = Hazard(
    "undoing what came before a backup with mode always", frozenset(KINDS), lasting=True
)
REMOVAL_UNDONE = Hazard(
    "undoing the removal of an inconsistent bitmap", frozenset({"fields", "reply"}), lasting=True
)
GROUP_UNDONE = Hazard("undoing a group of backups", frozenset({"hang"}))
FILTER_BACKUP = Hazard("undoing a backup of a job's filter", frozenset(KINDS), lasting=True)
TWO_BACKUPS = Hazard("backups of one disk that end beside another", frozenset(KINDS), lasting=True)
COMPRESSED_REUSE = Hazard(
    "a compressed write behind a freed compressed cluster",
    frozenset(KINDS) - {"count", "dirty-set", "fields", "hang"},
    lasting=True,
)
HELD_COPY = Hazard("a copy before a write beside a limited job", frozenset({"hang"}), lasting=True)
EXPORTED_RESIZE = Hazard(
    "a resize of a disk whose bitmap another's export has", frozenset({"crash"})
)
EXPORTED_FILTER = Hazard("the end of a filter whose bitmap is exported", frozenset({"crash"}))
CONCLUDED = Hazard("a look at the nodes behind a job that has concluded", frozenset({"crash"}))
IGNORED_FOR_EVER = Hazard("a lasting error that a job ignores", frozenset({"hang"}), lasting=True)
DRAINED = Hazard("a drive-backup without its target", frozenset({"hang", "events"}), lasting=True)
EMPTY_DISK = Hazard("a backup of an empty disk", frozenset({"crash"}))
ENDLESS_RESIZE = Hazard("a resize to more than any disk can have", frozenset({"crash", "reply"}))
FAILED_RESIZE = Hazard("a new size that cannot be written", frozenset({"fields"}))
EMPTY_STORED = Hazard(
    "closing an empty disk that has persistent bitmaps",
    frozenset({"reply", "fields"}),
    lasting=True,
)
UNMAPPED = Hazard(
    "a migration beside a bitmap that cannot go along and is not to", frozenset({"reply"})
)
COARSE_MIGRATION = Hazard(
    "the migration of a coarse bitmap of a huge disk", frozenset({"hang", "crash"})
)
HALF_ACTIVE = Hazard(
    "a migration of drives and a node that is none",
    frozenset({"fields", "reply", "crash"}),
    lasting=True,
)
EMPTY_MIGRATION = Hazard("the migration of a bitmap of an empty disk", frozenset({"crash"}))
STREAM_KILLED = Hazard(
    "a kill behind a stream that nothing has flushed", frozenset(KINDS), lasting=True
)
SHORT_LAYER = Hazard(
    "taking out a layer that is shorter than its base",
    frozenset(KINDS) - {"crash", "hang"},
    lasting=True,
)
DAEMON_END = Hazard("the orderly end of a storage daemon", frozenset(KINDS), lasting=True)

HAZARDS = (
    EMPTY_MERGE,
    FAILED_ENABLE,
    EXPORTED_RESIZE,
    EXPORTED_FILTER,
    ALWAYS_UNDONE,
    ALWAYS_STALE,
    REMOVAL_UNDONE,
    GROUP_UNDONE,
    FILTER_BACKUP,
    TWO_BACKUPS,
    COMPRESSED_REUSE,
    HELD_COPY,
    CONCLUDED,
    IGNORED_FOR_EVER,
    FAILED_RESIZE,
    DRAINED,
    EMPTY_DISK,
    EMPTY_STORED,
    ENDLESS_RESIZE,
    UNMAPPED,
    COARSE_MIGRATION,
    EMPTY_MIGRATION,
    HALF_ACTIVE,
    STREAM_KILLED,
    SHORT_LAYER,
    DAEMON_END,
)
"""All of them; where several explain a finding, the first in this order names it.

What crashes QEMU in its own step each time comes before what may show itself at any time later.
"""

CHUNK = 8 * 1024
"""Bits of a bitmap that QEMU migrates at once."""

CHUNK_LIMIT = 2**32 * 512
"""Bytes of a disk: QEMU counts in 32 bits how many sectors the bits are for."""

LARGEST_DISK = 2**63 - 2**30
"""Bytes: no QEMU makes a disk larger than that."""

WITHOUT_TARGET = frozenset(
    {
        Reason.NO_SUCH_FILE,
        Reason.IMAGE_LOCKED,
        Reason.IMAGE_REFUSED,
        Reason.WRONG_FORMAT,
        Reason.BACKING_UNSUPPORTED,
        Reason.NODE_BUSY,
    }
)
"""Why a ``drive-backup`` does not come to make or open its target."""


def known_hazards(ids: Collection[str]) -> frozenset[Hazard]:
    """The hazards of which a finding is among ``ids``: QEMU is known to fall for them."""
    return frozenset(h for h in HAZARDS if any(h.identity(kind) in ids for kind in h.kinds))


@dataclass
class Hazards:
    """What one example went through: the hazards of this step, and the lasting ones before."""

    active: tuple[Hazard, ...] = ()
    _freed: set[str] = field(default_factory=set)
    _unwritten: set[str] = field(default_factory=set)

    def see(
        self,
        operation: Operation | None,
        provoked: Collection[Hazard],
        before: World,
        after: World,
    ) -> None:
        """Note an operation that was performed, if any, and what is ``provoked``."""
        met = {*provoked, *(hazard for hazard in self.active if hazard.lasting)}
        self.active = tuple(hazard for hazard in HAZARDS if hazard in met)
        for name, image in after.images.items():
            old = before.images.get(name)
            if old is not None and old is not image and _frees_compressed(old, image):
                self._freed.add(name)
        if isinstance(operation, BlockStream | Flush) and (node := after.find(operation.node)):
            self._unwritten.discard(node.image)
            if isinstance(operation, BlockStream):
                self._unwritten.add(node.image)
        self._unwritten &= {node.image for node in after.nodes.values()}

    def see_end(self, world: World) -> None:
        """Note that an example ends, in this World, and all its jobs with it."""
        filters = {job.filter for job in world.jobs.values() if job.active}
        exported = (node for each in world.exports.values() for node, _ in each.bitmaps)
        if not filters.isdisjoint(exported):
            self.see(None, (*self.active, EXPORTED_FILTER), world, world)

    def explains(
        self, kind: str, known: Collection[str], harmless: Collection[Hazard] = ()
    ) -> Hazard | None:
        """The hazard that a finding of this kind is named after, if any that is not ``harmless``.

        One of which that is ``known`` comes before one that nobody has seen to do that.
        """
        able = [each for each in self.active if kind in each.kinds and each not in harmless]
        seen = (hazard for hazard in able if hazard.identity(kind) in known)
        return next(seen, next(iter(able), None))

    def provoked(
        self, operation: Operation, expected: Expectation, before: World
    ) -> Iterator[Hazard]:
        """What an operation provokes, in the World ``before`` it."""
        actions = operation.actions if isinstance(operation, Transaction) else (operation,)
        if isinstance(operation, Transaction) and expected.refusal is not None:
            yield from _undone(operation, expected, before)
        elif expected.refusal is None and _crowded(_sources(actions, before), before):
            yield TWO_BACKUPS
        copies_small = isinstance(operation, Write | WriteZeroes) and _copies_small(
            operation, before
        )
        if copies_small or any(_limits_blindly(action, before) for action in actions):
            yield HELD_COPY
        if isinstance(operation, Resize) and _is_refused(expected, Reason.BITMAP_BUSY):
            yield EXPORTED_RESIZE
        exported = {node for each in before.exports.values() for node, _ in each.bitmaps}
        if isinstance(operation, Restart):
            filters = {name for name, node in before.nodes.items() if node.filters is not None}
            gone = operation.how != "kill" and not filters.isdisjoint(exported)
        else:
            gone = not expected.bitmaps.keys() >= exported
        if gone:
            yield EXPORTED_FILTER
        if any(isinstance(action, BitmapMerge) and not action.sources for action in actions):
            yield EMPTY_MERGE
        if any(FLOOD in words for words in expected.words.values()):
            yield IGNORED_FOR_EVER
        if _is_refused(expected, Reason.SIZE_NOT_WRITTEN):
            yield FAILED_RESIZE
        if isinstance(operation, Resize) and operation.size > LARGEST_DISK:
            yield ENDLESS_RESIZE
        if _without_target(operation, expected):
            yield DRAINED
        if _backs_up_nothing(actions, before):
            yield EMPTY_DISK
        if expected.refusal is None and any(_stores_in_vain(each, before) for each in actions):
            yield EMPTY_STORED
        if isinstance(operation, Restart) and _ends_daemon(operation, before):
            yield DAEMON_END
        if isinstance(operation, Restart) and operation.how == "kill" and self._unwritten:
            yield STREAM_KILLED
        if expected.refusal is None and _uncovers(operation, before):
            yield SHORT_LAYER
        if isinstance(operation, Migrate):
            yield from _migrated(operation, before)
        if isinstance(operation, ChangeBitmap) and _empties(operation, before):
            yield EMPTY_STORED
        if isinstance(operation, WriteCompressed):
            node = before.find(operation.node)
            if node is not None and node.image in self._freed:
                yield COMPRESSED_REUSE
        if any(job.status == "concluded" for job in expected.alive.values()):
            yield CONCLUDED


def _is_refused(expected: Expectation, reason: Reason) -> bool:
    return expected.refusal is not None and expected.refusal.reason is reason


def _without_target(operation: Operation, expected: Expectation) -> bool:
    """Whether a ``drive-backup`` has failed at its target."""
    refusal = expected.refusal
    if refusal is None or refusal.reason not in WITHOUT_TARGET:
        return False
    return isinstance(operation, DriveBackup) or refusal.action == "drive_backup"


def _backs_up_nothing(actions: Sequence[Operation], before: World) -> bool:
    """Whether a backup is made of a disk without a byte."""
    for action in actions:
        if isinstance(action, DriveBackup | BlockdevBackup):
            node = before.find(action.node)
            if node is not None and not before.size(node):
                return True
    return False


def _stores_in_vain(operation: Operation, before: World) -> bool:
    """Whether an operation stores the bitmaps of a disk without a byte."""
    return any(
        _closes(operation, name, node)
        and not before.size(node)
        and any(each.persistent and not each.inconsistent for each in node.bitmaps.values())
        for name, node in before.nodes.items()
        if not node.read_only
    )


def _closes(operation: Operation, name: str, node: Node) -> bool:
    """Whether an operation closes a node in order, or makes it read-only."""
    match operation:
        case CloseDisk(node=reference):
            return reference in (name, node.drive)
        case ReopenDisk(node=reference, read_only=read_only):
            return reference == name and read_only
        case BlockdevSnapshot(node=reference):
            return reference == name
        case Restart(how=how):
            return how != "kill"
        case Migrate():
            return True
    return False


def _ends_daemon(operation: Restart, before: World) -> bool:
    """Whether a storage daemon, which has no human monitor, ends with something open."""
    daemon = not before.traits.human_monitor_command
    return daemon and operation.how != "kill" and bool(before.nodes)


def _uncovers(operation: Operation, before: World) -> bool:
    """Whether a disk is to stand on a base that shows where what was between had ended."""
    if not isinstance(operation, BlockCommit | BlockStream) or operation.base is None:
        return False
    names = before.chain_names(before.nodes[operation.node].image)
    if isinstance(operation, BlockStream):
        over, gone = names[:2]
    elif operation.top is not None:
        gone = before.nodes[operation.top].image
        over = names[names.index(gone) - 1]
    else:
        return False
    images, base = before.images, before.chain(before.nodes[operation.base].image)
    return bool(before.rules.uncovered(images[over].size, images[gone], base))


def _migrated(operation: Migrate, before: World) -> Iterator[Hazard]:
    """What a migration provokes."""
    for disks in before.nodes.values(), operation.disks:
        if len({disk.drive is None for disk in disks}) > 1:
            yield HALF_ACTIVE
    if not operation.bitmaps:
        return
    bitmaps = before.named_bitmaps()
    goes = set(bitmaps)
    if operation.mapping is not None:
        goes = {(each.node, each.name) for each in operation.mapping}
    nodes = {node for node, _ in goes}
    for key, bitmap in bitmaps.items():
        size = before.size(before.nodes[key[0]])
        stuck = before.rules.obstacle(bitmap, "change") is not None
        if stuck and key not in goes and key[0] in nodes:
            yield UNMAPPED
        if key in goes and min(CHUNK * bitmap.granularity, size) >= CHUNK_LIMIT:
            yield COARSE_MIGRATION
        if key in goes and not size:
            yield EMPTY_MIGRATION


def _empties(operation: ChangeBitmap, before: World) -> bool:
    """Whether ``qemu-img`` stores bitmaps in an image without a byte."""
    image = before.images.get(f"{operation.node}.0")
    if image is None:
        return False
    adds = any(action.kind == "add" for action in operation.actions)
    return not image.size and (adds or bool(image.stored))


def _crowded(sources: Sequence[str], before: World) -> bool:
    """Whether a disk gets a second backup while it has one."""
    return not before.backed_up.isdisjoint(sources) or len(sources) > len(set(sources))


def _copies_small(operation: Write | WriteZeroes, before: World) -> bool:
    """Whether a guest's write has a limited job's disk copied before it, and that takes tables.

    The disk has small clusters, or more than one L2 table.
    """
    reached = before.find(operation.node)
    if reached is None:
        return False
    layers = before.chain(reached.image)
    tables = [layer for layer in layers if layer.format == "qcow2"]
    if not any(each.cluster_size < 4096 or each.table_size < each.size for each in tables):
        return False
    return any(
        job.active
        and job.speed
        and before.nodes[job.node].image == reached.image
        and within(job.left, *before.rules.intercepted(job, operation.offset, operation.length))
        for job in before.jobs.values()
    )


def _limits_blindly(action: Operation, before: World) -> bool:
    """Whether a limited job is to read a disk that does not tell its block status."""
    match action:
        case DriveBackup(node=node, speed=speed) | BlockdevBackup(node=node, speed=speed):
            source = before.roots.get(node, node)
        case JobSetSpeed(job=job, speed=speed) if job in before.jobs:
            source = before.jobs[job].node
        case _:
            return False
    return speed > 0 and before.blind(source) is not None


def _sources(actions: Sequence[Operation], before: World) -> list[str]:
    """The nodes that the backups among some actions read, in order."""
    backups = (action for action in actions if isinstance(action, DriveBackup | BlockdevBackup))
    return [before.roots.get(backup.node, backup.node) for backup in backups]


def _undone(operation: Transaction, expected: Expectation, before: World) -> Iterator[Hazard]:
    """What a transaction provokes that must be rolled back."""
    refusal = expected.refusal
    assert refusal is not None
    reached = operation.actions[: refusal.position + 1]
    backups = [a for a in reached if isinstance(a, DriveBackup | BlockdevBackup)]
    nodes = _sources(backups, before)
    if refusal.action == "bitmap_enable" or _passes_to_enable(operation, refusal.position):
        yield FAILED_ENABLE
    if operation.grouped and len(expected.jobs) > 1:
        yield GROUP_UNDONE
    if expected.jobs and any(backup.bitmap_mode == "always" for backup in backups):
        if _stale(reached):
            yield ALWAYS_STALE
        yield ALWAYS_UNDONE
    if any(_removes_inconsistent(action, before) for action in reached[:-1]):
        yield REMOVAL_UNDONE
    if any(b.node in before.roots and nodes[i] in nodes[:i] for i, b in enumerate(backups)):
        yield FILTER_BACKUP


def _passes_to_enable(operation: Transaction, position: int) -> bool:
    """Whether a merge of nothing is refused, which QEMU lets pass, and an enable follows."""
    refused, *behind = operation.actions[position:]
    empty = isinstance(refused, BitmapMerge) and not refused.sources
    return empty and any(isinstance(action, BitmapEnable) for action in behind)


def _removes_inconsistent(action: Action, before: World) -> bool:
    """Whether an action removes a bitmap that is inconsistent, which QEMU stores no more."""
    if not isinstance(action, BitmapRemove):
        return False
    node = before.find(action.node)
    bitmap = None if node is None else node.bitmaps.get(action.name)
    return bitmap is not None and bitmap.inconsistent


def _stale(actions: Sequence[Action]) -> bool:
    """Whether a backup with mode "always" takes a bitmap that an action before it has touched."""
    touched: set[str] = set()
    for action in actions:
        match action:
            case DriveBackup() | BlockdevBackup():
                if action.bitmap_mode == "always" and action.bitmap in touched:
                    return True
            case BitmapMerge():
                touched.add(action.target)
            case Abort() | BlockdevSnapshot():
                pass
            case _:
                touched.add(action.name)
    return False


def _frees_compressed(old: Image, new: Image) -> bool:
    """Whether a compressed cluster of an image is compressed no more."""
    kept = new.alloc.size
    return any(
        end > kept or any(now is not Alloc.COMPRESSED for _, _, now in new.alloc.runs(start, end))
        for start, end, kind in old.alloc.runs()
        if kind is Alloc.COMPRESSED
    )
