"""What commits and streams move between the layers of a chain (semantics 9)."""

from collections.abc import Sequence
from dataclasses import replace

from qbprop_model.bitmap import BitmapRules
from qbprop_model.data import all_zero
from qbprop_model.disk import DiskRules
from qbprop_model.disk.geometry import clusters, outward, units
from qbprop_model.image import BLANK, Alloc, Cell, Chain, Image
from qbprop_model.operations import OpenOutcomeError
from qbprop_model.ranges import Ranges, joined, within

Cells = Sequence[tuple[int, int, Cell]]
"""What some bytes are: ``(start, end, cell)``, one after the other."""


def only_zeroes(cells: Cells) -> bool:
    """Whether all of the bytes are zero."""
    return all(all_zero(cell.data, start, end - start) for start, end, cell in cells)


class GraphRules(BitmapRules, DiskRules):
    """How the data of overlays travels. Override one method to state another rule."""

    def owned(self, layers: Chain, size: int) -> Ranges:
        """The bytes up to ``size`` that some of ``layers`` have.

        What is behind the end of a layer, but for the first, counts as its zeroes.
        """
        found: list[tuple[int, int]] = []
        for depth, layer in enumerate(layers):
            found += within(layer.allocated, 0, size)
            if depth and layer.size < size:
                found.append((layer.size, size))
        return joined(sorted(found))

    def commit_cluster(self, base: Image) -> int:
        """Bytes that a commit copies at once: as a bitmap of the base would have them (9)."""
        return self.default_granularity(base.cluster_size if base.format == "qcow2" else None)

    def committed(self, layers: Chain, base: Image) -> Ranges:
        """The ranges of the base that a commit of ``layers`` writes to, dirty afterwards (9)."""
        size = layers[0].size
        return self.in_units(self.owned(layers, size), self.commit_cluster(base), size)

    def committed_below(self, layers: Chain) -> Ranges:
        """The ranges of the base that a commit of ``layers`` below the top writes to."""
        return self.owned(layers, layers[0].size)

    def uncovered(self, size: int, top: Image, base: Chain) -> Ranges:
        """What of a base shows in a disk of ``size`` bytes once a layer is gone that is shorter.

        The layer above has to go on reading zeroes there.
        """
        end = min(size, base[0].size)
        if top.size >= end or only_zeroes(list(self.visible(base, top.size, end))):
            return ()
        return ((top.size, end),)

    def cover(self, base: Chain, ranges: Ranges) -> Image:
        """A base that has zeroes where they are due, as data or not."""
        image = base[0]
        for start, end in ranges:
            zeroes = image.compat != "0.10"
            image = self.carry((image, *base[1:]), [(start, end, BLANK)], zeroes=zeroes)
        return image

    def in_units(self, ranges: Ranges, unit: int, size: int) -> Ranges:
        """Ranges rounded outward to whole units, the last one cut off at the end of the disk."""
        return within(joined(outward(unit, *each) for each in ranges), 0, size)

    def redundant(self, layers: Chain, base: Chain, ranges: Ranges) -> Ranges:
        """The zeroes among ``ranges`` that a base need not get which is nothing but zeroes (9).

        In whole units of the job: a last one that is shorter travels as data, and so do those that
        fill no cluster of the base.

        Raises OpenOutcomeError where QEMU may see that one of the two is zero, or may not.
        """
        size, cluster = base[0].size, self.commit_cluster(base[0])
        if not only_zeroes(list(self.visible(base, 0, size))):
            return ()
        units = [
            (s, s + cluster)
            for start, end in ranges
            for s in range(start, end - cluster + 1, cluster)
        ]
        kinds = {
            unit: [kind for *_, kind in self.status((*layers, *base), *unit)] for unit in units
        }
        zeroes = [unit for unit in units if Alloc.DATA not in kinds[unit]]
        if base[0].unit > cluster:
            if any(e - s >= base[0].unit for s, e in joined(zeroes)):
                raise OpenOutcomeError("whether zeroes travel as a whole cluster of the base")
            return ()
        plain = all(kinds[unit] == [Alloc.ZERO] for unit in zeroes)
        if zeroes and not (
            plain and {kind for *_, kind in self.status(base, 0, size)} <= {Alloc.ZERO}
        ):
            raise OpenOutcomeError("whether a commit sees that zeroes meet zeroes")
        return joined(zeroes)

    def commit(
        self, layers: Chain, base: Chain, ranges: Ranges, *, detects_zeroes: bool = False
    ) -> Image:
        """The base when ``layers`` were committed into it; ``ranges`` as in :meth:`committed`.

        What has no data in a whole unit of the job may travel as zeroes, and so may zeroes
        where the base ``detects`` them.
        """
        image, source, cluster = base[0], (*layers, *base), self.commit_cluster(base[0])
        for s, e in units(cluster, ranges):
            cells = list(self.visible(source, s, e))
            zeroes = Alloc.DATA not in {kind for _, _, kind in self.status(source, s, e)}
            zeroes = zeroes or (detects_zeroes and only_zeroes(cells))
            if zeroes and image.compat == "0.10":
                raise OpenOutcomeError("whether zeroes are written out or dropped")
            image = self.carry((image, *base[1:]), cells, zeroes=zeroes)
        return image

    def stream(self, chain: Chain, depth: int | None = None) -> Image:
        """The top layer when it has all that is below it, cluster by cluster (9).

        Or what ``depth`` layers have, itself among them.
        """
        image, below = chain[0], chain[1:]
        if image.extended_l2:
            raise OpenOutcomeError("whether whole clusters are copied, or subclusters")
        ranges = self.owned(chain[1:depth], min(image.size, below[0].size))
        if depth is not None:
            ranges += self.uncovered(image.size, below[0], chain[depth:])
        for start, end in ranges:
            for s, stop in clusters(image.unit, start, end):
                e = min(stop, image.size)
                if image.alloc.at(s) is not Alloc.NONE:
                    continue
                cells = list(self.backed(below, s, e))
                zeroes = image.compat != "0.10" and only_zeroes(cells)
                image = self.carry((image, *below), cells, zeroes=zeroes)
        return image

    def carry(self, target: Chain, cells: Cells, *, zeroes: bool) -> Image:
        """Write cells one by one; ``zeroes``: as data or as zeroes, which of them is open."""
        before = image = target[0]
        for s, e, cell in cells:
            image = self.write((image, *target[1:]), s, e - s, cell)
        if not zeroes or image.format == "raw":
            return image
        start, end = cells[0][0], cells[-1][1]
        for s, e in clusters(image.unit, start, end):
            whole = start <= s and (e <= end or end == image.size)
            if whole or before.alloc.at(s) is not Alloc.DATA:
                image = replace(image, alloc=image.alloc.assign(s, e, Alloc.DATA_OR_ZERO))
        return image
