"""The check: an Expectation against an Observation. Raises the Finding of what disagrees."""

import re
from collections.abc import Iterable, Mapping

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
from qbprop.qemu.features import Features
from qbprop.qemu.monitor import Event
from qbprop.qemu.observation import Observation
from qbprop.qemu.reasons import classify, matches
from qbprop_model.expectation import BitmapState, Expectation, JobEnd, Refusal


def check(name: str, expected: Expectation, observed: Observation, features: Features) -> None:
    """Compare everything that one observation holds; ``name`` is the operation's.

    Raises a :class:`Finding` for the first disagreement, in the order of the design.
    """
    check_reply(name, expected.refusal, observed, features)
    check_data(name, expected, observed)
    check_events(name, expected.jobs, observed.events)
    if observed.bitmaps is not None:
        check_nodes(name, expected, observed)
    check_jobs(name, observed.jobs)
    check_digests(name, expected, observed)
    for refused in observed.aftermath:
        raise ReplyFinding(name, f"then {normalise(refused.text)}", "ok", refused.text)
    if observed.stderr:
        raise ReplyFinding(name, f"stderr {normalise(observed.stderr)}", "", observed.stderr)


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
    """The bytes of a read."""
    if expected.data is None or observed.data is None:
        return
    if len(expected.data) != len(observed.data):
        raise ContentsFinding(
            name, "length", f"{len(expected.data)} bytes", f"{len(observed.data)} bytes"
        )
    wrong = np.flatnonzero(expected.data != observed.data)
    if len(wrong):
        at = int(wrong[0])
        raise ContentsFinding(
            name,
            "data",
            f"at byte {at} of the read: {expected.data[at : at + 16].tobytes().hex(' ')}",
            f"{observed.data[at : at + 16].tobytes().hex(' ')} ({len(wrong)} bytes differ)",
        )


# --- events --------------------------------------------------------------------------------

_NOISE = r"(?:paused running )*"
COMPLETED = re.compile(rf"created running {_NOISE}waiting pending COMPLETED concluded null ")
FAILED = re.compile(rf"created running {_NOISE}(?:ERROR )+aborting COMPLETED! concluded null ")
ABORTED = re.compile(r"created aborting concluded null ")


def check_events(name: str, jobs: Mapping[str, JobEnd], events: Iterable[Event]) -> None:
    """Each job's events follow its automaton to the end, and none is left (semantics 6.4)."""
    words: dict[str, list[str]] = {job: [] for job in jobs}
    for event in events:
        match event.name:
            case "JOB_STATUS_CHANGE":
                job, word = event.data["id"], event.data["status"]
            case "BLOCK_JOB_COMPLETED":
                job, word = (
                    event.data["device"],
                    "COMPLETED!" if "error" in event.data else "COMPLETED",
                )
            case "BLOCK_JOB_ERROR":
                job, word = event.data["device"], "ERROR"
            case _ if event.name.startswith("BLOCK_JOB_"):
                job, word = event.data.get("device", event.data.get("id", "")), event.name
            case _:
                raise EventsFinding(name, event.name, "no such event", repr(event))
        if job not in words:
            raise EventsFinding(
                name, f"{word} of an unknown job", f"jobs {sorted(jobs)}", repr(event)
            )
        words[job].append(word)
        if event.name == "BLOCK_JOB_COMPLETED":
            check_progress(name, jobs[job], event)
    for job, end in jobs.items():
        automaton = ABORTED if end.aborted else FAILED if end.error else COMPLETED
        came = "".join(f"{word} " for word in words[job])
        if not automaton.fullmatch(came):
            shape = re.sub(_NOISE, "", came)
            raise EventsFinding(name, f"sequence {shape}", automaton.pattern, came)


def check_progress(name: str, end: JobEnd, event: Event) -> None:
    """``len`` and ``offset`` where they are determined, and the error's text (6.2, 6.4)."""
    for field, due in (("len", end.length), ("offset", end.offset)):
        if due is not None and event.data.get(field) != due:
            raise JobsFinding(name, field, f"{field} {due}", f"{field} {event.data.get(field)}")
    if event.data.get("type") != "backup":
        raise JobsFinding(name, "type", "backup", repr(event.data.get("type")))
    error = event.data.get("error")
    if end.error is not None and error != "Input/output error":
        raise JobsFinding(name, "error", "Input/output error", repr(error))


# --- state ---------------------------------------------------------------------------------


def check_nodes(name: str, expected: Expectation, observed: Observation) -> None:
    """Every field of every bitmap of every node (design 3, check 3)."""
    bitmaps = observed.bitmaps or {}
    if observed.other_nodes or set(bitmaps) != set(expected.bitmaps):
        raise FieldsFinding(
            name,
            "nodes",
            f"nodes {sorted(expected.bitmaps)}",
            f"nodes {sorted(bitmaps)}, also {sorted(observed.other_nodes)}",
        )
    for node, size in expected.sizes.items():
        came = (observed.sizes or {}).get(node)
        if came != size:
            raise FieldsFinding(name, "size", f"{node}: {size} bytes", f"{node}: {came} bytes")
    if observed.anonymous:
        raise FieldsFinding(name, "anonymous bitmap", "none", repr(observed.anonymous))
    for node, due in expected.bitmaps.items():
        check_bitmaps(name, node, due, bitmaps[node])


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


def check_jobs(name: str, jobs: Iterable[Mapping[str, object]]) -> None:
    """No job is left when every job ran to its end."""
    left = list(jobs)
    if left:
        raise JobsFinding(name, f"left {left[0].get('status')}", "no job", repr(left))
