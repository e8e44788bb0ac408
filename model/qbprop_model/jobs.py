"""Backup jobs: what a start accepts, what is copied, what becomes of the bitmap (semantics 6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from qbprop_model.bitmap import Bitmap, BitmapRules, ceil_div
from qbprop_model.data import ZERO, all_zero
from qbprop_model.disk import DiskRules
from qbprop_model.expectation import Reason
from qbprop_model.image import Alloc, Cell, Chain, Image, Refused, View, refuse
from qbprop_model.operations import Backup, BitmapMode, OnError, OpenOutcomeError, SyncMode
from qbprop_model.ranges import Ranges, joined, total


@dataclass(frozen=True, eq=False)
class Job:
    """A backup of node ``node`` into image ``target``, from its start until it is dismissed.

    ``copy`` are the byte ranges to be copied, ascending, in whole job clusters of ``cluster``
    bytes (the last one may reach past the end of the disk); ``left`` those that neither the
    job nor a guest has copied yet, ``met`` the job clusters that guests' requests came upon.
    ``source`` is the disk's chain before the next change; ``point_in_time`` never moves.

    ``offloads``: the host may copy from file to file, if it can, and then detects no zeroes.

    ``status`` is as ``query-jobs`` shows it. ``serial``: one job cluster after the other.
    ``limited``: its speed limit lets it copy no more. ``faulty``: the error that it has stopped
    at, as its events tell it. ``lost``: it ended, and how far it had come is open; ``unscanned``:
    and perhaps before it had found out what to copy.
    ``group``: the ids of all jobs that end together; empty for a job by itself.
    """

    node: str
    target: str
    cluster: int
    copy: Ranges
    source: Chain
    point_in_time: View
    bitmap: str | None
    bitmap_mode: BitmapMode
    compress: bool
    detects_zeroes: bool
    filter: str
    offloads: bool = False
    endless: bool = False
    on_node: bool = False
    speed: int = 0
    serial: bool = False
    auto_finalize: bool = True
    auto_dismiss: bool = True
    on_source_error: OnError = "report"
    on_target_error: OnError = "report"
    scans: bool = False
    blind: Reason | None = None
    left: Ranges = ()
    met: Ranges = ()
    status: str = "running"
    limited: bool = False
    faulty: str = ""
    error: Reason | None = None
    lost: bool = False
    unscanned: bool = False
    group: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it still has its filter, its target and its bitmap."""
        return self.status != "concluded"

    @property
    def backs_target(self) -> bool:
        """``drive-backup`` with sync none backs its target with the disk itself (6.1)."""
        return self.endless and not self.on_node

    @property
    def length(self) -> int:
        """Bytes to be copied in all, in whole job clusters (semantics 6.2)."""
        return total(self.copy)

    @property
    def offset(self) -> int:
        """Bytes copied, in whole job clusters."""
        return self.length - total(self.left)


class JobRules(BitmapRules, DiskRules):
    """How backups behave. Override one method to state another rule."""

    def check_modes(self, op: Backup, bitmap: Bitmap | None) -> None:
        """Refuse what the table of semantics 6.1 refuses, in QEMU's order."""
        if op.sync in ("bitmap", "incremental") and op.bitmap is None:
            raise Refused(Reason.BITMAP_NEEDED, op.sync)
        if op.sync == "incremental" and op.bitmap_mode not in (None, "on-success"):
            raise Refused(Reason.BITMAP_MODE_NOT_ON_SUCCESS, op.sync)
        if op.bitmap is None:
            if op.bitmap_mode is not None:
                raise Refused(Reason.BITMAP_MODE_WITHOUT_BITMAP)
            return
        if bitmap is None:
            raise Refused(Reason.BACKUP_BITMAP_NOT_FOUND, op.bitmap)
        if op.bitmap_mode is None and op.sync != "incremental":
            raise Refused(Reason.BITMAP_MODE_NEEDED)
        refuse(self.obstacle(bitmap, "read"), op.bitmap)
        if op.sync == "none":
            raise Refused(Reason.SYNC_NONE_WITH_BITMAP, op.sync)
        if op.bitmap_mode == "never" and op.sync in ("full", "top"):
            raise Refused(Reason.BITMAP_MODE_USELESS, op.sync)

    def job_cluster(self, target: Image) -> int:
        """Bytes per job cluster (semantics 6.2): at least 64 KiB and the target's cluster."""
        return max(65536, target.cluster_size)

    def fails_to_start(self, job: Job) -> bool:
        """Whether a job that has to find out what to copy is not told, so that it copies nothing.

        What is said about errors of its disk does not hold for that.
        """
        return job.scans and job.blind is not None and bool(job.copy)

    def copy_set(
        self,
        sync: SyncMode,
        cluster: int,
        source: Chain,
        bitmap: Bitmap | None,
        *,
        blind: bool = False,
    ) -> Ranges:
        """Which byte ranges are copied: whole job clusters (semantics 6.2).

        All where the layer that has them is not told (``blind``).
        """
        size = source[0].size
        ranges: Iterable[tuple[int, int]] = ()
        if sync in ("full", "none") or (sync == "top" and blind):
            ranges = [(0, size)] if size else []
        elif sync == "top":
            runs = source[0].alloc.runs(0, size)
            ranges = [(start, end) for start, end, alloc in runs if alloc is not Alloc.NONE]
        elif bitmap is not None:
            ranges = bitmap.dirty_ranges(size)
        return tuple(self.outward(ranges, cluster))

    def outward(self, ranges: Iterable[tuple[int, int]], cluster: int) -> Iterator[tuple[int, int]]:
        """Ascending ranges rounded outward to whole clusters and joined where they meet."""
        yield from joined(
            (start // cluster * cluster, ceil_div(end, cluster) * cluster) for start, end in ranges
        )

    def freeze(self, bitmap: Bitmap) -> Bitmap:
        """A job takes the bitmap: busy, writes go to an empty successor (6.3)."""
        return replace(bitmap, busy=True, successor=np.zeros_like(bitmap.bits))

    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        """The bitmap when its job has ended (table of semantics 6.3).

        For a job that fails with mode "always", see :meth:`uncopied`.
        """
        successor = bitmap.successor
        if successor is None:
            raise ValueError("the bitmap belongs to no job")
        keep = failed if mode == "on-success" else mode == "never"
        bits = bitmap.bits | successor if keep else successor
        return replace(bitmap, bits=bits, busy=False, successor=None)

    def uncopied(self, bitmap: Bitmap, left: Ranges, size: int) -> Bitmap:
        """Mode "always" after a failure: what was not copied stays dirty (6.3).

        In whole job clusters, so that bits may be set which never were.
        """
        bits = bitmap.bits.copy()
        for start, end in left:
            bits[start // bitmap.granularity : ceil_div(min(end, size), bitmap.granularity)] = True
        return replace(bitmap, bits=bits)

    def transfer(self, job: Job, target: Chain, ranges: Ranges) -> Image:
        """The target with some job clusters as they were at the job's start (6.2).

        Raises :class:`Refused` (ALREADY_ALLOCATED) when a compressed copy meets an allocated
        cluster; the bytes of the target are then open.
        """
        image = target[0]
        for start, end in ranges:
            for s, e, kind in self.copied_kinds(job, start, min(end, job.point_in_time.size)):
                image = self.transfer_piece(job, (image, *target[1:]), s, e, kind)
        return image

    def copied_kinds(self, job: Job, start: int, end: int) -> Iterator[tuple[int, int, Alloc]]:
        """How each job cluster travels (semantics 6.2): as data where the status is not told.

        As zeroes only where one extent of the block status covers all of it; where that is
        not plain to see, DATA_OR_ZERO.
        """
        for s in range(start, end, job.cluster):
            e = min(s + job.cluster, end)
            kinds = [kind for _, _, kind in self.status(job.source, s, e)]
            if job.blind:
                kind = Alloc.DATA
            elif Alloc.DATA in kinds:
                kind = Alloc.DATA_OR_ZERO if self.maybe_hole(job, s, e) else Alloc.DATA
            elif kinds == [Alloc.ZERO] and e - s == job.cluster and self.plain(job.source, s, e):
                kind = Alloc.ZERO
            else:
                kind = Alloc.DATA_OR_ZERO
            yield s, e, kind

    def maybe_hole(self, job: Job, start: int, end: int) -> bool:
        """Whether the host's file may have a hole where a job cluster is within a larger cluster.

        QEMU takes such a hole for zeroes when it guesses that the image was preallocated: when
        the file takes less space than its clusters in use would.
        """
        cells = job.point_in_time.cells.runs(start, end)
        return any(image.cluster_size > job.cluster for image in job.source) and all(
            all_zero(cell.data, s, e - s) for s, e, cell in cells
        )

    def plain(self, source: Chain, start: int, end: int) -> bool:
        """Whether a zero range is one extent of one layer, in one slice of its tables."""
        return all(
            image.format == "qcow2"
            and start // image.slice_size == (end - 1) // image.slice_size
            and len(list(image.alloc.runs(start, end))) == 1
            and not any(hosted for _, _, hosted in image.hosted.runs(start, end))
            for image in source
        )

    def transfer_piece(self, job: Job, target: Chain, start: int, end: int, kind: Alloc) -> Image:
        """Copy one job cluster ``[start, end)`` onto the target."""
        cells = list(job.point_in_time.cells.runs(start, end))
        step, length = cells[0][2].step, end - start
        if kind is Alloc.ZERO:
            return self.write_zeroes(target, start, length, step, unmap=False)
        if job.detects_zeroes and all(all_zero(cell.data, s, e - s) for s, e, cell in cells):
            dropped = (
                target[0].compat == "0.10" and not job.offloads and self.alone(job, start, end)
            )
            if dropped or (job.compress and kind is Alloc.DATA):
                return self.write_zeroes(target, start, length, step, unmap=True)
            kind = Alloc.DATA_OR_ZERO
        if job.compress:
            return self.transfer_compressed(job, target, start, end, kind)
        image = target[0]
        for s, e, cell in cells:
            image = self.write((image, *target[1:]), s, e - s, cell)
        if image.format == "qcow2" and kind is Alloc.DATA_OR_ZERO:
            image = replace(image, alloc=image.alloc.assign(start, end, Alloc.DATA_OR_ZERO))
        elif image.format == "qcow2" and job.offloads:
            for s, e in self.skipped(job, image.unit, start, end):
                image = replace(image, alloc=image.alloc.assign(s, e, Alloc.DATA_OR_ZERO))
        return image

    def skipped(self, job: Job, unit: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The units of the target for which the source has no data, within a job cluster.

        They travel as zeroes where the host copies, and else as part of the job cluster's data.
        """
        for s in range(start, end, unit):
            e = min(s + unit, end)
            told = {kind for _, _, kind in self.status(job.source, s, e)}
            cells = job.point_in_time.cells.runs(s, e)
            if Alloc.DATA not in told and all(all_zero(c.data, at, to - at) for at, to, c in cells):
                yield s, e

    def alone(self, job: Job, start: int, end: int) -> bool:
        """Whether zeroes are surely written by themselves, and not along with data beside them.

        A job that is not serial writes up to 1 MiB at once; the target looks for zeroes in the
        request as a whole.
        """
        if job.serial or job.compress or job.blind:
            return True
        around = next((r for r in job.copy if r[0] <= start and end <= r[1]), (start, end))
        return all(cell.data == ZERO for _, _, cell in job.point_in_time.cells.runs(*around))

    def transfer_compressed(
        self, job: Job, target: Chain, start: int, end: int, kind: Alloc
    ) -> Image:
        """One job cluster, compressed cluster by cluster of the target (6.2, 1.2)."""
        image = target[0]
        alloc, hosted = image.alloc, image.hosted
        for s in range(start, end, image.cluster_size):
            capacity = s + image.cluster_size
            cells = job.point_in_time.cells.runs(s, min(capacity, end))
            parts = [(start, stop, cell.data) for start, stop, cell in cells]
            if not self.compresses(parts, image.cluster_size):
                alloc = alloc.assign(s, capacity, Alloc.DATA)
                hosted = hosted.assign(s, capacity, value=True)
                continue
            if self.taken(image, s):
                if kind is Alloc.DATA_OR_ZERO:
                    raise OpenOutcomeError("whether the compressed copy fails hangs on holes")
                raise Refused(Reason.ALREADY_ALLOCATED)
            alloc = alloc.assign(s, capacity, Alloc.COMPRESSED)
        if kind is Alloc.DATA_OR_ZERO:
            alloc = alloc.assign(start, image.capacity(end), Alloc.DATA_OR_ZERO)
        padded = image.cells.assign(end, image.capacity(end), Cell(ZERO, 0))
        copied = padded.paste(job.point_in_time.cells.runs(start, end))
        return replace(image, cells=copied, alloc=alloc, hosted=hosted)
