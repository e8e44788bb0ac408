"""Wrong rules about what a backup copies and what becomes of its bitmap."""

from dataclasses import replace
from typing import Any

from tests.sensitivity.registry import wrong_effect, wrong_rule

from qbprop_model.bitmap import Bitmap
from qbprop_model.effects import backups, jobs
from qbprop_model.image import Alloc, Chain, Image
from qbprop_model.jobs import Job
from qbprop_model.operations import Backup, BitmapMode, DriveBackup, SyncMode
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules
from qbprop_model.state import Node, State


@wrong_rule("a backup that succeeds keeps the last bit of its bitmap")
class SuccessKeepsTheLastBit(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        thawed = super().thaw(bitmap, mode, failed=failed)
        bits = thawed.bits.copy()
        bits[-1:] |= bitmap.bits[-1:]
        return replace(thawed, bits=bits)


@wrong_rule("a backup that fails clears its bitmap")
class FailureClears(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, mode, failed=False)


@wrong_rule("bitmap mode never clears like on-success")
class NeverClears(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, "on-success" if mode == "never" else mode, failed=failed)


@wrong_rule("bitmap mode always keeps the bits of a success")
class AlwaysKeeps(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, "never" if mode == "always" else mode, failed=failed)


@wrong_rule("a disabled bitmap is enabled when its backup ends")
class ThawEnables(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return self.enable(super().thaw(bitmap, mode, failed=failed))


@wrong_effect("a backup of the whole disk leaves its bitmap as it was", jobs, "conclude")
def whole_copy_keeps_the_bitmap(original: Any) -> Any:
    def conclude(world: State, job_id: str, *, failed: bool) -> None:
        job = world.jobs[job_id]
        if job.length >= job.point_in_time.size:
            world.jobs[job_id] = replace(job, bitmap_mode="never")
        original(world, job_id, failed=failed)

    return conclude


@wrong_rule("a backup copies the dirty clusters of its bitmap, not whole clusters of its own")
class CopiesByGranularity(Rules):
    def copy_set(
        self,
        sync: SyncMode,
        cluster: int,
        source: Chain,
        bitmap: Bitmap | None,
        *,
        blind: bool = False,
    ) -> Ranges:
        by_bitmap = bitmap is not None and sync in ("bitmap", "incremental")
        unit = bitmap.granularity if bitmap is not None and by_bitmap else cluster
        return super().copy_set(sync, unit, source, bitmap, blind=blind)


@wrong_rule("a backup copies clusters of 64 KiB into a target of larger ones")
class TargetClusterIgnored(Rules):
    def job_cluster(self, target: Image) -> int:
        return 65536


@wrong_rule("a backup copies clusters of the target's size, even below 64 KiB")
class TargetClusterIsEnough(Rules):
    def job_cluster(self, target: Image) -> int:
        return max(512, target.cluster_size)


@wrong_rule("sync=top copies what any layer of the chain holds")
class TopTakesAllLayers(Rules):
    def copy_set(
        self,
        sync: SyncMode,
        cluster: int,
        source: Chain,
        bitmap: Bitmap | None,
        *,
        blind: bool = False,
    ) -> Ranges:
        if sync != "top" or len(source) == 1:
            return super().copy_set(sync, cluster, source, bitmap, blind=blind)
        size = source[0].size
        runs = [
            run
            for image in source
            for run in image.alloc.runs(0, min(size, image.size))
            if run[2] is not Alloc.NONE
        ]
        return tuple(self.outward(sorted((start, end) for start, end, _ in runs), cluster))


@wrong_rule("sync=top leaves out clusters that are flagged as zero")
class TopLeavesOutZeroes(Rules):
    def copy_set(
        self,
        sync: SyncMode,
        cluster: int,
        source: Chain,
        bitmap: Bitmap | None,
        *,
        blind: bool = False,
    ) -> Ranges:
        top = source[0]
        zeroes = [run for run in top.alloc.runs() if run[2] is Alloc.ZERO]
        alloc = top.alloc
        for start, end, _ in zeroes:
            alloc = alloc.assign(start, end, Alloc.NONE)
        shown = (replace(top, alloc=alloc), *source[1:])
        return super().copy_set(sync, cluster, shown, bitmap, blind=blind)


@wrong_rule("zero clusters are not written to the target")
class ZeroesAreNotCopied(Rules):
    def transfer_piece(self, job: Job, target: Chain, start: int, end: int, kind: Alloc) -> Image:
        if kind is Alloc.ZERO:
            return target[0]
        return super().transfer_piece(job, target, start, end, kind)


@wrong_effect("drive-backup with sync=top makes a target without a backing file", backups,
              "prepare_file")  # fmt: skip
def top_target_without_backing(original: Any) -> Any:
    def prepare_file(op: DriveBackup, node: Node, world: State) -> None:
        original(op, node, world)
        if op.sync == "top" and op.mode == "absolute-paths":
            image = world.images[op.target]
            world.images[op.target] = replace(image, backing=None)

    return prepare_file


@wrong_effect("a backup into a file that exists wipes it first", backups, "start_backup")
def reused_target_is_wiped(original: Any) -> Any:
    def start_backup(op: Backup, world: State) -> str:
        job_id: str = original(op, world)
        old = world.images[op.target]
        world.images[op.target] = world.rules.create(
            format=old.format,
            size=old.size,
            cluster_size=old.cluster_size,
            compat=old.compat,
            extended_l2=old.extended_l2,
            backing=old.backing,
        )
        return job_id

    return start_backup


@wrong_effect("a job without an id is called after its node", backups, "choose_id")
def default_job_is_the_node(original: Any) -> Any:
    def choose_id(op: Backup, node: str, world: State) -> str:
        named = op if op.job is not None else replace(op, job=node)
        chosen: str = original(named, node, world)
        return chosen

    return choose_id


@wrong_effect("drive-backup with sync=top backs its target by the last file of the chain", backups,
              "prepare_file")  # fmt: skip
def top_target_by_the_last(original: Any) -> Any:
    def prepare_file(op: DriveBackup, node: Node, world: State) -> None:
        original(op, node, world)
        image = world.images[op.target]
        if op.sync == "top" and op.mode == "absolute-paths" and image.backing is not None:
            last = world.chain_names(node.image)[-1]
            world.images[op.target] = replace(image, backing=last)

    return prepare_file
