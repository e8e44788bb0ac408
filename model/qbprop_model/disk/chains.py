"""What the layers of a chain show together."""

from collections.abc import Iterator

from qbprop_model.data import Bytes
from qbprop_model.image import BLANK, Alloc, Cell, Chain, View
from qbprop_model.rangemap import RangeMap


class ChainRules:
    """Reading through a chain. Override one method to state another rule."""

    def visible(self, chain: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        """What a read of ``[start, end)`` gives; past the end of a layer it has nothing."""
        if not chain:
            yield start, end, BLANK
            return
        top, below = chain[0], chain[1:]
        for s, e, cell in top.cells.runs(start, end):
            if cell is None:
                yield from self.backed(below, s, e)
            else:
                yield s, e, cell

    def backed(self, below: Chain, start: int, end: int) -> Iterator[tuple[int, int, Cell]]:
        """What the backing chain gives: zero past its end (semantics 5.3)."""
        edge = max(start, min(end, below[0].size)) if below else start
        if start < edge:
            yield from self.visible(below, start, edge)
        if edge < end:
            yield edge, end, BLANK

    def view(self, chain: Chain) -> View:
        """The guest-visible bytes of a chain."""
        size = chain[0].size
        return View(RangeMap(size, BLANK).paste(self.visible(chain, 0, size)))

    def view_range(self, chain: Chain, start: int, length: int) -> Bytes:
        """The bytes of ``[start, start + length)`` of a chain."""
        cells = RangeMap(chain[0].size, BLANK).paste(self.visible(chain, start, start + length))
        return View(cells).render(start, length)

    def status(self, chain: Chain, start: int, end: int) -> Iterator[tuple[int, int, Alloc]]:
        """The block status through the chain: DATA, ZERO, or DATA_OR_ZERO under raw files."""
        if not chain:
            yield start, end, Alloc.ZERO
            return
        top, below = chain[0], chain[1:]
        for s, e, alloc in top.alloc.runs(start, end):
            if alloc is Alloc.NONE:
                edge = max(s, min(e, below[0].size)) if below else s
                yield from self.status(below, s, edge) if s < edge else ()
                if edge < e:
                    yield edge, e, Alloc.ZERO
            elif top.format == "raw":
                yield s, e, Alloc.DATA_OR_ZERO
            else:
                yield s, e, Alloc.DATA if alloc is Alloc.COMPRESSED else alloc
