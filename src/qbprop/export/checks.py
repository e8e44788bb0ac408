"""What a reproducer checks at the point of disagreement, as data: the model's predictions.

The kind of a finding says which of them: a short program that checks what is wrong reads
better than one that checks everything. That QEMU lives and answers is always checked.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qbprop.check import automaton
from qbprop.findings import CrashFinding, HangFinding, ImageCheckFinding
from qbprop.qemu.images import SUFFIX
from qbprop.qemu.plan import disk_file
from qbprop_model.data import Data
from qbprop_model.expectation import BitmapState, Contents, Expectation, JobEnd, JobState
from qbprop_model.image import View
from qbprop_model.operations import Operation, Read, ReadDirtyExtents
from qbprop_model.ranges import Ranges
from qbprop_model.world import World


@dataclass(frozen=True)
class Nodes:
    """The sizes (bytes) of all disks, and every field of every bitmap, by node and name.

    ``anonymous`` counts the bitmaps without a name, by node.
    """

    sizes: dict[str, int]
    bitmaps: dict[str, dict[str, BitmapState]]
    anonymous: dict[str, int]


@dataclass(frozen=True)
class Digest:
    """The SHA-256 of a bitmap (semantics 2.1)."""

    node: str
    bitmap: str
    sha256: str


@dataclass(frozen=True)
class Jobs:
    """How each job ended, and the words that its events tell; no other job had any."""

    ends: dict[str, JobEnd]
    words: dict[str, tuple[str, ...]]

    def pattern(self, job: str) -> str:
        """The regular expression that the words of a job's events match as a whole."""
        return automaton(self.words[job])


@dataclass(frozen=True)
class JobsNow:
    """Which jobs there are, and what a query shows of them."""

    alive: dict[str, JobState]


@dataclass(frozen=True)
class ReadData:
    """The bytes that a range of a disk reads as: ``(start, end, byte)``."""

    node: str
    parts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Bytes:
    """The bytes of an open disk, or of a target's file. What ``parts`` leave out is zero.

    ``format`` is that of the file, of a disk that of its top layer.
    """

    name: str
    is_disk: bool
    format: str
    size: int
    parts: tuple[tuple[int, int, Data], ...]


@dataclass(frozen=True)
class Sound:
    """``qemu-img check`` finds nothing wrong with a qcow2 file that no one has open."""

    file: str


@dataclass(frozen=True)
class Allocated:
    """The byte ranges that a qcow2 file has of its own, and its chain has not."""

    file: str
    ranges: Ranges


@dataclass(frozen=True)
class Silent:
    """QEMU wrote nothing to its standard error."""


@dataclass(frozen=True)
class Alive:
    """QEMU answers when it is asked for its nodes, as it is behind each step."""


@dataclass(frozen=True)
class Extents:
    """The dirty byte ranges of an exported bitmap from ``offset`` on, up to ``end``."""

    export: str
    bitmap: str
    offset: int
    end: int
    ranges: Ranges


Check = (
    Nodes
    | Digest
    | Jobs
    | JobsNow
    | ReadData
    | Bytes
    | Sound
    | Allocated
    | Extents
    | Silent
    | Alive
)

RUNS_LIMIT = 64
"""Most runs of equal bytes that a read is checked by; with more, the whole disk is compared."""


def checks_of(
    kind: str, operation: Operation | None, expected: Expectation, world: World
) -> tuple[Check, ...]:
    """What is checked behind an operation, or behind the last one (None), for this kind."""
    return (*_checks(kind, operation, expected, world), Alive())


def _checks(
    kind: str, operation: Operation | None, expected: Expectation, world: World
) -> Iterator[Check]:
    match kind:
        case "reply":
            yield Silent()
        case "events" | "jobs":
            yield JobsNow(dict(expected.alive))
            if operation is not None:
                yield Jobs(dict(expected.jobs), dict(expected.words))
        case "count" | "fields":
            yield Nodes(
                dict(expected.sizes),
                {node: dict(each) for node, each in expected.bitmaps.items()},
                dict(Counter(each.node for each in expected.anonymous)),
            )
        case "dirty-set":
            if isinstance(operation, ReadDirtyExtents) and expected.extents is not None:
                offset, end = operation.offset, operation.offset + operation.length
                yield Extents(operation.export, operation.bitmap, offset, end, expected.extents)
            for (node, bitmap), sha256 in expected.digests.items():
                yield Digest(node, bitmap, sha256)
        case "contents":
            if isinstance(operation, Read) and expected.data is not None and not expected.torn:
                yield _read(operation, expected, world)
            for name, contents in expected.contents.items():
                yield _bytes(name, contents, world)
        case CrashFinding.kind | HangFinding.kind if operation is None:
            for name, contents in expected.contents.items():
                yield _bytes(name, contents, world)


def closing(kind: str, expected: Expectation, world: World) -> tuple[Check, ...]:
    """What is checked when all disks are closed."""
    if kind != ImageCheckFinding.kind:
        return ()
    files = (name for name, image in world.images.items() if image.format == "qcow2")
    own = (Allocated(disk_file(node), ranges) for node, ranges in expected.allocated.items())
    return (*(Sound(f"{name}{SUFFIX}") for name in files), *own)


def _bytes(name: str, contents: Contents, world: World) -> Bytes:
    assert isinstance(contents, View)
    is_disk = name in world.nodes
    form = world.images[world.nodes[name].image if is_disk else name].format
    return Bytes(name, is_disk, form, contents.size, tuple(contents.parts()))


def _read(operation: Read, expected: Expectation, world: World) -> Check:
    data = expected.data
    assert data is not None
    edges = [0, *(np.flatnonzero(np.diff(data)) + 1).tolist(), len(data)] if len(data) else [0]
    node = world.roots.get(operation.node, operation.node)
    if len(edges) > RUNS_LIMIT:
        contents = world.contents(node)
        assert contents is not None
        return _bytes(node, contents, world)
    at = operation.offset
    runs = ((at + start, at + end, int(data[start])) for start, end in pairwise(edges))
    return ReadData(operation.node, tuple(runs))
