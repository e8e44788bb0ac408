"""A second, deliberately naive World: bitmaps are sets of cluster numbers, disks are bytes.

Written from the semantics document; slow, and simple enough to be seen to be right.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.model.naive_disk import Files, RefusedNaively, compresses

from qbprop_model.data import Data
from qbprop_model.expectation import BitmapState, JobEnd, Reason
from qbprop_model.operations import (
    BAD_EXPORTS,
    Abort,
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockdevBackup,
    CreateImage,
    Discard,
    DriveBackup,
    ExportAdd,
    ExportDel,
    Flush,
    InvalidOperationError,
    Layer,
    OpenOutcomeError,
    Operation,
    Read,
    ReadDirtyExtents,
    RebaseImage,
    Resize,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)


@dataclass
class NaiveBitmap:
    """``dirty`` holds the numbers of the dirty clusters."""

    granularity: int
    recording: bool
    dirty: set[int] = field(default_factory=set)
    successor: set[int] | None = None
    busy: bool = False

    def length(self, size: int) -> int:
        """Number of clusters, the last one perhaps partial (1.1)."""
        return len(range(0, size, self.granularity))

    def touch(self, offset: int, length: int) -> None:
        """Every cluster that holds a byte of the range (1.2)."""
        if self.recording and length:
            first, last = offset // self.granularity, (offset + length - 1) // self.granularity
            (self.dirty if self.successor is None else self.successor).update(
                range(first, last + 1)
            )

    def bytes_covered(self, size: int) -> list[range]:
        """The bytes of each dirty cluster, clipped to the disk (3.1)."""
        g = self.granularity
        return [range(c * g, min(c * g + g, size)) for c in sorted(self.dirty)]

    def merge(self, other: "NaiveBitmap", size: int) -> None:
        """Every own cluster that shares a byte with a dirty one of the other (3.1)."""
        for covered in other.bytes_covered(size):
            self.dirty |= set(
                range(covered[0] // self.granularity, covered[-1] // self.granularity + 1)
            )

    def resize(self, size: int) -> None:
        """What lies wholly past the end is forgotten, what is new is clean (5.2)."""
        self.dirty = {c for c in self.dirty if c < self.length(size)}

    def state(self) -> BitmapState:
        return BitmapState(
            self.granularity, len(self.dirty) * self.granularity, self.recording, self.busy
        )

    def digest(self, size: int) -> str:
        """SHA-256 of the bits in 64-bit words, at least one (2.1)."""
        words = [0] * max(1, (self.length(size) + 63) // 64)
        for cluster in self.dirty:
            words[cluster // 64] |= 1 << (cluster % 64)
        return hashlib.sha256(b"".join(word.to_bytes(8, "little") for word in words)).hexdigest()

    def thaw(self, mode: str, *, failed: bool) -> None:
        """Table 6.3, but for "always" after a failure."""
        if self.successor is None:
            raise AssertionError
        if (mode == "on-success" and failed) or mode == "never":
            self.dirty |= self.successor
        else:
            self.dirty = self.successor
        self.successor, self.busy = None, False


@dataclass
class NaiveNode:
    image: str
    drive: str | None
    unmap: bool
    detect_zeroes: str
    bitmaps: dict[str, NaiveBitmap] = field(default_factory=dict)


@dataclass
class NaiveJob:
    node: str
    target: str
    bitmap: str | None
    mode: str
    compress: bool
    detect: bool
    cluster: int
    copy: list[int]
    before: bytes
    travels: dict[int, str]


@dataclass
class NaiveExport:
    """``bitmaps`` by (node, name), however often they are listed; ``clients`` counts them."""

    node: str
    bitmaps: list[tuple[str, str]] = field(default_factory=list)
    clients: int = 0


@dataclass
class Answer:
    """What the naive World says of one operation."""

    reason: Reason | None = None
    data: bytes | None = None
    dirty: set[int] | None = None
    jobs: Mapping[str, JobEnd] = field(default_factory=dict)


def pour(data: Data, offset: int, length: int) -> bytes:
    return data.render(offset, length).tobytes()


BitmapCommand = BitmapRemove | BitmapClear | BitmapEnable | BitmapDisable


class NaiveWorld:
    def __init__(self) -> None:
        self.files = Files()
        self.nodes: dict[str, NaiveNode] = {}
        self.roots: dict[str, str] = {}
        self.jobs: dict[str, NaiveJob] = {}
        self.exports: dict[str, NaiveExport] = {}
        self.opened: set[str] = set()
        self.removing: list[tuple[str, str]] = []

    def apply(self, op: Operation) -> Answer:
        """One step. Raises InvalidOperationError, and is then what it was."""
        saved = copy.deepcopy(self.__dict__)
        try:
            return self.perform(op)
        except RefusedNaively as refused:
            files, started = self.files, tuple(self.jobs)
            self.__dict__ = saved
            self.files = files
            ends = {job: JobEnd(None, None, aborted=True) for job in started}
            return Answer(refused.reason, jobs=ends)
        except InvalidOperationError:
            self.__dict__ = saved
            raise

    def perform(self, op: Operation) -> Answer:
        match op:
            case AddDisk():
                self.add_disk(op)
            case Read() | Flush() | Write() | WriteCompressed() | WriteZeroes() | Discard():
                return self.guest(op)
            case Resize():
                self.resize(op)
            case CreateImage():
                self.create_image(op)
            case RebaseImage():
                self.rebase(op)
            case Transaction():
                return self.transaction(op)
            case ExportAdd():
                self.export(op)
            case ExportDel():
                self.unexport(op)
            case ReadDirtyExtents():
                return self.ask(op)
            case DriveBackup() | BlockdevBackup():
                if isinstance(op, BlockdevBackup):
                    self.open_target(op.target)
                self.start(op)
                return self.finish(grouped=False)
            case _:
                self.bitmap_command(op)
                self.commit()
        return Answer()

    # --- images -------------------------------------------------------------------------------

    def add_disk(self, op: AddDisk) -> None:
        if op.node in self.nodes:
            raise InvalidOperationError
        below = None
        for number in reversed(range(len(op.layers))):
            layer, name = op.layers[number], f"{op.node}.{number}"
            self.files.create(name, layer, below)
            for pattern in layer.data:
                if pattern.offset + pattern.length > layer.size:
                    raise InvalidOperationError
                data = pour(pattern.data, pattern.offset, pattern.length)
                self.files.write(name, pattern.offset, data)
            below = name
        if op.detect_zeroes == "unmap" and op.discard != "unmap" and op.drive is None:
            raise RefusedNaively(Reason.IMAGE_REFUSED)
        self.nodes[op.node] = NaiveNode(
            f"{op.node}.0", op.drive, op.discard == "unmap", op.detect_zeroes
        )
        if op.drive is not None:
            self.roots[op.drive] = op.node

    def create_image(self, op: CreateImage) -> None:
        self.files.images.pop(op.image, None)
        self.files.create(op.image, op.layer, op.backing)

    def rebase(self, op: RebaseImage) -> None:
        image = self.files.images.get(op.image)
        if image is None:
            raise RefusedNaively(Reason.NO_SUCH_FILE)
        if image.raw:
            raise RefusedNaively(Reason.BACKING_UNSUPPORTED)
        image.backing = op.backing

    # --- guest --------------------------------------------------------------------------------

    def find(self, name: str, reason: Reason) -> tuple[str, NaiveNode]:
        name = self.roots.get(name, name)
        if name not in self.nodes:
            raise RefusedNaively(reason)
        return name, self.nodes[name]

    def size(self, node: NaiveNode) -> int:
        return self.files.images[node.image].size

    def guest(self, op: Read | Flush | Write | WriteCompressed | WriteZeroes | Discard) -> Answer:
        _, node = self.find(op.node, Reason.GUEST_NOT_FOUND)
        if isinstance(op, Flush):
            return Answer()
        name, start, end = node.image, op.offset, op.offset + op.length
        if isinstance(op, WriteCompressed) and (start % 512 or end % 512):
            raise RefusedNaively(Reason.NOT_SECTOR_ALIGNED)
        if end > self.size(node):
            raise RefusedNaively(Reason.PAST_END)
        if isinstance(op, Read):
            return Answer(data=self.files.read(name)[start:end])
        if isinstance(op, Discard) and not node.unmap:
            return Answer()
        answer = Answer()
        try:
            self.change(op, node)
        except RefusedNaively as refused:
            answer = Answer(refused.reason)
        for bitmap in node.bitmaps.values():
            bitmap.touch(op.offset, op.length)
        return answer

    def change(self, op: Write | WriteCompressed | WriteZeroes | Discard, node: NaiveNode) -> None:
        name, offset, length = node.image, op.offset, op.length
        if isinstance(op, Discard):
            self.files.discard(name, offset, length)
            return
        if isinstance(op, WriteZeroes):
            self.files.write_zeroes(name, offset, length, unmap=op.unmap)
            return
        data = pour(op.data, offset, length)
        if not any(data) and node.detect_zeroes != "off":
            unmap = node.detect_zeroes == "unmap"
            self.files.write_zeroes(name, offset, length, unmap=unmap)
        elif isinstance(op, Write):
            self.files.write(name, offset, data)
        else:
            self.files.write_compressed(name, offset, data)

    def resize(self, op: Resize) -> None:
        name, node = self.find(op.node, Reason.RESIZE_NOT_FOUND)
        if name in [export.node for export in self.exports.values()]:
            raise RefusedNaively(Reason.PERMISSION_DENIED)
        files = copy.deepcopy(self.files)
        self.files.resize(node.image, op.size)
        if any(bitmap.busy for bitmap in node.bitmaps.values()):
            self.files = files
            raise RefusedNaively(Reason.BITMAP_BUSY)
        for bitmap in node.bitmaps.values():
            bitmap.resize(self.size(node))

    # --- bitmaps ------------------------------------------------------------------------------

    def usable(self, node_name: str, name: str, *, busy_ok: bool = False) -> NaiveBitmap:
        _, node = self.find(node_name, Reason.NODE_NOT_FOUND)
        if name not in node.bitmaps:
            raise RefusedNaively(Reason.BITMAP_NOT_FOUND)
        if node.bitmaps[name].busy and not busy_ok:
            raise RefusedNaively(Reason.BITMAP_BUSY)
        return node.bitmaps[name]

    def bitmap_command(self, op: Operation) -> None:
        match op:
            case BitmapAdd():
                self.add(op)
            case BitmapMerge():
                self.merge(op)
            case BitmapRemove():
                self.usable(op.node, op.name).busy = True
                self.removing.append((self.roots.get(op.node, op.node), op.name))
            case BitmapClear():
                self.usable(op.node, op.name).dirty = set()
            case BitmapEnable():
                self.usable(op.node, op.name).recording = True
            case BitmapDisable():
                self.usable(op.node, op.name).recording = False
            case _:
                raise InvalidOperationError

    def commit(self) -> None:
        for node, name in self.removing:
            del self.nodes[node].bitmaps[name]
        self.removing = []

    def add(self, op: BitmapAdd) -> None:
        if (op.granularity or 0) > 2**32 - 1:
            raise RefusedNaively(Reason.GRANULARITY_OUT_OF_RANGE)
        if op.name == "":
            raise RefusedNaively(Reason.BITMAP_NAME_EMPTY)
        _, node = self.find(op.node, Reason.DEVICE_NOT_FOUND)
        granularity = op.granularity
        if granularity is None:
            image = self.files.images[node.image]
            granularity = 65536 if image.raw else sorted((4096, image.cluster, 65536))[1]
        if granularity not in [2**i for i in range(9, 32)]:
            raise RefusedNaively(Reason.BAD_GRANULARITY)
        if op.name in node.bitmaps:
            raise RefusedNaively(Reason.BITMAP_EXISTS)
        if len(op.name.encode()) >= 1024:
            raise RefusedNaively(Reason.BITMAP_NAME_TOO_LONG)
        node.bitmaps[op.name] = NaiveBitmap(granularity, not op.disabled)

    def merge(self, op: BitmapMerge) -> None:
        target = self.usable(op.node, op.target, busy_ok=True)
        size = self.size(self.find(op.node, Reason.NODE_NOT_FOUND)[1])
        sources = []
        for source in op.sources:
            where = source.node or op.node
            self.usable(where, source.name, busy_ok=True)
            self.usable(op.node, op.target)
            sources.append(copy.deepcopy(self.usable(where, source.name)))
            if self.size(self.find(where, Reason.NODE_NOT_FOUND)[1]) != size:
                raise RefusedNaively(Reason.BITMAP_SIZES_DIFFER)
        self.usable(op.node, op.target)
        for bitmap in sources:
            target.merge(bitmap, size)

    def transaction(self, op: Transaction) -> Answer:
        for action in op.actions:
            if isinstance(action, BlockdevBackup) and action.target not in self.opened:
                self.open_target(action.target)
        if any(isinstance(a, BitmapAdd) and (a.granularity or 0) >= 2**32 for a in op.actions):
            raise RefusedNaively(Reason.GRANULARITY_OUT_OF_RANGE)
        for action in op.actions:
            if isinstance(action, Abort):
                raise RefusedNaively(Reason.ABORTED)
            if isinstance(action, DriveBackup | BlockdevBackup):
                self.start(action)
            elif op.grouped:
                raise RefusedNaively(Reason.GROUPED_UNSUPPORTED)
            else:
                self.bitmap_command(action)
        self.commit()
        return self.finish(grouped=op.grouped)

    # --- exports ------------------------------------------------------------------------------

    def export(self, op: ExportAdd) -> None:
        if op.export in BAD_EXPORTS:
            raise RefusedNaively(Reason.EXPORT_ID_INVALID)
        if op.export in self.exports:
            raise RefusedNaively(Reason.EXPORT_ID_TAKEN)
        if op.node not in self.nodes:
            raise RefusedNaively(Reason.EXPORT_NODE_NOT_FOUND)
        if op.name is not None and op.name in self.exports:
            raise RefusedNaively(Reason.EXPORT_NAME_TAKEN)
        export = NaiveExport(op.node)
        for wanted in op.bitmaps:
            if wanted.node is None:
                if wanted.name not in self.nodes[op.node].bitmaps:
                    raise RefusedNaively(Reason.EXPORT_BITMAP_NOT_FOUND)
                where = op.node
                if self.nodes[where].bitmaps[wanted.name].recording and not op.writable:
                    raise RefusedNaively(Reason.EXPORT_READ_ONLY)
            else:
                where, _ = self.find(wanted.node, Reason.NODE_NOT_FOUND)
            self.usable(where, wanted.name)
            export.bitmaps.append((where, wanted.name))
        for where, name in export.bitmaps:
            self.nodes[where].bitmaps[name].busy = True
        self.exports[op.export] = export

    def unexport(self, op: ExportDel) -> None:
        if op.export not in self.exports:
            raise RefusedNaively(Reason.EXPORT_NOT_FOUND)
        if op.mode == "safe" and self.exports[op.export].clients:
            raise RefusedNaively(Reason.EXPORT_IN_USE)
        for node, name in self.exports.pop(op.export).bitmaps:
            self.nodes[node].bitmaps[name].busy = False

    def ask(self, op: ReadDirtyExtents) -> Answer:
        if op.export not in self.exports:
            return Answer(Reason.NO_SUCH_EXPORT)
        export = self.exports[op.export]
        export.clients += 1
        asked = range(op.offset, op.offset + op.length)
        sites = {node for node, name in export.bitmaps if name == op.bitmap}
        if not sites:
            return Answer(Reason.NO_SUCH_CONTEXT)
        if not asked:
            return Answer(Reason.EMPTY_RANGE)
        if asked.stop > self.size(self.nodes[export.node]):
            return Answer(Reason.PAST_END)
        (site,) = sites
        node = self.nodes[site]
        covered = node.bitmaps[op.bitmap].bytes_covered(self.size(node))
        dirty = {byte for piece in covered for byte in piece if byte in asked}
        return Answer(dirty=dirty)

    # --- backups ------------------------------------------------------------------------------

    def lock(self, target: str, *, old: bool = False) -> None:
        """An image open for writing is open once; one that others read is not written (11).

        Of an ``old`` file that is about to be replaced, the backing files do not matter.
        """
        writing = {node.image for node in self.nodes.values()} | self.opened
        writing |= {job.target for job in self.jobs.values()}
        reading = {name for image in writing for name in self.files.chain(image)[1:]}
        below = set() if old else set(self.files.chain(target)[1:])
        if target in writing | reading or writing & below:
            raise RefusedNaively(Reason.IMAGE_LOCKED)

    def open_target(self, target: str) -> None:
        if target not in self.files.images:
            raise RefusedNaively(Reason.NO_SUCH_FILE)
        self.lock(target)
        self.opened.add(target)

    def prepare(self, op: DriveBackup, node: NaiveNode) -> None:
        if op.mode == "absolute-paths":
            if op.target in self.files.images:
                self.lock(op.target, old=True)
            if op.sync == "none":
                raise InvalidOperationError
            backing = self.files.images[node.image].backing if op.sync == "top" else None
            layer = Layer(size=self.size(node), format=op.format)
            self.files.create(op.target, layer, backing)
        if op.target not in self.files.images:
            raise RefusedNaively(Reason.NO_SUCH_FILE)
        self.lock(op.target)
        if self.files.images[op.target].raw != (op.format == "raw"):
            if op.format == "raw":
                raise InvalidOperationError
            raise RefusedNaively(Reason.WRONG_FORMAT)

    def filtered(self, reference: str) -> bool:
        """Whether a drive name means the filter of a backup that runs."""
        return self.roots.get(reference, "").startswith("filter of")

    def check_modes(self, op: DriveBackup | BlockdevBackup, node: NaiveNode) -> None:
        """Table 6.1."""
        mode = op.bitmap_mode
        tests: list[tuple[Callable[[], bool], Reason]] = [
            (
                lambda: op.sync in {"bitmap", "incremental"} and op.bitmap is None,
                Reason.BITMAP_NEEDED,
            ),
            (
                lambda: op.sync == "incremental" and mode not in {None, "on-success"},
                Reason.BITMAP_MODE_NOT_ON_SUCCESS,
            ),
            (lambda: op.bitmap is None and mode is not None, Reason.BITMAP_MODE_WITHOUT_BITMAP),
            (
                lambda: op.bitmap is not None and op.bitmap not in node.bitmaps,
                Reason.BACKUP_BITMAP_NOT_FOUND,
            ),
            (
                lambda: op.bitmap is not None and mode is None and op.sync != "incremental",
                Reason.BITMAP_MODE_NEEDED,
            ),
            (
                lambda: op.bitmap is not None and node.bitmaps[op.bitmap].busy,
                Reason.BITMAP_BUSY,
            ),
            (lambda: op.bitmap is not None and op.sync == "none", Reason.SYNC_NONE_WITH_BITMAP),
            (lambda: mode == "never" and op.sync != "bitmap", Reason.BITMAP_MODE_USELESS),
        ]
        for test, reason in tests:
            if test():
                raise RefusedNaively(reason)

    def start(self, op: DriveBackup | BlockdevBackup) -> None:
        name, node = self.find(op.node, Reason.DEVICE_NOT_FOUND)
        filtered = name.startswith("filter of")
        if isinstance(op, DriveBackup):
            if filtered:
                raise RefusedNaively(Reason.NODE_BUSY)
            self.prepare(op, node)
        self.check_modes(op, node)
        target = self.files.images[op.target]
        if op.compress and target.raw:
            raise RefusedNaively(Reason.COMPRESS_UNSUPPORTED)
        if filtered or op.target in [job.target for job in self.jobs.values()]:
            raise RefusedNaively(Reason.NODE_BUSY)
        if target.size != self.size(node):
            raise RefusedNaively(Reason.BACKUP_SIZES_DIFFER)
        if op.sync == "none":
            raise InvalidOperationError
        drive = node.drive if node.drive and self.roots[node.drive] == name else None
        if op.job is None and drive is None:
            raise RefusedNaively(Reason.JOB_ID_INVALID)
        job_id = op.job or drive or ""
        if job_id in self.jobs:
            raise RefusedNaively(Reason.JOB_ID_TAKEN)
        jcs = max(65536, target.cluster)
        before = self.files.read(node.image)
        clusters = [c for c in range(0, len(before), jcs) if self.copied(op, node, c, jcs)]
        self.jobs[job_id] = NaiveJob(
            node=name,
            target=op.target,
            bitmap=op.bitmap,
            mode=op.bitmap_mode or "on-success",
            compress=op.compress,
            detect=isinstance(op, DriveBackup),
            cluster=jcs,
            copy=clusters,
            before=before,
            travels={
                c: self.files.travels_as(node.image, c, min(c + jcs, len(before)), jcs)
                for c in clusters
            },
        )
        if op.bitmap is not None:
            node.bitmaps[op.bitmap].busy = True
            node.bitmaps[op.bitmap].successor = set()
        if drive is not None:
            self.nodes[f"filter of {name}"] = NaiveNode(
                node.image, drive, unmap=False, detect_zeroes="off"
            )
            self.roots[drive] = f"filter of {name}"

    def copied(
        self, op: DriveBackup | BlockdevBackup, node: NaiveNode, start: int, jcs: int
    ) -> bool:
        """Whether the job cluster at ``start`` is copied (6.2)."""
        image = self.files.images[node.image]
        end = min(start + jcs, image.size)
        if op.sync == "full":
            return True
        if op.sync == "top":
            if isinstance(op, DriveBackup) and image.backing is None:
                return True
            return any(
                image.kind_at(at) != "none" for at in range(start, end, min(image.unit, 512))
            )
        bitmap = node.bitmaps[op.bitmap or ""]
        return any(
            dirty.start < end and start < dirty.stop for dirty in bitmap.bytes_covered(image.size)
        )

    def finish(self, *, grouped: bool) -> Answer:
        failures = {}
        for job_id, job in self.jobs.items():
            try:
                for start in job.copy:
                    self.copy_cluster(job, start)
            except RefusedNaively as refused:
                failures[job_id] = refused.reason
        ends = {}
        for job_id, job in self.jobs.items():
            done = len(job.copy) * job.cluster
            image = self.files.images[job.target]
            failed = failures.get(job_id)
            if failed is None and failures and grouped and len(self.jobs) > 1:
                failed = Reason.JOB_CANCELLED
            partly = failed is not None and (bool(job.copy) or job_id in failures)
            if partly:
                if job.bitmap is not None and job.mode == "always":
                    raise OpenOutcomeError("what was copied before the failure")
                image.vague = True
                image.kinds = ["maybe"] * len(image.kinds)
                image.doubtful = set(range(len(image.own) // image.cluster))
            elif failed is None:
                image.vague = image.vague and done < image.size
            ends[job_id] = JobEnd(
                None if job_id in failures else done,
                None if partly else done,
                error=failed,
            )
            if job.bitmap is not None:
                bitmap = self.nodes[job.node].bitmaps[job.bitmap]
                bitmap.thaw(job.mode, failed=failed is not None)
        self.jobs, self.opened = {}, set()
        for name in [name for name in self.nodes if name.startswith("filter of ")]:
            drive = self.nodes.pop(name).drive
            self.roots[drive or ""] = name.removeprefix("filter of ")
        return Answer(jobs=ends)

    def copy_cluster(self, job: NaiveJob, start: int) -> None:
        """One job cluster as it was, byte for byte; and how that is written (6.2)."""
        image = self.files.images[job.target]
        data = job.before[start : start + job.cluster]
        travels = job.travels[start]
        detected = job.detect and travels != "zero" and not any(data)
        if detected and not job.compress and not image.v2:
            travels = "maybe"
        if travels == "zero" or (detected and (job.compress or image.v2)):
            self.files.write_zeroes(job.target, start, len(data), unmap=detected)
            return
        if not job.compress:
            self.files.write(job.target, start, data)
        else:
            for at in range(0, len(data), image.cluster):
                piece = data[at : at + image.cluster]
                occupied = self.files.occupied(job.target, start + at)
                if compresses(piece, image.cluster) and occupied != "no":
                    if travels == "maybe" or occupied == "maybe":
                        raise OpenOutcomeError("whether the copy meets data")
                    raise RefusedNaively(Reason.ALREADY_ALLOCATED)
                self.files.put_compressed(job.target, start + at, piece)
        if travels == "maybe" and not image.raw:
            image.doubt(start, start + len(data))

    # --- looking ------------------------------------------------------------------------------

    def contents(self, name: str) -> bytes | None:
        image = self.nodes[name].image if name in self.nodes else name
        if any(self.files.images[part].vague for part in self.files.chain(image)):
            return None
        return self.files.read(image)
