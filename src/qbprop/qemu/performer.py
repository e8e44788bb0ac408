"""Plans carried out: each primitive step sent where it belongs, and its answer kept."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qbprop.qemu.export_clients import ExportClients
from qbprop.qemu.guest import GuestIo
from qbprop.qemu.images import Images
from qbprop.qemu.monitor import Command, Error, Event, Monitor, QemuSilent, Reply
from qbprop.qemu.observation import Exchange, Refused, RequestRefused
from qbprop.qemu.patience import Patience
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitCopy,
    AwaitExportGone,
    AwaitJobs,
    AwaitRest,
    CompleteJob,
    DetachGuest,
    DirtyExtents,
    GuestRequest,
    HoldRequest,
    HumanCommand,
    MakeImage,
    Plan,
    Primitive,
    Program,
    ReattachGuest,
    ReleaseGuest,
    ReleaseRequest,
    ServeExports,
    UntilConcluded,
    resolve,
    synced_length,
)
from qbprop.qemu.query import (
    JOBS_QUERY,
    NODES_QUERY,
    accepted,
    has_copied,
    in_hand,
    refusal,
)
from qbprop.qemu.reasons import FAILED_FLUSH
from qbprop_model.data import Bytes
from qbprop_model.ranges import Ranges

MOVING = ("created", "running", "paused")
"""The statuses in which a job may still copy."""

_COMPLAINT = re.compile(rf"^{FAILED_FLUSH}\n?", re.MULTILINE)
"""What a command that has succeeded complains of; before 11 that goes to standard error."""

SYNC_SECONDS = 3.0
"""How long a mirror is waited for that may have missed a guest's write."""

ERROR_STOPPED = "error-stopped"
"""As a job's rest: the status ``paused``, behind an error."""

ENDLESS = "endless"
"""As a job's rest: there is none."""


@dataclass
class Outcome:
    """What came of a plan; the fields are those of Observation.

    ``said``: what QEMU complained of in a reply of the human monitor. ``replies``: to the queries.
    """

    refused: Refused | None = None
    data: Bytes | None = None
    extents: Ranges | None = None
    events: list[Event] = field(default_factory=list)
    aftermath: list[Refused] = field(default_factory=list)
    exchange: list[Exchange] = field(default_factory=list)
    said: str = ""
    replies: list[Reply] = field(default_factory=list)


class Performer:
    """Carries out plans on one QEMU. Every method raises the gone exceptions."""

    def __init__(
        self, monitor: Monitor, guest: GuestIo, images: Images, clients: ExportClients
    ) -> None:
        self._monitor = monitor
        self._guest = guest
        self._images = images
        self._clients = clients
        self._rests: Mapping[str, str] | None = None
        self._postponed: list[UntilConcluded] = []
        self.jobs: dict[str, str] = {}
        """The status of each job that there is, as its events told it last."""

    def start(
        self, plan: Plan, queries: Sequence[Command] = (), rests: Mapping[str, str] | None = None
    ) -> Callable[[], Outcome]:
        """Carry out ``plan`` and send ``queries`` all at once; a call tells what came of it.

        That call must come before anything else is asked of QEMU. ``rests`` tells for each job
        that the plan moves the status in which it comes to rest.
        """
        outcome = Outcome()
        self._rests = rests
        undo = self._prepare(plan, outcome)
        asked: list[Command] = []
        if outcome.refused is None:
            if isinstance(plan.main, Command) and _says_nothing([*plan.settle, *undo, *plan.then]):
                asked = [resolve(plan.main, self._images.format_of)]
            else:
                self._perform_main(plan, undo, outcome)
        self._monitor.send([*asked, *queries])

        def finish() -> Outcome:
            replies = self._monitor.receive()
            outcome.replies = replies[len(asked) :]
            if asked:
                outcome.exchange.append(Exchange(asked[0], replies[0]))
                if isinstance(replies[0], Error):
                    outcome.refused = refusal(replies[0])
                self._wind_up(plan, undo, outcome)
            self._take_events(outcome)
            return outcome

        return finish

    def end_jobs(self) -> None:
        """Cancel and dismiss whatever job there is, and close what it kept open."""
        outcome = Outcome()
        self._take_events(outcome)
        for job in [job for job, status in self.jobs.items() if status != "concluded"]:
            self._monitor.execute(Command("job-cancel", {"id": job}))
            self._await_status(job, "null", outcome)
        for job in list(self.jobs):
            self._monitor.execute(Command("job-dismiss", {"id": job}))
        self._take_events(outcome)
        for step in self._due(everything=True):
            self._do(step, outcome)

    def _prepare(self, plan: Plan, outcome: Outcome) -> list[Primitive]:
        """Do what comes first; what undoes it, unless a step was refused and all is undone."""
        undo: list[Primitive] = []
        try:
            for step, reverse in plan.prepare:
                self._do(step, outcome)
                if reverse is not None:
                    undo.append(reverse)
        except RequestRefused as request:
            outcome.refused = request.refused
            self._try(map(_now, reversed(undo)), outcome)
        return undo

    def _perform_main(self, plan: Plan, undo: Sequence[Primitive], outcome: Outcome) -> None:
        try:
            outcome.data = self._do(plan.main, outcome)
        except RequestRefused as request:
            outcome.refused = request.refused
        self._try(plan.settle, outcome)
        self._wind_up(plan, undo, outcome)

    def _wind_up(self, plan: Plan, undo: Sequence[Primitive], outcome: Outcome) -> None:
        if outcome.refused is None:
            self._try([*reversed(undo), *plan.then], outcome)
        else:
            self._try(map(_now, reversed(undo)), outcome)
        if self._postponed:
            self._take_events(outcome)
            self._try(self._due(), outcome)

    def _try(self, steps: Iterable[Primitive], outcome: Outcome) -> None:
        for step in steps:
            if isinstance(step, UntilConcluded):
                self._postponed.append(step)
                continue
            try:
                self._do(step, outcome)
            except RequestRefused as request:
                outcome.aftermath.append(request.refused)

    def _due(self, *, everything: bool = False) -> list[Primitive]:
        """What waited for the end of jobs that have concluded by now; it waits no more."""
        over = [
            each
            for each in self._postponed
            if everything or self.jobs.get(each.job, "concluded") == "concluded"
        ]
        self._postponed = [each for each in self._postponed if each not in over]
        return [each.undo for each in over]

    def _do(self, step: Primitive, outcome: Outcome) -> Bytes | None:
        """Send one step; the bytes of a read. Raises RequestRefused."""
        step = resolve(step, self._images.format_of)
        try:
            answer = self._send(step, outcome)
        except RequestRefused as request:
            outcome.exchange.append(Exchange(step, request.refused))
            raise
        outcome.exchange.append(Exchange(step, answer))
        return answer if isinstance(step, GuestRequest) else None

    def _send(self, step: Primitive, outcome: Outcome) -> Any:
        match step:
            case Command():
                return accepted(self._monitor.execute(step))
            case HumanCommand():
                return self._ask_human_monitor(step, outcome)
            case GuestRequest():
                return self._guest.perform(step)
            case HoldRequest(request):
                self._guest.hold(request)
            case ReleaseRequest(node):
                self._guest.go_on(node)
            case Program():
                self._images.run(step)
            case MakeImage():
                self._images.make(step)
            case AttachGuest(node, drive, writable):
                self._guest.attach(node, drive, writable=writable)
            case DetachGuest(name):
                self._guest.detach(name)
            case ReattachGuest(name):
                self._guest.reattach(name)
            case ReleaseGuest(name):
                self._guest.release(name)
            case ServeExports():
                self._clients.serve()
            case DirtyExtents(export, bitmap, offset, length):
                outcome.extents = self._clients.dirty_extents(export, bitmap, offset, length)
                return outcome.extents
            case AwaitExportGone(export):
                self._clients.await_gone(export)
            case AwaitJobs():
                self._await_jobs(outcome, None)
            case AwaitRest():
                self._await_jobs(outcome, self._rests)
            case CompleteJob(job) if outcome.refused is None:
                self._await_status(job, "ready", outcome)
                return accepted(self._monitor.execute(Command("job-complete", {"id": job})))
            case AwaitCopy(job) if outcome.refused is None:
                self._await_copy(job)
        return None

    def _ask_human_monitor(self, step: HumanCommand, outcome: Outcome) -> str:
        command = Command("human-monitor-command", {"command-line": step.line})
        reply: str = accepted(self._monitor.execute(command))
        outcome.said += "".join(told[0] for told in _COMPLAINT.finditer(reply))
        text = _COMPLAINT.sub("", reply).strip()
        if text != step.success:
            raise RequestRefused(Refused("qmp", "HMP", text))
        return text

    def _await_jobs(self, outcome: Outcome, rests: Mapping[str, str] | None) -> None:
        """Wait for each job to come to rest; None: for those that were created, to be gone."""
        self._take_events(outcome)
        if rests is None or outcome.refused is not None:
            created = [e.data["id"] for e in outcome.events if e.data.get("status") == "created"]
            rests = {job: "null" for job in created if job in self.jobs}
        for job, status in rests.items():
            length = synced_length(status)
            if length is None:
                self._await_status(job, status, outcome)
            else:
                self._await_length(job, length)

    def _await_status(self, job: str, status: str, outcome: Outcome) -> None:
        """Wait until a job has come to a status, or has concluded."""
        failed = status != ERROR_STOPPED
        wanted = "paused" if status == ERROR_STOPPED else status

        def rests(event: Event) -> bool:
            nonlocal failed
            data = event.data
            if event.name == "BLOCK_JOB_ERROR" and data["device"] == job:
                failed = True
            if event.name != "JOB_STATUS_CHANGE" or data["id"] != job:
                return False
            return data["status"] in ("concluded", "null") or (failed and data["status"] == wanted)

        if not any(map(rests, outcome.events)):
            try:
                self._monitor.wait(rests)
            except QemuSilent as silent:
                self._take_events(outcome)
                what = f"job {job} is {self.jobs.get(job)}, not {status}"
                raise QemuSilent(what, silent.seconds) from silent
        self._take_events(outcome)

    def _await_copy(self, job: str) -> None:
        """Ask until a job has copied something and no job has anything in hand."""
        seconds = self._monitor.timeout
        patience = Patience(seconds)
        while not patience.over:
            jobs, nodes = map(accepted, self._monitor.execute_all([JOBS_QUERY, NODES_QUERY]))
            moves = any(each["id"] == job and each["status"] in MOVING for each in jobs)
            if not moves or (has_copied(job, jobs) and in_hand(jobs, nodes) == 0):
                return
        raise QemuSilent(f"job {job} is {self.jobs.get(job)} and does not rest", seconds)

    def _await_length(self, job: str, length: int) -> None:
        """Ask until a mirror has copied ``length`` bytes and more is not to be done.

        Where it does not get there the queries behind it will tell.
        """
        patience = Patience(min(SYNC_SECONDS, self._monitor.timeout))
        while not patience.over:
            jobs = accepted(self._monitor.execute(JOBS_QUERY))
            ready = [each for each in jobs if each["id"] == job and each["status"] == "ready"]
            if any(each["current-progress"] == each["total-progress"] == length for each in ready):
                return

    def _take_events(self, outcome: Outcome) -> None:
        events = self._monitor.events()
        outcome.events += events
        for event in events:
            if event.name == "JOB_STATUS_CHANGE":
                job, status = event.data["id"], event.data["status"]
                self.jobs[job] = status
                if status == "null":
                    del self.jobs[job]


def _says_nothing(steps: Iterable[Primitive]) -> bool:
    """Whether nothing is sent for steps, so that it does not matter when they are done."""
    return all(isinstance(step, AttachGuest | ReattachGuest) for step in steps)


def _now(undo: Primitive) -> Primitive:
    """What undoes a step of an operation that was refused."""
    return undo.undo if isinstance(undo, UntilConcluded) else undo
