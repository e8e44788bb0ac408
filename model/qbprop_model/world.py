"""The World: everything qbprop believes about QEMU; one operation moves it one step."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from qbprop_model.bitmap import Bitmap, ceil_div
from qbprop_model.effects import effect
from qbprop_model.effects.holds import check_beside
from qbprop_model.effects.jobs import flush_through_filter
from qbprop_model.effects.mirrors import check_apart
from qbprop_model.expectation import (
    NOISE,
    READY_NOISE,
    Anonymous,
    BitmapState,
    Expectation,
    JobEnd,
    JobState,
)
from qbprop_model.image import Refused
from qbprop_model.jobs import Job
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.ranges import total
from qbprop_model.state import Outcome, State


class World(State):
    """The state, and the step: what must happen is derived from the operation alone."""

    def apply(self, operation: Operation) -> Expectation:
        """Move one step and say what must hold then.

        Raises :class:`InvalidOperationError` (the World stays as it was) for an operation
        that makes no sense here, or whose outcome is open.
        """
        if operation.engine not in self.engines:
            raise InvalidOperationError(f"there is no engine {operation.engine}")
        if self.held:
            check_beside(operation, self)
        if self.mirrors:
            check_apart(operation, self)
        before, engine = self.named_bitmaps(), self.engines[operation.engine]
        trial = self.copy()
        trial.begin_step()
        try:
            outcome = effect(operation, trial)
        except Refused as refused:
            started = [job for job in trial.jobs if job not in self.jobs]
            outcome = Outcome(refusal=refused.refusal)
            self.begin_step()
            self.images, self.vague = trial.images, trial.vague
            for job in started:
                self.ends[job] = JobEnd(None, None, aborted=True)
                self.tell(job, "created", "aborting", "concluded", "null")
                flush_through_filter(self, trial.jobs[job].node)
        else:
            trial.check_seen()
            self.__dict__.update(trial.__dict__)
        after = self.named_bitmaps()
        moved = self.engines[operation.engine] is not engine
        changed = {
            key: bitmap
            for key, bitmap in after.items()
            if moved or bitmap.differs_from(before.get(key))
        }
        return self._expect(outcome, changed)

    def final(self) -> Expectation:
        """What must hold at the end of an example: every digest, every byte, every allocation.

        But for what nobody else may read as it is mirrored.
        """
        self.begin_step()
        apart = {name for mirror in self.mirrors.values() for name in mirror.unread}
        disks = {
            name: node.image
            for name, node in self.nodes.items()
            if node.filters is None and name not in apart
        }
        closed = [f"{name}.0" for name in self.closed]
        read = (image if self.unreadable(name) else name for name, image in disks.items())
        targets = tuple(name for name in self.images if "." not in name and self.openable(name))
        everything = self._expect(
            Outcome(contents=(*read, *closed, *targets)), self.named_bitmaps()
        )
        layers = {name: self.images[image] for name, image in disks.items()}
        allocated = {
            name: top.allocated
            for name, top in layers.items()
            if top.format == "qcow2" and name not in self.torn and self.blind(name) is None
        }
        return replace(everything, allocated=allocated)

    def begin_step(self) -> None:
        """Nothing has happened yet in the next step; the jobs that run may make noise."""
        self.step += 1
        self.words = {
            job_id: (NOISE,) if job.status == "running" else () for job_id, job in self.jobs.items()
        }
        for job_id, mirror in self.mirrors.items():
            self.words[job_id] = (READY_NOISE,) if mirror.status == "ready" else ()
        self.ends, self.concluded, self.complaints, self.passed = {}, (), (), ()

    def _expect(self, outcome: Outcome, digested: Mapping[tuple[str, str], Bitmap]) -> Expectation:
        shown = [name for name in self.nodes if not name.startswith("#")]
        bitmaps: dict[str, dict[str, BitmapState]] = {
            name: {key: bitmap.state for key, bitmap in self.nodes[name].bitmaps.items()}
            for name in shown
        }
        digests = {key: bitmap.digest for key, bitmap in digested.items()}
        contents = {
            name: view
            for name in (*outcome.contents, *filter(self.openable, self.concluded))
            if (view := self.contents(name)) is not None
        }
        return Expectation(
            refusal=outcome.refusal,
            data=outcome.data,
            torn=outcome.torn,
            extents=outcome.extents,
            bitmaps=bitmaps,
            sizes={name: self.size(self.nodes[name]) for name in shown},
            digests=digests,
            jobs=dict(self.ends),
            contents=contents,
            alive={
                job_id: JobState(job.status, self._length(job), self._offset(job), job.error)
                for job_id, job in self.jobs.items()
            }
            | {
                job_id: JobState(mirror.status, mirror.length, mirror.length, kind=mirror.kind)
                for job_id, mirror in self.mirrors.items()
            },
            words=dict(self.words),
            anonymous=tuple(sorted(self._anonymous())),
            opened=tuple(sorted(self.opened)),
            complaints=self.complaints,
        )

    def _length(self, job: Job) -> int | None:
        """What ``query-jobs`` tells of all there is to copy."""
        return None if job.unscanned else job.length

    def _offset(self, job: Job) -> int | None:
        """What ``query-jobs`` tells of the progress."""
        return None if job.lost else job.offset

    def _anonymous(self) -> Iterator[Anonymous]:
        """The bitmaps that jobs keep for themselves (semantics 4)."""
        for mirror in self.mirrors.values():
            on_filter = self.traits.mirror_bitmap_on_filter
            holder = mirror.filter if on_filter else mirror.node
            count = sum(ceil_div(end - start, mirror.chunk) for start, end in mirror.left)
            recording = not (on_filter or mirror.blocking)
            yield Anonymous(holder, mirror.chunk, count * mirror.chunk, recording)
        for job in self.jobs.values():
            if not job.active:
                continue
            if job.bitmap is not None:
                bitmap = self.nodes[job.node].bitmaps[job.bitmap]
                assert bitmap.successor is not None
                count = int(np.count_nonzero(bitmap.successor)) * bitmap.granularity
                yield Anonymous(job.node, bitmap.granularity, count, bitmap.recording)
            above = "#" if job.filter.startswith("#") else job.filter
            holder = above if self.traits.copy_bitmap_on_filter else job.node
            yield Anonymous(holder, job.cluster, total(job.left), recording=False)
            if not self.traits.copy_before_write:
                continue
            whole = ceil_div(job.point_in_time.size, job.cluster) * job.cluster
            yield Anonymous(above, job.cluster, whole, recording=False)
            yield Anonymous(above, job.cluster, total(job.met), recording=False)
