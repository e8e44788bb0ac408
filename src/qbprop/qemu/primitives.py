"""The primitive steps that plans are made of, all of them data.

What is not in an operation but on disk (the format of a file) stands in a step as
:class:`FormatOf`, and :func:`resolve` fills it in.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from qbprop.qemu.monitor import Command
from qbprop_model.data import Data
from qbprop_model.operations import Layer

GuestKind = Literal["read", "write", "write_compressed", "write_zeroes", "discard", "flush"]


@dataclass(frozen=True, slots=True)
class FormatOf:
    """Stands for the format ("qcow2" or "raw") that file ``file`` has when the step starts."""

    file: str


@dataclass(frozen=True, slots=True)
class HumanCommand:
    """A line for the human monitor. Any answer but ``success`` is an error's text."""

    line: str
    success: str = ""


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """One guest request, by node or drive name. Offset and length in bytes.

    ``data`` belongs to the two kinds of write, ``unmap`` to ``write_zeroes``. A transport may
    cut a long request into pieces, at multiples of at least 32 MiB, where it cannot be sent
    in one: as the pieces go from last to first, a range that passes the disk's end is refused
    before anything was changed.
    """

    node: str
    kind: GuestKind
    offset: int = 0
    length: int = 0
    data: Data | None = None
    unmap: bool = False


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Send a guest's write and wait until the disk's *blkdebug* filter holds it."""

    request: GuestRequest


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Let the write go on that is held at the disk called ``node``, and await its end."""

    node: str


@dataclass(frozen=True, slots=True)
class Program:
    """A call of ``qemu-img`` or ``qemu-io``; refused when its exit status is not 0."""

    tool: Literal["qemu-img", "qemu-io"]
    arguments: tuple[str | FormatOf, ...]


@dataclass(frozen=True, slots=True)
class MakeImage:
    """Remove ``file``, ``qemu-img create`` it, write ``layer.data`` into it with ``qemu-io``.

    When this is refused no file is left. See :mod:`qbprop.qemu.images` for both programs'
    arguments.
    """

    file: str
    layer: Layer
    backing: str | None = None
    backing_format: str | FormatOf | None = None


@dataclass(frozen=True, slots=True)
class AttachGuest:
    """Let the guest reach node ``node``: under that name, and under ``drive`` if it has one.

    This concerns the transport only (NBD: an export; human monitor: nothing).
    """

    node: str
    drive: str | None = None
    writable: bool = True


@dataclass(frozen=True, slots=True)
class DetachGuest:
    """Take away the guest's access to the disk called ``name``, if there is such a disk."""

    name: str


@dataclass(frozen=True, slots=True)
class ReattachGuest:
    """Undo :class:`DetachGuest` of the same ``name``."""

    name: str


@dataclass(frozen=True, slots=True)
class ReleaseGuest:
    """Undo :class:`AttachGuest` of the node that has this ``name``, a drive's perhaps."""

    name: str


@dataclass(frozen=True, slots=True)
class AwaitJobs:
    """Wait until every job that was created by the steps before is gone (status ``null``)."""


@dataclass(frozen=True, slots=True)
class AwaitRest:
    """Wait until every job that the operation moves has come to the status where it rests."""


_SYNCED = "synced "


def synced(length: int) -> str:
    """As a job's rest: a mirror has copied so many bytes."""
    return f"{_SYNCED}{length}"


def synced_length(rest: str) -> int | None:
    """The bytes that a mirror has copied when it comes to this rest; None for another rest."""
    return int(rest.removeprefix(_SYNCED)) if rest.startswith(_SYNCED) else None


@dataclass(frozen=True, slots=True)
class CompleteJob:
    """Wait until ``job`` is ready, and have it come to its end.

    Not where the operation was refused.
    """

    job: str


@dataclass(frozen=True, slots=True)
class AwaitCopy:
    """Wait until ``job`` has copied something and has nothing in hand, or runs no more.

    Not where the operation was refused: a job of that name is then an earlier one. No
    event tells; what a job has in hand is neither in its progress nor in its copy bitmap.
    """

    job: str


@dataclass(frozen=True, slots=True)
class UntilConcluded:
    """As what undoes a step of ``prepare``: to be done when ``job`` has concluded.

    At once if it has, or if the operation was refused; else behind the step in which it does.
    """

    job: str
    undo: "Primitive"


@dataclass(frozen=True, slots=True)
class ServeExports:
    """Start QEMU's NBD server, unless it runs already."""


@dataclass(frozen=True, slots=True)
class DirtyExtents:
    """A client of NBD export ``export`` asks which bytes of a range are dirty in a bitmap.

    It stays connected until the export is gone.
    """

    export: str
    bitmap: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class AwaitExportGone:
    """Wait until the export with this id is deleted."""

    export: str


@dataclass(frozen=True, slots=True)
class EndQemu:
    """End QEMU in some way, and launch another one, by the number of its programs."""

    how: Literal["quit", "terminate", "kill"]
    qemu: int = 0


@dataclass(frozen=True, slots=True)
class MigrateQemu:
    """Launch a QEMU, by the number of its programs, open disks in it, and migrate to it.

    ``disks`` are the plans that open them. ``bitmaps`` go along, those alone that the mappings of
    the two sides name, if they have any.
    """

    disks: tuple["Plan", ...]
    bitmaps: bool
    old_mapping: Sequence[Mapping[str, object]] | None
    new_mapping: Sequence[Mapping[str, object]] | None
    qemu: int = 0


Primitive = (
    Command
    | HumanCommand
    | GuestRequest
    | HoldRequest
    | ReleaseRequest
    | Program
    | MakeImage
    | AttachGuest
    | DetachGuest
    | ReattachGuest
    | ReleaseGuest
    | AwaitJobs
    | AwaitRest
    | AwaitCopy
    | CompleteJob
    | UntilConcluded
    | ServeExports
    | DirtyExtents
    | AwaitExportGone
    | EndQemu
    | MigrateQemu
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for one operation.

    1. ``prepare``: pairs of a step and what undoes it. When one is refused, that is the reply
       to the operation and ``main`` is not sent.
    2. ``main``, whose reply is the operation's reply.
    3. ``settle``, if ``main`` was sent, even if it was refused.
    4. What undoes the performed steps of ``prepare``, last one first.
    5. ``then``, if nothing was refused.
    """

    main: Primitive
    prepare: tuple[tuple[Primitive, Primitive | None], ...] = ()
    settle: tuple[Primitive, ...] = ()
    then: tuple[Primitive, ...] = ()


_T = TypeVar("_T")


def resolve(step: _T, formats: Callable[[str], str]) -> _T:
    """A copy of ``step`` with every :class:`FormatOf` replaced by ``formats(file)``."""
    replaced: Any = step
    match step:
        case FormatOf(file):
            replaced = formats(file)
        case Command(name, arguments):
            replaced = Command(name, resolve(arguments, formats))
        case Program() | MakeImage() | Plan():
            changes = {
                field.name: resolve(getattr(step, field.name), formats)
                for field in dataclasses.fields(step)
            }
            replaced = dataclasses.replace(step, **changes)
        case Mapping():
            replaced = {key: resolve(value, formats) for key, value in step.items()}
        case tuple() | list():
            replaced = type(step)(resolve(item, formats) for item in step)
    return replaced  # type: ignore[no-any-return]
