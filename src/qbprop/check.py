"""The check: an Expectation against an Observation. Raises the Finding of what disagrees."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from qbprop.findings import (
    ContentsFinding,
    CountFinding,
    DirtySetFinding,
    EventsFinding,
    FieldsFinding,
    JobsFinding,
    ReplyFinding,
    normalise,
)
from qbprop.qemu.explain import show, subtract
from qbprop.qemu.features import Features
from qbprop.qemu.monitor import Event
from qbprop.qemu.observation import Observation
from qbprop.qemu.reasons import FAILED_FLUSH, classify, matches
from qbprop_model.expectation import (
    FOLLOWS,
    NOISE,
    READY_NOISE,
    Anonymous,
    BitmapState,
    Expectation,
    JobEnd,
    JobState,
    Reason,
    Refusal,
)


def check(name: str, expected: Expectation, observed: Observation, features: Features) -> None:
    """Compare everything that one observation holds; ``name`` is the operation's.

    Raises a :class:`Finding` for the first disagreement, in the order of the design.
    """
    check_reply(name, expected.refusal, observed, features)
    check_data(name, expected, observed)
    check_extents(name, expected, observed)
    check_events(name, expected, observed.events)
    if observed.bitmaps is not None:
        check_nodes(name, expected, observed)
    if observed.jobs is not None:
        check_jobs(name, expected.alive, observed.jobs)
    check_digests(name, expected, observed)
    for refused in observed.aftermath:
        raise ReplyFinding(name, f"then {normalise(refused.text)}", "ok", refused.text)
    if said := _unexpected(observed.stderr, expected.complaints):
        raise ReplyFinding(name, f"stderr {normalise(said)}", "", said)


_COMPLAINT = re.compile(rf"(?:\S+: )?{FAILED_FLUSH}")


def _unexpected(stderr: str, complaints: tuple[Reason, ...]) -> str:
    """What QEMU said on its standard error without a failed flush that it may complain of."""
    open_complaints = list(complaints)
    left: list[str] = []
    for line in stderr.splitlines(keepends=True):
        told = _COMPLAINT.fullmatch(line.strip())
        texts = [_TEXTS[reason] for reason in open_complaints]
        if told and told[1] in texts:
            del open_complaints[texts.index(told[1])]
        else:
            left.append(line)
    return "".join(left)


def check_reply(
    name: str, refusal: Refusal | None, observed: Observation, features: Features
) -> None:
    """Success, or the predicted reason of refusal (design 3, check 1)."""
    refused = observed.refused
    if refused is None:
        if refusal is not None:
            raise ReplyFinding(
                name, f"no {refusal.reason}", f"refused: {refusal.reason} {refusal.subject!r}", "ok"
            )
        return
    if refusal is not None and matches(refusal, refused, features):
        return
    wanted = "ok" if refusal is None else f"refused: {refusal.reason} {refusal.subject!r}"
    reason = classify(refused, features) or normalise(refused.text)
    due = "ok" if refusal is None else refusal.reason
    raise ReplyFinding(
        name, f"{reason} for {due}", wanted, f"{refused.error_class}: {refused.text}"
    )


def check_data(name: str, expected: Expectation, observed: Observation) -> None:
    """The bytes of a read; where a write has failed, those before it or all of its part."""
    if expected.data is None or observed.data is None:
        return
    if len(expected.data) != len(observed.data):
        raise ContentsFinding(
            name, "length", f"{len(expected.data)} bytes", f"{len(observed.data)} bytes"
        )
    due = expected.data
    if expected.torn is not None:
        due = due.copy()
        for start, end in expected.torn.parts:
            written = expected.torn.written[start:end]
            if np.array_equal(observed.data[start:end], written):
                due[start:end] = written
    wrong = np.flatnonzero(due != observed.data)
    if len(wrong):
        at = int(wrong[0])
        raise ContentsFinding(
            name,
            "data",
            f"at byte {at} of the read: {due[at : at + 16].tobytes().hex(' ')}",
            f"{observed.data[at : at + 16].tobytes().hex(' ')} ({len(wrong)} bytes differ)",
        )


def check_extents(name: str, expected: Expectation, observed: Observation) -> None:
    """The dirty byte ranges that a client is told (semantics 2.2)."""
    due, came = expected.extents, observed.extents
    if due is None or came is None or due == came:
        return
    raise DirtySetFinding(
        name,
        "extents",
        f"{show(due)}\nclean, but should be dirty: {show(subtract(due, came))}",
        f"{show(came)}\ndirty, but should be clean: {show(subtract(came, due))}",
    )


# --- events --------------------------------------------------------------------------------

_NOISE = r"(?:paused running )*"
_READY_NOISE = r"(?:standby ready )*"
_TEXTS = {
    Reason.ALREADY_ALLOCATED: "Input/output error",
    Reason.IO_ERROR: "Input/output error",
    Reason.NO_SPACE: "No space left on device",
    Reason.JOB_CANCELLED: "Operation canceled",
}
"""How the error of a job reads."""


def automaton(words: Iterable[str]) -> str:
    """The pattern of all sequences of events that tell these words; each ends with a blank."""

    def pattern(word: str) -> str:
        if word == NOISE:
            return _NOISE
        if word == READY_NOISE:
            return _READY_NOISE
        if word == FOLLOWS:
            return ""
        if word.startswith("["):
            return f"(?:{re.escape(word[1:-1])} )?"
        if word.startswith("ERRORS "):
            return f"(?:{re.escape(word.replace('ERRORS', 'ERROR', 1))} )+"
        return f"{re.escape(word)} "

    return "".join(map(pattern, words))


def check_events(name: str, expected: Expectation, events: Iterable[Event]) -> None:
    """Each job's events go on along its automaton, and none is left (semantics 6.4)."""
    words: dict[str, list[str]] = {job: [] for job in expected.words}
    for event in events:
        job, word = _told(name, event)
        if job not in words:
            raise EventsFinding(
                name, f"{word} of an unknown job", f"jobs {sorted(words)}", repr(event)
            )
        words[job].append(word)
        if event.name in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED") and job in expected.jobs:
            check_progress(name, expected.jobs[job], event)
    for job, due in expected.words.items():
        pattern = automaton(due)
        came = "".join(f"{word} " for word in words[job])
        if not re.fullmatch(pattern, came):
            shape = re.sub(_NOISE, "", came)
            raise EventsFinding(name, f"sequence {shape}", pattern, f"job {job}: {came}")


def _told(name: str, event: Event) -> tuple[str, str]:
    """The job that an event tells of, and its word in the model's language."""
    data = event.data
    match event.name:
        case "JOB_STATUS_CHANGE":
            return data["id"], data["status"]
        case "BLOCK_JOB_COMPLETED":
            return data["device"], "COMPLETED!" if "error" in data else "COMPLETED"
        case "BLOCK_JOB_ERROR":
            return data["device"], f"ERROR {data['operation']} {data['action']}"
        case "BLOCK_JOB_READY":
            return data["device"], "READY"
        case "BLOCK_JOB_PENDING":
            return data["id"], "PENDING"
        case "BLOCK_JOB_CANCELLED":
            return data["device"], "CANCELLED"
    raise EventsFinding(name, event.name, "no such event", repr(event))


def check_progress(name: str, end: JobEnd, event: Event) -> None:
    """``len`` and ``offset`` where they are determined, and the error's text (6.2, 6.4)."""
    for field, due in (("len", end.length), ("offset", end.offset), ("speed", end.speed)):
        if due is not None and event.data.get(field) != due:
            raise JobsFinding(name, field, f"{field} {due}", f"{field} {event.data.get(field)}")
    if event.data.get("type") != end.kind:
        raise JobsFinding(name, "type", end.kind, repr(event.data.get("type")))
    error = event.data.get("error")
    if end.error not in (None, Reason.JOB_CANCELLED) and error != _TEXTS[end.error]:
        raise JobsFinding(name, "error", _TEXTS[end.error], repr(error))


# --- state ---------------------------------------------------------------------------------


def check_nodes(name: str, expected: Expectation, observed: Observation) -> None:
    """Every field of every bitmap of every node (design 3, check 3)."""
    bitmaps = observed.bitmaps or {}
    if observed.other_nodes != expected.opened or set(bitmaps) != set(expected.bitmaps):
        raise FieldsFinding(
            name,
            "nodes",
            f"nodes {sorted(expected.bitmaps)}, also {sorted(expected.opened)}",
            f"nodes {sorted(bitmaps)}, also {sorted(observed.other_nodes)}",
        )
    for node, size in expected.sizes.items():
        came = (observed.sizes or {}).get(node)
        if came != size:
            raise FieldsFinding(name, "size", f"{node}: {size} bytes", f"{node}: {came} bytes")
    nameless = sorted(anonymous(*each) for each in observed.anonymous)
    if nameless != list(expected.anonymous):
        raise FieldsFinding(
            name, "anonymous bitmap", repr(list(expected.anonymous)), repr(nameless)
        )
    for node, due in expected.bitmaps.items():
        check_bitmaps(name, node, due, bitmaps[node])


def anonymous(node: str, entry: Mapping[str, Any]) -> Anonymous:
    """A bitmap without a name; one that is busy or persistent belongs to no job."""
    recording = bool(entry["recording"])
    where = "#" if node.startswith("#") else node
    if entry["busy"] or entry["persistent"]:
        where = f"{where}, busy or persistent"
    return Anonymous(where, entry["granularity"], entry["count"], recording)


def check_bitmaps(
    name: str, node: str, due: Mapping[str, BitmapState], came: Mapping[str, BitmapState]
) -> None:
    """The bitmaps of one node."""
    if set(due) != set(came):
        missing, more = sorted(set(due) - set(came)), sorted(set(came) - set(due))
        aspect = "bitmap missing" if missing else "bitmap too much"
        raise FieldsFinding(
            name, aspect, f"{node}: {sorted(due)}", f"{node}: missing {missing}, too much {more}"
        )
    for key, state in due.items():
        for field in ("granularity", "recording", "busy", "persistent", "inconsistent", "count"):
            a, b = getattr(state, field), getattr(came[key], field)
            if a != b:
                which = CountFinding if field == "count" else FieldsFinding
                where = f"{node}, bitmap {key!r}: {field}"
                aspect = direction(a, b) if field == "count" else field
                which_bitmap = (node, key) if field == "count" else None
                raise which(name, aspect, f"{where} {a}", f"{where} {b}", bitmap=which_bitmap)


def direction(due: int, came: int) -> str:
    """Bits lost are another bug than bits too much."""
    return "lost" if came < due else "too much"


def check_digests(name: str, expected: Expectation, observed: Observation) -> None:
    """Exactly the clusters that should be dirty are (semantics 2.1)."""
    for (node, bitmap), came in (observed.digests or {}).items():
        due = expected.digests[node, bitmap]
        if came != due:
            raise DirtySetFinding(
                name,
                "digest",
                f"{node}, bitmap {bitmap!r}: {due}",
                f"{node}, bitmap {bitmap!r}: {came}",
                bitmap=(node, bitmap),
            )


def check_jobs(
    name: str, alive: Mapping[str, JobState], observed: Iterable[Mapping[str, Any]]
) -> None:
    """Which jobs there are, their status and progress (semantics 6.2, 6.4)."""
    jobs = {job["id"]: job for job in observed}
    if set(jobs) != set(alive):
        missing = sorted(set(alive) - set(jobs))
        aspect = "missing" if missing else f"left {next(iter(jobs.values()))['status']}"
        raise JobsFinding(name, aspect, f"jobs {sorted(alive)}", repr(list(jobs.values())))
    for job_id, due in alive.items():
        came = jobs[job_id]
        error = None if due.error is None else _TEXTS[due.error]
        for field, wanted, seen in (
            ("status", due.status, came["status"]),
            ("total-progress", due.length, came["total-progress"]),
            ("current-progress", due.offset, came["current-progress"]),
            ("error", error, came.get("error")),
            ("type", due.kind, came["type"]),
        ):
            exact = wanted is not None or field == "error"
            if exact and wanted != seen:
                raise JobsFinding(name, field, f"{job_id}: {field} {wanted}", f"{seen}")
