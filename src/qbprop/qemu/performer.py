"""Plans carried out: each primitive step sent where it belongs, and its answer kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qbprop.qemu.guest import GuestIo
from qbprop.qemu.images import Images
from qbprop.qemu.monitor import Command, Error, Event, Monitor, Reply
from qbprop.qemu.observation import Exchange, Refused, RequestRefused
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitJobs,
    DetachGuest,
    GuestRequest,
    HumanCommand,
    MakeImage,
    Plan,
    Primitive,
    Program,
    ReattachGuest,
    resolve,
)
from qbprop.qemu.query import accepted, refusal
from qbprop_model.data import Bytes


@dataclass
class Outcome:
    """What came of a plan; the fields are those of Observation. ``replies``: to the queries."""

    refused: Refused | None = None
    data: Bytes | None = None
    events: list[Event] = field(default_factory=list)
    aftermath: list[Refused] = field(default_factory=list)
    exchange: list[Exchange] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)


class Performer:
    """Carries out plans on one QEMU. Every method raises the gone exceptions."""

    def __init__(self, monitor: Monitor, guest: GuestIo, images: Images) -> None:
        self._monitor = monitor
        self._guest = guest
        self._images = images

    def perform(self, plan: Plan, queries: Sequence[Command] = ()) -> Outcome:
        """Carry out ``plan``, then send ``queries`` all at once."""
        outcome = Outcome()
        if isinstance(plan.main, Command) and plan == Plan(plan.main):
            reply, *outcome.replies = self._monitor.execute_all([plan.main, *queries])
            outcome.exchange.append(Exchange(plan.main, reply))
            if isinstance(reply, Error):
                outcome.refused = refusal(reply)
        else:
            self._carry_out(plan, outcome)
            outcome.replies = self._monitor.execute_all(queries) if queries else []
        outcome.events += self._monitor.events()
        return outcome

    def _carry_out(self, plan: Plan, outcome: Outcome) -> None:
        undo: list[Primitive] = []
        after: list[Primitive] = []
        try:
            for step, reverse in plan.prepare:
                self._do(step, outcome)
                if reverse is not None:
                    undo.append(reverse)
            after += plan.settle
            outcome.data = self._do(plan.main, outcome)
            after += [*reversed(undo), *plan.then]
        except RequestRefused as request:
            outcome.refused = request.refused
            after += reversed(undo)
        for step in after:
            try:
                self._do(step, outcome)
            except RequestRefused as request:
                outcome.aftermath.append(request.refused)

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
                return self._ask_human_monitor(step)
            case GuestRequest():
                return self._guest.perform(step)
            case Program():
                self._images.run(step)
            case MakeImage():
                self._images.make(step)
            case AttachGuest(node, drive):
                self._guest.attach(node, drive)
            case DetachGuest(name):
                self._guest.detach(name)
            case ReattachGuest(name):
                self._guest.reattach(name)
            case AwaitJobs():
                self._await_jobs(outcome)
        return None

    def _ask_human_monitor(self, step: HumanCommand) -> str:
        command = Command("human-monitor-command", {"command-line": step.line})
        text: str = accepted(self._monitor.execute(command)).strip()
        if text != step.success:
            raise RequestRefused(Refused("qmp", "HMP", text))
        return text

    def _await_jobs(self, outcome: Outcome) -> None:
        """Wait for the end of each job that the events up to now show created."""
        outcome.events += self._monitor.events()
        alive: dict[str, None] = {}
        for event in outcome.events:
            if event.name == "JOB_STATUS_CHANGE":
                match event.data["status"]:
                    case "created":
                        alive[event.data["id"]] = None
                    case "null":
                        alive.pop(event.data["id"], None)
        for job in alive:
            self._monitor.wait(Event("JOB_STATUS_CHANGE", {"id": job, "status": "null"}).__eq__)
