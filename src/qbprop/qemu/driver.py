"""Operations performed on a real QEMU: a plan is carried out, and what followed is observed.

A driver keeps one QEMU for many examples. `Driver.reset` brings it back to empty, and
replaces it when that fails or when it died, hung or was left in an unknown state.
"""

import importlib.util
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from qbprop.errors import EnvironmentProblem
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.contents import Difference
from qbprop.qemu.explain import dirty_ranges
from qbprop.qemu.export_clients import ExportClients
from qbprop.qemu.features import Features
from qbprop.qemu.guest import GuestIo
from qbprop.qemu.guest_hmp import HmpGuest
from qbprop.qemu.images import Images
from qbprop.qemu.migration import INCOMING, UNANNOUNCED, migrate
from qbprop.qemu.monitor import Command, Error, QemuGone, Reply
from qbprop.qemu.observation import Observation, Refused, RequestRefused
from qbprop.qemu.patience import Patience
from qbprop.qemu.performer import Outcome, Performer
from qbprop.qemu.plan import awaiting, plan, target_file
from qbprop.qemu.primitives import EndQemu, GuestRequest, MigrateQemu
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.query import (
    EXPORTS_QUERY,
    JOBS_QUERY,
    NODES_QUERY,
    accepted,
    digest_query,
    digests_of,
    in_hand,
    refusal,
    state_of,
)
from qbprop.qemu.readback import Reader
from qbprop_model.data import Bytes
from qbprop_model.expectation import Contents
from qbprop_model.operations import (
    AddDisk,
    BlockdevSnapshot,
    ChangeBitmap,
    CloseDisk,
    CommitImage,
    CompareImages,
    ConvertImage,
    CreateImage,
    ExportAdd,
    ExportDel,
    Flush,
    Migrate,
    OpenDisk,
    Operation,
    Read,
    ReadDirtyExtents,
    RebaseImage,
    ReopenDisk,
    ResizeImage,
    Transaction,
)

__all__ = ["Driver", "Observation", "Refused"]

TRANSPORT_EVENTS = frozenset({"BLOCK_EXPORT_DELETED"})
"""Events that the transport causes; those of operations are waited for where they are due."""

Bitmaps = Collection[tuple[str, str]]
"""Bitmaps as (node, bitmap name)."""


@dataclass(frozen=True, slots=True)
class _Launched:
    """A QEMU, and what works on it."""

    process: QemuProcess
    guest: GuestIo
    clients: ExportClients
    performer: Performer
    reader: Reader


class Driver:
    """One QEMU in ``folder`` that operations are performed on.

    ``transport`` says how guest requests travel; None takes "nbd" where libnbd is there.
    ``timeout`` (seconds) bounds every single wait. ``others`` are the QEMUs that an operation may
    launch instead, from number 1. Must be created in the main thread.
    Raises EnvironmentProblem when QEMU or the transport is not to be had.
    """

    _now: _Launched

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        *,
        transport: Literal["nbd", "hmp"] | None = None,
        timeout: float = 10.0,
        others: Sequence[Binaries] = (),
    ) -> None:
        self._qemus = (binaries, *others)
        self._number = 0
        self._folder = folder
        self._timeout = timeout
        daemon = any(each.daemon for each in self._qemus)
        self._guest_class = _guest_class(transport, daemon=daemon)
        self._images = Images(binaries, folder, timeout)
        self._earlier_round_trips = 0
        self.launches = 0
        self.every_features: tuple[Features, ...] = ()
        """What each QEMU can do, by number."""
        self._launch(0)
        self.every_features = (self.features, *map(self._asked, others))
        if others and self.features.announces_switchover:
            self._now.process.kill()
            self._launch(0)

    def __enter__(self) -> Self:
        """The driver itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    @property
    def features(self) -> Features:
        """What this QEMU can do."""
        return self._now.process.features

    @property
    def version(self) -> str:
        """QEMU's version, to be shown."""
        return self.features.version

    @property
    def transport(self) -> str:
        """How guest requests travel: "nbd" or "hmp"."""
        return self._now.guest.name

    @property
    def process(self) -> QemuProcess:
        """The QEMU of now; another one after a relaunch."""
        return self._now.process

    @property
    def round_trips(self) -> int:
        """How often QMP commands were sent so far; those that went together count once."""
        return self._earlier_round_trips + self._now.process.monitor.round_trips

    @property
    def timeout(self) -> float:
        """Longest time of a single wait, in seconds; may be set."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = self._now.process.monitor.timeout = self._images.timeout = seconds

    def perform(
        self,
        operation: Operation,
        digests: Bitmaps = (),
        rests: Mapping[str, str] | None = None,
    ) -> Observation:
        """Perform ``operation`` and observe what followed, as far as it can have followed.

        The SHA-256 of each bitmap in ``digests`` is asked for. The state of the nodes is, but
        after what never reaches them; that of the jobs, where there are any. ``rests``: the
        status in which each job that the operation moves comes to rest; without it, gone.
        Raises the gone exceptions; then `reset` comes next.
        """
        return self.start(operation, digests, rests)()

    def start(
        self,
        operation: Operation,
        digests: Bitmaps = (),
        rests: Mapping[str, str] | None = None,
    ) -> Callable[[], Observation]:
        """As `perform`, but the observation comes from a call of what is returned.

        Meanwhile QEMU may still be answering: before that call only `reset` and `close` may be
        called.
        """
        with self._tainting():
            planned = awaiting(plan(operation), rests)
            if isinstance(planned.main, EndQemu):
                return self._restart(planned.main)
            if isinstance(planned.main, MigrateQemu):
                observation = self._migrate(planned.main, digests)
                if observation.refused is None:
                    self._note(operation)
                return lambda: observation
            queries = [digest_query(node, name) for node, name in digests]
            nodes = not _reaches_no_node(operation)
            queries += [NODES_QUERY] if nodes else []
            jobs = planned.settle or (nodes and self._now.performer.jobs)
            queries += [JOBS_QUERY] if jobs else []
            performed = self._now.performer.start(planned, queries, rests)
            self._under_way = True

        def finish() -> Observation:
            with self._tainting():
                outcome = performed()
                self._under_way = False
                if outcome.refused is None:
                    self._note(operation)
                return self._observation(outcome, digests, queries)

        return finish

    def _restart(self, step: EndQemu) -> Callable[[], Observation]:
        """End QEMU, and launch another one on the same images."""
        said = self._now.process.end(step.how)
        self._launch(step.qemu)
        observed = self.observe()
        return lambda: replace(observed, stderr=said + observed.stderr)

    def _migrate(self, step: MigrateQemu, digests: Bitmaps) -> Observation:
        """Migrate to a new QEMU that has the disks; where that fails all is as before."""
        self._migrated = True
        old = self._now
        new = self._launched(step.qemu, *INCOMING)
        said = ""
        try:
            opened = [new.performer.start(disk)() for disk in step.disks]
            refused = next((each.refused for each in opened if each.refused is not None), None)
            if refused is None:
                for node in self._disks:
                    old.guest.detach(node)
                refused = migrate(old.process, new.process, step)
            if refused is None:
                said = old.process.end("quit")
        except RequestRefused as request:
            refused = request.refused
        except BaseException:
            new.process.kill()
            raise
        if refused is not None:
            new.process.kill()
            return replace(self.observe(digests), refused=refused)
        self._earlier_round_trips += old.process.monitor.round_trips
        self._take(step.qemu, new)
        observed = self.observe(digests)
        return replace(observed, stderr=said + observed.stderr)

    def can_perform(self, operation: Operation) -> bool:
        """Whether this QEMU, and what is installed here, allow for an operation."""
        match operation:
            case ReadDirtyExtents():
                return importlib.util.find_spec("nbd") is not None
            case ReopenDisk():
                return self.features.blockdev_reopen
            case ConvertImage(skip_broken=True):
                return self.features.skip_broken_bitmaps
            case Migrate(mapping=mapping, qemu=number) if mapping is not None:
                sides = (self.features, *self.every_features[number : number + 1])
                return all(each.bitmap_mapping for each in sides)
            case ExportAdd(bitmaps=bitmaps):
                far = any(bitmap.node is not None for bitmap in bitmaps)
                features = self.features
                return features.block_export_add and (features.export_bitmap_nodes or not far)
        return True

    def observe(self, digests: Bitmaps = ()) -> Observation:
        """The state as it is, without an operation. Raises the gone exceptions."""
        with self._tainting():
            queries = [digest_query(node, name) for node, name in digests]
            queries += [NODES_QUERY, JOBS_QUERY]
            replies = self._now.process.monitor.execute_all(queries)
            events = self._now.process.monitor.events()
            return self._observation(Outcome(replies=replies, events=events), digests, queries)

    def read_disk(self, node: str, start: int, length: int) -> Bytes | Refused:
        """Read from an open disk as a guest does. Raises the gone exceptions."""
        with self._tainting():
            try:
                data = self._now.guest.perform(GuestRequest(node, "read", start, length))
            except RequestRefused as request:
                return request.refused
            assert data is not None
            return data

    def differences(
        self, name: str, expected: Contents, through: Literal["qemu", "program"] = "qemu"
    ) -> Difference | Refused | None:
        """Where the bytes of an open disk, or of an image with its chain, are not as expected.

        An image is named without the end of its file name: "target0", "drive0.1". ``through``
        says how it is read: "qemu" opens it read-only in the running QEMU, "program" has a new
        ``qemu-img`` process read it, which is stricter and slower. A refusal says that it could
        not be read. Raises the gone exceptions.
        """
        with self._tainting():
            if name in self._disks:
                return self._now.reader.disk(name, expected)
            return self._now.reader.image(target_file(name), expected, through)

    def allocated(self, node: str) -> Sequence[tuple[int, int]] | Refused | None:
        """The byte ranges that an open disk's top layer has; None where QEMU does not tell.

        Raises the gone exceptions.
        """
        with self._tainting():
            try:
                return self._now.guest.allocated(node)
            except RequestRefused as request:
                return request.refused

    def dirty_ranges(self, node: str, bitmap: str) -> list[tuple[int, int]] | None:
        """The byte ranges that QEMU holds for dirty, None if it does not tell; then `reset`.

        Raises the gone exceptions.
        """
        self._tainted = True
        monitor, img = self._now.process.monitor, self._qemus[self._number].img
        return dirty_ranges(monitor, img, self._folder, node, bitmap)

    @contextmanager
    def checking_images(
        self, names: Iterable[str], leaky: Iterable[str] = ()
    ) -> Iterator[Callable[[], dict[str, str]]]:
        """Start ``qemu-img check`` of images; a call tells what it finds wrong with which.

        They are named as in `differences`. Meanwhile they may be read. Those that are ``leaky``
        may have lost clusters. Raises QemuSilent when the program does not end in time.
        """
        files = {target_file(name): name for name in names}
        with self._images.checking(files, set(map(target_file, leaky))) as problems:
            yield lambda: {files[file]: problem for file, problem in problems().items()}

    def close_disks(self) -> None:
        """Close all open disks, so that programs can read and check their images.

        A disk that stays open is seen by `observe`. Raises the gone exceptions.
        """
        with self._tainting():
            self._close_all()

    def reset(self) -> None:
        """Back to an empty QEMU and an empty folder (semantics 12).

        What is known to be open is closed; if QEMU is not empty then, or is gone or tainted, a
        new one is launched. Raises EnvironmentProblem if that cannot be.
        """
        try:
            other = self._number or self._migrated
            clean = not (self._tainted or self._under_way or other) and self._close_all()
        except QemuGone:
            clean = False
        if not clean:
            self._now.process.kill()
            self._launch(0)
        self._images.delete_all()

    def close(self) -> None:
        """End QEMU, whatever state it is in, and delete its images."""
        self._now.process.kill()
        self._images.delete_all()

    def _asked(self, binaries: Binaries) -> Features:
        """What a QEMU can do; it is launched for that."""
        with QemuProcess(binaries, self._folder, self._timeout) as process:
            return process.features

    def _launch(self, number: int) -> None:
        if self.launches:
            self._earlier_round_trips += self._now.process.monitor.round_trips
        self._take(number, self._launched(number))
        self._migrated = False

    def _launched(self, number: int, *options: str) -> _Launched:
        """A new QEMU, with nothing in it."""
        features = self.every_features[number] if self.every_features else None
        if features is not None and features.announces_switchover:
            options = (*options, *UNANNOUNCED)
        process = QemuProcess(self._qemus[number], self._folder, self._timeout, features, options)
        guest = self._guest_class(process, self._folder)
        clients = ExportClients(process, self._folder)
        return _Launched(
            process,
            guest,
            clients,
            Performer(process.monitor, guest, self._images, clients),
            Reader(process.monitor, guest, self._images),
        )

    def _take(self, number: int, launched: _Launched) -> None:
        """From now on this QEMU is the one."""
        self._number, self._now = number, launched
        self._images.take(self._qemus[number])
        self._disks: dict[str, str | None] = {}
        self._exports: set[str] = set()
        self._tainted = self._under_way = False
        self.launches += 1

    @contextmanager
    def _tainting(self) -> Iterator[None]:
        """Whatever breaks off in the middle, an interruption too, leaves QEMU unusable."""
        try:
            yield
        except BaseException:
            self._tainted = True
            raise

    def _observation(
        self, outcome: Outcome, digests: Bitmaps, queries: Sequence[Command]
    ) -> Observation:
        replies = self._rested(queries, outcome.replies)
        nodes, jobs = _nodes_and_jobs(queries, replies)
        unanswered = [refusal(reply) for reply in (nodes, jobs) if isinstance(reply, Error)]
        state = None if nodes is None or unanswered else state_of(nodes)
        return Observation(
            refused=outcome.refused,
            data=outcome.data,
            extents=outcome.extents,
            events=tuple(e for e in outcome.events if e.name not in TRANSPORT_EVENTS),
            bitmaps=state.bitmaps if state else None,
            anonymous=state.anonymous if state else (),
            sizes=state.sizes if state else {},
            other_nodes=state.other_nodes if state else (),
            digests=digests_of(digests, replies[: len(digests)]),
            jobs=None if jobs is None or unanswered else tuple(accepted(jobs)),
            stderr=outcome.said + self._now.process.stderr_text(),
            aftermath=(*outcome.aftermath, *unanswered),
            exchange=tuple(outcome.exchange),
        )

    def _rested(self, queries: Sequence[Command], replies: Sequence[Reply]) -> Sequence[Reply]:
        """The replies to some queries, asked again while a job has something in hand.

        A job with a speed limit that was drained begins anew: it takes its next cluster for a
        moment, until it has found out that it may not copy it yet.
        """
        patience = Patience(self.timeout)
        while not patience.over:
            nodes, jobs = _nodes_and_jobs(queries, replies)
            if not jobs or nodes is None or isinstance(nodes, Error) or isinstance(jobs, Error):
                break
            if in_hand(jobs, nodes) == 0:
                break
            replies = self._now.process.monitor.execute_all(queries)
        return replies

    def _note(self, operation: Operation) -> None:
        """Keep in mind what an operation has opened, or closed."""
        match operation:
            case AddDisk(node=node, drive=drive) | OpenDisk(node=node, drive=drive):
                self._disks[node] = drive
            case BlockdevSnapshot(overlay=overlay):  # closed before what is below it
                self._disks = {overlay: self._disks[overlay]} | self._disks
            case Transaction(actions=actions):
                for action in actions:
                    self._note(action)
            case Migrate(disks=disks):
                self._disks |= {disk.node: disk.drive for disk in disks}
            case CloseDisk(node=name):
                self._disks = {k: v for k, v in self._disks.items() if name not in (k, v)}
            case ExportAdd(export=export):
                self._exports.add(export)
            case ExportDel(export=export):
                self._exports.discard(export)

    def _close_all(self) -> bool:
        """Close all that is known to be open; whether QEMU is empty then."""
        monitor = self._now.process.monitor
        try:
            self._now.performer.end_jobs()
            self._now.guest.detach_all()
            while self._exports:
                self._now.clients.delete(self._exports.pop())
        except RequestRefused:
            return False
        closing = [_close_disk(node, drive) for node, drive in self._disks.items()]
        asked = [NODES_QUERY, JOBS_QUERY, EXPORTS_QUERY]
        replies = monitor.execute_all([*closing, *asked])
        self._disks.clear()
        monitor.events()
        self._now.process.stderr_text()
        return all(reply == [] for reply in replies[-len(asked) :])


def _close_disk(node: str, drive: str | None) -> Command:
    if drive is None:
        return Command("blockdev-del", {"node-name": node})
    return Command("human-monitor-command", {"command-line": f"drive_del {drive}"})


_NO_NODE = (
    *(Read, Flush, ReadDirtyExtents, CreateImage, RebaseImage, ChangeBitmap, ResizeImage),
    *(CommitImage, ConvertImage, CompareImages),
)


def _nodes_and_jobs(
    queries: Sequence[Command], replies: Sequence[Reply]
) -> tuple[Reply | None, Reply | None]:
    """What NODES_QUERY and JOBS_QUERY were answered, if they are among the queries."""
    answers = {query.name: reply for query, reply in zip(queries, replies, strict=True)}
    return answers.get(NODES_QUERY.name), answers.get(JOBS_QUERY.name)


def _reaches_no_node(operation: Operation) -> bool:
    """Whether an operation changes no open node, whatever becomes of it."""
    return isinstance(operation, _NO_NODE)


def _guest_class(transport: str | None, *, daemon: bool) -> Callable[[QemuProcess, Path], GuestIo]:
    if transport == "hmp":
        if daemon:
            raise EnvironmentProblem(
                "a storage daemon has no human monitor: leave the choice of the transport to qbprop"
            )
        return HmpGuest
    try:
        from qbprop.qemu.guest_nbd import NbdGuest
    except ImportError as error:
        if transport is None and not daemon:
            return HmpGuest
        raise EnvironmentProblem(
            f"libnbd's Python module cannot be imported ({error}): install Debian's "
            "python3-libnbd, and use a virtual environment made by /usr/bin/python3 with "
            "--system-site-packages; or choose the transport 'hmp'"
        ) from error
    return NbdGuest
