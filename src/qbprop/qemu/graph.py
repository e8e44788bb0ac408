"""What lies above a node: the filters that jobs have put there (semantics 10)."""

from qbprop.qemu.monitor import Command, Monitor
from qbprop.qemu.query import accepted

CONFLICT = "Permission conflict on node"
"""How QEMU's refusal begins where a job's filter must be addressed in place of its disk."""


def topmost(monitor: Monitor, node: str) -> str:
    """The name of the filter on top of ``node``, or ``node``. Raises RequestRefused."""
    graph = accepted(monitor.execute(Command("x-debug-query-block-graph")))
    drivers = {e["id"]: e["name"] for e in graph["nodes"] if e["type"] == "block-driver"}
    above = {
        drivers[edge["child"]]: drivers[edge["parent"]]
        for edge in graph["edges"]
        if edge["name"] == "file" and edge["parent"] in drivers
    }
    while node in above:
        node = above[node]
    return node
