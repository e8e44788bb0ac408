"""A bash script under construction, and how commands read in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote
from textwrap import wrap
from typing import Literal

from qbprop.qemu.monitor import Command
from qbprop.qemu.nbd_server import START
from qbprop.qemu.primitives import Program, UntilConcluded
from qbprop_model.data import Data, Fill, Stamp

Transport = Literal["nbd", "hmp"]

DATA = "data.bin"
"""The file that holds stamped data for one write."""

WIDTH = 98
"""Longest line of a comment."""


@dataclass
class Script:
    """Lines under construction, and what is open at this point of the story.

    ``disks`` maps each name of a disk to its node; ``exported`` are the nodes with an NBD export,
    ``read_only`` those that guests may read alone. ``rests`` are those of the scene,
    ``alive`` and ``exports`` the jobs and exports that operations have left; ``postponed`` waits
    for the end of jobs.
    """

    transport: Transport
    lines: list[str] = field(default_factory=list)
    disks: dict[str, str] = field(default_factory=dict)
    drives: dict[str, str] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    serving: bool = False
    read_only: set[str] = field(default_factory=set)
    rests: Mapping[str, str] = field(default_factory=dict)
    alive: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    postponed: list[UntilConcluded] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Append a line."""
        self.lines.append(line)

    def ok(self, *calls: str) -> None:
        """Append calls that must succeed."""
        self.lines += [f"ok {call}" for call in calls]

    def relaunched(self) -> None:
        """Another QEMU is there, in which nothing is open."""
        self.disks.clear()
        self.drives.clear()
        self.exported.clear()
        self.read_only.clear()
        self.postponed.clear()
        self.alive = self.exports = ()
        self.serving = False

    def serve(self) -> None:
        """Start QEMU's NBD server, unless it runs already."""
        if not self.serving:
            self.ok(qmp(START))
            self.serving = True

    def export(self, name: str) -> str:
        """Give the disk called ``name`` an NBD export if it has none; the export's name."""
        node = self.disks[name]
        self.serve()
        if node not in self.exported:
            self.ok(f"export_disk {node} {json.dumps(node not in self.read_only)}")
            self.exported.add(node)
        return node

    def unexport(self, name: str) -> None:
        """Take the NBD export of the disk called ``name`` away, if there is one."""
        node = self.disks.get(name)
        if node in self.exported:
            self.delete_export(node)
            self.exported.discard(node)

    def delete_export(self, identifier: str) -> None:
        """Delete an export, and wait until it is gone."""
        deletion = Command("block-export-del", {"id": identifier, "mode": "hard"})
        self.ok(f"unexport {quote(request(deletion))}")

    def data(self, data: Data, offset: int, length: int) -> str:
        """The option of qemu-io that names the data of a write."""
        match data:
            case Fill(byte):
                return f" -P {byte}"
            case Stamp(number) if length:
                self.add(f"stamp {number} {offset} {length} {DATA}")
                return f" -s {DATA}"
        return ""


def qmp(command: Command) -> str:
    """The call that sends a QMP command."""
    return f"qmp {quote(request(command))}"


def request(command: Command) -> str:
    """A QMP command as it is sent."""
    arguments = {"arguments": command.arguments} if command.arguments else {}
    return json.dumps({"execute": command.name, **arguments})


def program(step: Program) -> str:
    """The call that runs a program."""
    return " ".join([step.tool.removeprefix("qemu-"), *(quote(str(a)) for a in step.arguments)])


def comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment."""
    return [
        line
        for part in text.splitlines()
        for line in wrap(
            part,
            WIDTH,
            initial_indent=f"# {indent}",
            subsequent_indent=f"#   {indent}",
            break_on_hyphens=False,
        )
        or ["#"]
    ]
