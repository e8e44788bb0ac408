"""QEMU's visible state: the queries for it, and what their replies mean (semantics 4)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qbprop.qemu.monitor import Command, Error, Reply
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop_model.expectation import BitmapState
from qbprop_model.operations import FILTERS, NODES

NODES_QUERY = Command("query-named-block-nodes", {"flat": True})
JOBS_QUERY = Command("query-jobs")
EXPORTS_QUERY = Command("query-block-exports")


@dataclass(frozen=True)
class State:
    """The reply to the query, sorted; the fields are those of Observation."""

    bitmaps: Mapping[str, Mapping[str, BitmapState]]
    anonymous: tuple[tuple[str, Mapping[str, Any]], ...]
    sizes: Mapping[str, int]
    other_nodes: tuple[str, ...]


def digest_query(node: str, name: str) -> Command:
    """The query for a bitmap's SHA-256 (semantics 2.1)."""
    return Command("x-debug-block-dirty-bitmap-sha256", {"node": node, "name": name})


def state_of(nodes: Reply) -> State:
    """The state that the reply to NODES_QUERY shows.

    Nodes that QEMU named itself ("#block123") are not reported, but for nameless bitmaps.
    """
    bitmaps: dict[str, dict[str, BitmapState]] = {}
    anonymous: list[tuple[str, Mapping[str, Any]]] = []
    sizes: dict[str, int] = {}
    others: list[str] = []
    for node in accepted(nodes):
        name, entries = node["node-name"], node.get("dirty-bitmaps", ())
        anonymous += [(name, entry) for entry in entries if "name" not in entry]
        if name in NODES or name in FILTERS:
            sizes[name] = node["image"]["virtual-size"]
            bitmaps[name] = {e["name"]: _bitmap(e) for e in entries if "name" in e}
        elif not name.startswith("#block"):
            others.append(name)
    return State(bitmaps, tuple(anonymous), sizes, tuple(sorted(others)))


def has_copied(job: str, jobs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a job shows progress in the reply to JOBS_QUERY."""
    return any(each["id"] == job and each["current-progress"] > 0 for each in jobs)


def in_hand(jobs: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that jobs are about to copy: neither copied nor in their copy bitmaps any more.

    A copy bitmap has no name and does not record; it belongs to the disk, or to the filter,
    behind the two that a filter keeps for itself.
    """
    left = sum(
        job["total-progress"] - job["current-progress"]
        for job in jobs
        if job["status"] not in ("concluded", "aborting")
    )
    waiting = 0
    for node in nodes:
        entries = node.get("dirty-bitmaps", ())
        idle = [e["count"] for e in entries if "name" not in e and not e["recording"]]
        waiting += sum(idle if node["node-name"] in NODES else idle[2:])
    return int(left) - waiting


def digests_of(
    asked: Collection[tuple[str, str]], replies: Sequence[Reply]
) -> dict[tuple[str, str], str | Refused]:
    """The answers to `digest_query` for each bitmap in ``asked``."""
    return {
        key: refusal(reply) if isinstance(reply, Error) else reply["sha256"]
        for key, reply in zip(asked, replies, strict=True)
    }


def refusal(error: Error) -> Refused:
    """A QMP error as the operation's reply."""
    return Refused("qmp", error.error_class, error.text)


def accepted(reply: Reply) -> Any:
    """The value that a command returned. Raises RequestRefused for an error."""
    if isinstance(reply, Error):
        raise RequestRefused(refusal(reply))
    return reply


def _bitmap(entry: Mapping[str, Any]) -> BitmapState:
    return BitmapState(
        granularity=entry["granularity"],
        count=entry["count"],
        recording=entry["recording"],
        busy=entry["busy"],
        persistent=entry["persistent"],
        inconsistent=entry.get("inconsistent", False),
    )
