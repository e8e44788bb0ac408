"""Mirrors: what of a disk goes to another one, at once and as guests write (semantics 9).

A commit of the top of a chain is one as well, while it is ready.
"""

from dataclasses import dataclass

from qbprop_model.data import all_zero
from qbprop_model.disk.geometry import units
from qbprop_model.expectation import Kind
from qbprop_model.graphs import GraphRules, only_zeroes
from qbprop_model.image import Alloc, Chain, Image
from qbprop_model.jobs import JobRules
from qbprop_model.ranges import Ranges, minus


@dataclass(frozen=True)
class Mirror:
    """A job that has made disk ``target`` like disk ``node``, and keeps it so.

    It copies ``chunk`` bytes at once, ``length`` so far. ``blocking``: guests' writes go to both
    disks (``write-blocking``), and are not copied in chunks. ``left``: the chunks that it has to
    copy when it goes on. ``zeroes``: the chunks of the target that it knows to be zero, None if it
    does not care; ``unsure``: those that it may know to be.

    ``kind`` is as ``query-jobs`` shows it: a commit's target is below its disk, and what is
    ``between`` the two nobody else may read.
    """

    node: str
    target: str
    filter: str
    chunk: int
    blocking: bool = False
    status: str = "ready"
    length: int = 0
    left: Ranges = ()
    zeroes: Ranges | None = None
    unsure: Ranges = ()
    kind: Kind = "mirror"
    between: tuple[str, ...] = ()

    @property
    def unread(self) -> tuple[str, ...]:
        """The disks that nobody else may read."""
        return (self.target, *self.between)

    @property
    def disks(self) -> tuple[str, ...]:
        """The disks that nobody else may use."""
        return (self.node, *self.unread)


class MirrorRules(JobRules, GraphRules):
    """How mirrors behave. Override one method to state another rule."""

    def mirror_chunk(self, target: Image) -> int:
        """Bytes that a mirror copies at once: as a bitmap of its target would have them."""
        return self.commit_cluster(target)

    def zeroes_target(self, target: Image, *, discard: bool) -> bool:
        """Whether sync full zeroes the whole target first: where that can free its clusters."""
        return discard and (target.format == "raw" or target.compat != "0.10")

    def mirrored(self, sync: str, source: Chain, chunk: int) -> Ranges:
        """What is copied of a disk before its mirror is ready, unless all of it is.

        In whole chunks: what its layers have, for sync top its own layer, for none nothing.
        """
        if sync == "none":
            return ()
        layers = source[:1] if sync == "top" else source
        return self.in_units(self.owned(layers, source[0].size), chunk, source[0].size)

    def followed(self, offset: int, length: int, chunk: int, size: int) -> Ranges:
        """What a mirror copies behind a guest's write."""
        return self.in_units(((offset, offset + length),), chunk, size)

    def written_through(self, offset: int, length: int) -> Ranges:
        """What of a guest's write goes to the target at once, with ``write-blocking``."""
        return ((offset, offset + length),)

    def perhaps_zeroed(self, layers: Chain, base: Chain, ranges: Ranges) -> Ranges:
        """The chunks of a base that a commit of ``ranges`` may know to be zero."""
        size, chunk = layers[0].size, self.commit_cluster(base[0])
        found = ((0, size),) if only_zeroes(list(self.visible(base, 0, size))) else ranges
        for s, e in units(chunk, ranges):
            if self.chunk_kind((*layers, *base), s, e, chunk) is Alloc.DATA:
                found = minus(found, s, e)
        return found

    def chunk_kind(self, source: Chain, start: int, end: int, chunk: int) -> Alloc:
        """How a chunk travels: as zeroes if it is whole, and no more than one extent of zeroes."""
        kinds = [kind for *_, kind in self.status(source, start, end)]
        cells = self.visible(source, start, end)
        if Alloc.DATA in kinds:
            larger = any(image.cluster_size > chunk for image in source)
            holes = larger and all(all_zero(cell.data, s, e - s) for s, e, cell in cells)
            return Alloc.DATA_OR_ZERO if holes else Alloc.DATA
        if end - start < chunk:
            return Alloc.DATA
        plain = kinds == [Alloc.ZERO] and self.plain(source, start, end)
        return Alloc.ZERO if plain else Alloc.DATA_OR_ZERO
