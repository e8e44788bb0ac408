"""The state of the World: engines, image files, open nodes, jobs, and how to look things up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from qbprop_model.bitmap import Bitmap, Use
from qbprop_model.data import Bytes
from qbprop_model.expectation import Contents, JobEnd, Reason, Refusal, Torn
from qbprop_model.exports import Export
from qbprop_model.faults import REASONS
from qbprop_model.image import Chain, Image, Refused, refuse
from qbprop_model.jobs import Job
from qbprop_model.mirrors import Mirror
from qbprop_model.operations import (
    DRIVES,
    NODES,
    Fault,
    HoldWrite,
    InvalidOperationError,
    Write,
)
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules
from qbprop_model.traits import Traits


@dataclass(frozen=True, eq=False)
class Node:
    """An open node. ``image`` names the top layer; ``filters`` the node it filters, if any.

    ``unflushed``: written to since its last flush. ``read_only``: guests cannot write.
    """

    image: str
    drive: str | None = None
    discard: bool = False
    detect_zeroes: str = "off"
    bitmaps: Mapping[str, Bitmap] = field(default_factory=dict)
    filters: str | None = None
    unflushed: bool = False
    read_only: bool = False

    def with_bitmap(self, name: str, bitmap: Bitmap) -> "Node":
        """The node with one bitmap added or replaced."""
        return replace(self, bitmaps={**self.bitmaps, name: bitmap})


@dataclass(frozen=True)
class Engine:
    """A QEMU process: the number of its QEMU, and what that is like.

    ``before``: the number of the QEMU that it came after. ``mapped``: it was told what bitmaps
    are called behind a migration, which cannot be taken back.
    """

    traits: Traits = field(default_factory=Traits)
    qemu: int = 0
    before: int = 0
    mapped: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the effect of an operation adds to the state that it leaves behind.

    ``refusal`` is set where QEMU refuses and yet something changed (a failed guest request).
    """

    refusal: Refusal | None = None
    data: Bytes | None = None
    torn: Torn | None = None
    extents: Ranges | None = None
    contents: tuple[str, ...] = ()


class State:
    """Engines, image files, nodes, jobs and exports.

    ``jobs`` are the backups, ``mirrors`` the mirrors and the commits that are ready, by job id.
    ``nodes`` are keyed by node name; ``roots`` tells the node that a drive name means now;
    ``images`` are keyed by image name (``target0``, ``drive0.1``: second layer of drive0);
    ``mounted`` tells the image below another that a snapshot has put there, whatever its file says;
    ``vague`` names the images whose bytes are open, ``leaky`` those that QEMU had open when it
    was killed, ``opened`` the targets that are open as nodes. ``faults`` has those that are left
    of each node at which requests may fail, and of each image whose file may; ``held`` the
    guest's write that is held at a disk, ``torn`` the one that failed there, done in part or not
    at all.
    ``step`` counts the operations. Of one step alone: the bitmaps it is ``removing``, the disks it
    is ``covering`` by others, the ``words`` and ``ends`` of its jobs, the targets of those that
    have ``concluded``, and the ``complaints`` that QEMU may make of what failed while it closed
    nodes, and the bitmaps that ``passed`` through the end, or another beginning, of their node.
    ``qemus`` are what those are like that may be launched.
    """

    def __init__(
        self, rules: Rules | None = None, traits: Traits | None = None, *others: Traits
    ) -> None:
        self.rules = rules or Rules()
        self.step = 0
        self.qemus = (traits or Traits(), *others)
        self.engines: dict[int, Engine] = {0: Engine(self.qemus[0])}
        self.images: dict[str, Image] = {}
        self.nodes: dict[str, Node] = {}
        self.roots: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.mirrors: dict[str, Mirror] = {}
        self.exports: dict[str, Export] = {}
        self.faults: dict[str, tuple[Fault, ...]] = {}
        self.held: dict[str, HoldWrite] = {}
        self.torn: dict[str, Write] = {}
        self.mounted: dict[str, str] = {}
        self.vague: frozenset[str] = frozenset()
        self.leaky: frozenset[str] = frozenset()
        self.opened: frozenset[str] = frozenset()
        self.removing: tuple[tuple[str, str], ...] = ()
        self.covering: tuple[str, ...] = ()
        self.words: dict[str, tuple[str, ...]] = {}
        self.ends: dict[str, JobEnd] = {}
        self.concluded: tuple[str, ...] = ()
        self.complaints: tuple[Reason, ...] = ()
        self.passed: tuple[Bitmap, ...] = ()

    def copy(self) -> Self:
        """A state that can be changed without changing this one."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        for name, value in self.__dict__.items():
            if isinstance(value, dict):
                new.__dict__[name] = value.copy()
        return new

    def contents(self, name: str) -> Contents | None:
        """The bytes of a node or image through its chain; None where they are open."""
        image = self.nodes[name].image if name in self.nodes else name
        chain = self.chain_names(image)
        if self.vague.intersection(chain):
            return None
        return self.rules.view(self.chain(image))

    def check_seen(self) -> None:
        """Raises InvalidOperationError for what QEMU has named itself and stays."""
        if any(name.startswith("#") and node.bitmaps for name, node in self.nodes.items()):
            raise InvalidOperationError("bitmaps of a node without a name of ours cannot be seen")
        if any(job.active and job_id in DRIVES for job_id, job in self.jobs.items()):
            raise InvalidOperationError("a job that QEMU has named itself would outlive its step")

    def named_bitmaps(self) -> dict[tuple[str, str], Bitmap]:
        """All bitmaps by (node, name)."""
        return {
            (name, key): bitmap
            for name, node in self.nodes.items()
            for key, bitmap in node.bitmaps.items()
        }

    # --- look-ups -------------------------------------------------------------------------

    def find(self, reference: str) -> Node | None:
        """The node that a node name or drive name means, if any."""
        return self.nodes.get(self.roots.get(reference, reference))

    @property
    def traits(self) -> Traits:
        """What the first engine is like."""
        return self.engines[0].traits

    @property
    def closed(self) -> list[str]:
        """The disks whose images exist and are not open."""
        return [n for n in NODES if n not in self.nodes and f"{n}.0" in self.images]

    @property
    def backed_up(self) -> frozenset[str]:
        """The disks that a job reads, by node name."""
        return frozenset(job.node for job in self.jobs.values() if job.active)

    @property
    def job_ids(self) -> frozenset[str]:
        """The ids that are taken."""
        return frozenset((*self.jobs, *self.mirrors))

    @property
    def mirrored(self) -> frozenset[str]:
        """The disks that mirrors read or write, by node name."""
        return frozenset(name for each in self.mirrors.values() for name in each.disks)

    @property
    def exported(self) -> frozenset[str]:
        """The disks that operations have exported, by node name."""
        return frozenset(export.node for export in self.exports.values())

    def resolve(self, reference: str, reason: Reason) -> tuple[str, Node]:
        """The node that a node name or drive name means; refused with ``reason`` if none."""
        name = self.roots.get(reference, reference)
        if name not in self.nodes:
            raise Refused(reason, reference)
        return name, self.nodes[name]

    def bitmap(self, reference: str, name: str) -> tuple[str, Bitmap]:
        """The node's name and a bitmap of it; refused if either is unknown (semantics 3)."""
        node_name, node = self.resolve(reference, Reason.NODE_NOT_FOUND)
        if name not in node.bitmaps:
            raise Refused(Reason.BITMAP_NOT_FOUND, name)
        return node_name, node.bitmaps[name]

    def unloaded(self, node: Node) -> set[str]:
        """The bitmaps that a node's file has and the node has not (8.10)."""
        return self.images[node.image].stored.keys() - node.bitmaps.keys()

    def shown_name(self, name: str) -> str:
        """What QEMU calls a node in errors: its drive, where it is the root of one."""
        drive = self.nodes[name].drive
        return drive if drive is not None and self.roots[drive] == name else name

    def usable(self, reference: str, name: str, use: Use) -> tuple[str, Bitmap]:
        """As :meth:`bitmap`, and refused where its state does not allow for the use (3)."""
        node_name, bitmap = self.bitmap(reference, name)
        self.check_use(name, bitmap, use)
        return node_name, bitmap

    def check_use(self, name: str, bitmap: Bitmap, use: Use) -> None:
        """Refuse what the state of bitmap ``name`` does not allow for (semantics 3)."""
        refuse(self.rules.obstacle(bitmap, use), name)

    def downward(self, name: str) -> list[str]:
        """A node, what it filters, and the disks below that, from the top down."""
        disk = self.nodes[name].filters
        above, disk = ([], name) if disk is None else (self.filters(disk), disk)
        disks = {node.image: key for key, node in self.nodes.items() if node.filters is None}
        chain = self.chain_names(self.nodes[disk].image)
        found = [*above, *(disks[image] for image in chain if image in disks)]
        return found[found.index(name) :]

    def chain_names(self, image: str) -> tuple[str, ...]:
        """The image and its backing files, top first."""
        names = [image]
        while (below := self.below(names[-1])) is not None:
            names.append(below)
        return tuple(names)

    def below(self, image: str) -> str | None:
        """The image right below another one: put there by a snapshot, or its backing file."""
        return self.mounted.get(image, self.images[image].backing)

    def overlays(self, node: str) -> list[str]:
        """The disks that snapshots have put right above a disk."""
        below = self.nodes[node].image
        return [
            name
            for name, each in self.nodes.items()
            if each.filters is None and self.mounted.get(each.image) == below
        ]

    def above(self, node: str) -> list[str]:
        """The disks that snapshots have put above a disk, at any height."""
        found = self.overlays(node)
        return [*found, *(each for name in found for each in self.above(name))]

    def settled_below(self, node: str) -> bool:
        """Whether nobody writes to what is below a disk, from the commit of this step on."""
        below = self.chain_names(self.nodes[node].image)[1:]
        return all(
            each.read_only or name in self.covering
            for name, each in self.nodes.items()
            if each.image in below
        )

    def chain(self, image: str) -> Chain:
        """The layers of an image, top first."""
        return tuple(self.images[name] for name in self.chain_names(image))

    def unreadable(self, node: str) -> bool:
        """Whether some read of a node still fails, or finding out what there is to be read."""
        reads = any(fault.request == "read" for fault in self.faults.get(node, ()))
        return reads or self.blind(node) is not None

    def blind(self, node: str) -> Reason | None:
        """What asking a node for the block status fails with, if it does."""
        faults = (each for each in self.faults.get(node, ()) if each.request == "block_status")
        return next((REASONS[fault.errno] for fault in faults), None)

    def size(self, node: Node) -> int:
        """Length of a node in bytes."""
        return self.images[node.image].size

    # --- changes --------------------------------------------------------------------------

    def put_bitmap(self, node: str, name: str, bitmap: Bitmap) -> None:
        """Add or replace a bitmap of a node."""
        self.nodes[node] = self.nodes[node].with_bitmap(name, bitmap)

    def tell(self, job: str, *words: str) -> None:
        """Add to what the events of a job tell in this step."""
        self.words[job] = (*self.words.get(job, ()), *words)

    def filters(self, node: str) -> list[str]:
        """The filters that jobs have put above a node, from the top down."""
        return [name for name, each in self.nodes.items() if each.filters == node]

    def put_filter(self, name: str, node: str) -> None:
        """Put a job's filter right above its disk, below those that are there already."""
        below = self.nodes[node]
        self.nodes[name] = Node(
            below.image, below.drive, below.discard, filters=node, read_only=below.read_only
        )
        if below.drive is not None:
            self.roots[below.drive] = self.filters(node)[0]

    def remove_filter(self, name: str) -> None:
        """Take a job's filter away, with its bitmaps."""
        node = self.drop_node(name).filters
        assert node is not None
        drive = self.nodes[node].drive
        if drive is not None:
            self.roots[drive] = (*self.filters(node), node)[0]

    def drop_node(self, name: str) -> Node:
        """A node goes, with its bitmaps; exports lose those of them that they have."""
        self.exports = {key: each.without(name) for key, each in self.exports.items()}
        return self.nodes.pop(name)

    def drop_bitmap(self, node: str, name: str) -> None:
        """Remove a bitmap of a node."""
        kept = {key: value for key, value in self.nodes[node].bitmaps.items() if key != name}
        self.nodes[node] = replace(self.nodes[node], bitmaps=kept)

    def put_image(self, name: str, image: Image) -> None:
        """Create or replace an image file; its bytes are exact again."""
        if name in self.images and self.images[name].format != image.format:
            self.check_unused(name)
        self.images[name] = image
        self.vague -= {name}
        self.leaky -= {name}

    def in_use(self, image: str) -> bool:
        """Whether a job has an image open, as its target or below it."""
        targets = [job.target for job in self.jobs.values() if job.active]
        return any(image in self.chain_names(target) for target in targets)

    def openable(self, image: str) -> bool:
        """Whether nobody has locked an image, or one below it, by writing to it (11)."""
        writable = {job.target for job in self.jobs.values() if job.active}
        writable |= {node.image for node in self.nodes.values() if not node.read_only}
        return writable.isdisjoint(self.chain_names(image))

    def check_unused(self, name: str) -> None:
        """No other image may be backed by ``name``."""
        for other, image in self.images.items():
            if image.backing == name:
                raise InvalidOperationError(f"{name} is the backing file of {other}")

    def check_monitor(self) -> None:
        """What only the human monitor can do needs one."""
        if not self.traits.human_monitor_command:
            raise InvalidOperationError("there is no human monitor")

    def check_slot(self, node: str, drive: str | None) -> None:
        """A disk slot must be known, and its drive name be its own."""
        if node not in NODES:
            raise InvalidOperationError(f"there is no disk {node}")
        if drive is not None:
            self.check_monitor()
        if drive is not None and drive != DRIVES[NODES.index(node)]:
            raise InvalidOperationError(f"drive {drive} does not belong to slot {node}")
