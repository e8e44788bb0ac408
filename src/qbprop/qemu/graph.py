"""What lies above a node: the filters that jobs have put there (semantics 10)."""

from qbprop.qemu.monitor import Command, Monitor
from qbprop.qemu.query import NODES_QUERY, accepted

CONFLICT = ("Permission conflict on node", "Conflicts with use by ")
"""How QEMU's refusals begin where a job's filter must be addressed in place of its disk."""

_OLD_FILTER = "backup-top"
"""The driver of the filters that have the disk as their backing node."""


def topmost(monitor: Monitor, node: str) -> str:
    """The name of the filter on top of ``node``, or ``node``. Raises RequestRefused."""
    graph = accepted(monitor.execute(Command("x-debug-query-block-graph")))
    old = {
        e["node-name"] for e in accepted(monitor.execute(NODES_QUERY)) if e["drv"] == _OLD_FILTER
    }
    drivers = {e["id"]: e["name"] for e in graph["nodes"] if e["type"] == "block-driver"}
    above = {
        drivers[edge["child"]]: drivers[edge["parent"]]
        for edge in graph["edges"]
        if edge["parent"] in drivers and (edge["name"] == "file" or drivers[edge["parent"]] in old)
    }
    while node in above:
        node = above[node]
    return node
