"""What was seen of QEMU when an operation was performed: plain data for the check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qbprop.qemu.monitor import Command, Error, Event
from qbprop.qemu.primitives import HumanCommand, Primitive
from qbprop_model.data import Bytes
from qbprop_model.expectation import BitmapState
from qbprop_model.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Refused:
    """An error reply, and who gave it.

    ``error_class``: on channel "qmp" the class QEMU names, or "HMP" for the human monitor; on
    "guest" the symbol of the error number ("EINVAL"), or "qemu-io" for what that command
    itself refused; on "program" the program's exit status.
    """

    channel: Literal["qmp", "guest", "program"]
    error_class: str
    text: str


class RequestRefused(Exception):  # noqa: N818 (a refusal is an outcome, not an error of ours)
    """A step was refused; only inside the driver, which turns it into an observation."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Exchange:
    """One primitive step, as sent, and its answer; turned into text only when asked for."""

    step: Primitive
    answer: object

    @property
    def request(self) -> str:
        """What was sent, on one line."""
        match self.step:
            case Command(name, arguments):
                return f"{name} {dict(arguments)!r}" if arguments else name
            case HumanCommand(line):
                return line
            case step:
                return repr(step)

    @property
    def reply(self) -> str:
        """What came back, on one line."""
        match self.answer:
            case Error(error_class, text):
                return f"{error_class}: {text}"
            case Refused(_, error_class, text):
                return f"{error_class}: {text}"
            case None:
                return "done"
            case answer:
                return repr(answer)


@dataclass(frozen=True)
class Observation:
    """The outcome of one operation, and QEMU's state behind it.

    ``refused``: the operation's own error. ``data``: what a read returned. ``extents``:
    the dirty byte ranges that a client was told. ``events``: all events but those of the
    transport, in order. ``bitmaps``: the named bitmaps of every disk
    by node name, None when not queried. ``anonymous``: (node, entry) of each bitmap without a
    name. ``sizes``: bytes of every disk. ``other_nodes``: nodes named by us that are no disk.
    ``digests``: what was asked for. ``jobs``: what ``query-jobs`` lists, None when not asked.
    ``stderr``: what QEMU wrote to standard error. ``aftermath``: refusals of steps after the
    operation itself, where none is legitimate. ``exchange``: what was sent, with its answers.
    """

    refused: Refused | None = None
    data: Bytes | None = None
    extents: Ranges | None = None
    events: tuple[Event, ...] = ()
    bitmaps: Mapping[str, Mapping[str, BitmapState]] | None = None
    anonymous: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    other_nodes: tuple[str, ...] = ()
    digests: Mapping[tuple[str, str], str | Refused] = field(default_factory=dict)
    jobs: tuple[Mapping[str, Any], ...] | None = None
    stderr: str = ""
    aftermath: tuple[Refused, ...] = ()
    exchange: tuple[Exchange, ...] = ()
