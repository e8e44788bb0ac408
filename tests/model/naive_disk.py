"""Image files without cleverness: every byte stands in a bytearray, every unit has a word.

Written from sections 1.2, 5 and 6.2 of the semantics. It shares no code with the model but the
vocabulary, so that a rule which one of the two misread shows as a difference.
"""

import zlib
from dataclasses import dataclass, field
from typing import Literal

from qbprop_model.expectation import Reason
from qbprop_model.operations import Layer, OpenOutcomeError

Kind = Literal["none", "data", "zero", "compressed", "maybe"]
"""What a unit of a layer is. "maybe": data or zero, which hangs on holes of a raw file."""


class RefusedNaively(Exception):  # noqa: N818 - a refusal is an outcome, not an error
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit


def compresses(data: bytes, cluster: int) -> bool:
    packer = zlib.compressobj(-1, zlib.DEFLATED, -12, 9)
    packed = packer.compress(data + bytes(cluster - len(data))) + packer.flush()
    return len(packed) < cluster - 1


@dataclass
class Image:
    """A file. ``own`` and ``kinds`` reach to the end of the last cluster (the ghosts).

    ``hosted`` are the clusters that own space in the file, ``doubtful`` those that perhaps do.
    """

    raw: bool
    size: int
    cluster: int
    unit: int
    v2: bool
    backing: str | None
    own: bytearray = field(default_factory=bytearray)
    kinds: list[Kind] = field(default_factory=list)
    hosted: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    vague: bool = False

    def set_kinds(self, start: int, end: int, kind: Kind) -> None:
        """Every unit that begins in ``[start, end)``."""
        for number in range(start // self.unit, (end + self.unit - 1) // self.unit):
            self.kinds[number] = kind

    def doubt(self, start: int, end: int) -> None:
        """What was written as data may have been written as zeroes."""
        self.set_kinds(start, end, "maybe")
        clusters = range(start // self.cluster, (end + self.cluster - 1) // self.cluster)
        self.doubtful |= self.hosted & set(clusters)

    def kind_at(self, offset: int) -> Kind:
        return "data" if self.raw else self.kinds[offset // self.unit]

    def set_length(self, size: int) -> None:
        """Cut off, or go on with nothing; qcow2 cuts at cluster ends only."""
        self.size = size
        capacity = size if self.raw else up(size, self.cluster)
        del self.own[capacity:]
        self.own.extend(bytes(capacity - len(self.own)))
        if not self.raw:
            del self.kinds[capacity // self.unit :]
            self.kinds.extend(["none"] * (capacity // self.unit - len(self.kinds)))
            self.hosted = {c for c in self.hosted if c < capacity // self.cluster}


class Files:
    """All image files, by name."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}

    def create(self, name: str, layer: Layer, backing: str | None) -> None:
        if layer.format == "raw":
            if backing is not None:
                raise RefusedNaively(Reason.BACKING_UNSUPPORTED)
            self.images[name] = Image(
                raw=True,
                size=layer.size,
                cluster=1,
                unit=1,
                v2=False,
                backing=None,
                own=bytearray(layer.size),
            )
            return
        v2 = layer.compat == "0.10"
        entry = 16 if layer.extended_l2 else 8
        if layer.extended_l2 and (v2 or layer.cluster_size < 16384):
            raise RefusedNaively(Reason.IMAGE_REFUSED)
        if layer.size > 2**22 * (layer.cluster_size // entry) * layer.cluster_size:
            raise RefusedNaively(Reason.IMAGE_REFUSED)
        unit = layer.cluster_size // (32 if layer.extended_l2 else 1)
        image = Image(
            raw=False, size=0, cluster=layer.cluster_size, unit=unit, v2=v2, backing=backing
        )
        image.set_length(layer.size)
        self.images[name] = image

    def chain(self, name: str) -> list[str]:
        names = [name]
        while (backing := self.images[names[-1]].backing) is not None:
            names.append(backing)
        return names

    # --- reading ------------------------------------------------------------------------------

    def everything(self, name: str) -> bytearray:
        """What reads would give up to the end of the last cluster."""
        image = self.images[name]
        whole = bytearray(image.own)
        if image.raw or "none" not in image.kinds:
            return whole
        below = b"" if image.backing is None else self.read(image.backing)
        below = below[: len(whole)].ljust(len(whole), b"\0")
        for number, kind in enumerate(image.kinds):
            if kind == "none":
                where = slice(number * image.unit, (number + 1) * image.unit)
                whole[where] = below[where]
        return whole

    def read(self, name: str) -> bytes:
        return bytes(self.everything(name)[: self.images[name].size])

    def status(self, name: str, start: int, end: int) -> set[str]:
        """Which of "data", "zero" and "maybe" a query of block status finds in a range."""
        if start >= end:
            return set()
        image = self.images[name]
        if image.raw:
            return {"maybe"}
        found: set[str] = set()
        for number in range(start // image.unit, (end - 1) // image.unit + 1):
            kind = image.kinds[number]
            s, e = max(start, number * image.unit), min(end, (number + 1) * image.unit)
            if kind != "none":
                found.add("data" if kind == "compressed" else kind)
            elif image.backing is None or self.images[image.backing].size < e:
                found.add("zero")
            if kind == "none" and image.backing is not None:
                found |= self.status(image.backing, s, min(e, self.images[image.backing].size))
        return found

    def travels_as(self, name: str, start: int, end: int, whole: int) -> Kind:
        """How a backup copies one job cluster: as zeroes if one extent of zeroes covers it.

        QEMU sees an extent end where the type of unit changes, where the metadata of a small
        cluster does (a slice of at most 4 KiB of table), and where the disk ends.
        """
        found = self.status(name, start, end)
        if "data" in found:
            return "data"
        image = self.images[name]
        if found != {"zero"} or image.raw or end - start < whole:
            return "maybe"
        numbers = range(start // image.unit, (end - 1) // image.unit + 1)
        kinds = {image.kinds[number] for number in numbers}
        hosts = {number * image.unit // image.cluster for number in numbers} & image.hosted
        entry = 8 if image.unit == image.cluster else 16
        if len(kinds) > 1 or hosts or min(image.cluster, 4096) // entry * image.cluster < whole:
            return "maybe"
        if kinds == {"zero"} or image.backing is None or self.images[image.backing].size <= start:
            return "zero"
        below = min(end, self.images[image.backing].size)
        return self.travels_as(image.backing, start, below, whole)

    # --- writing ------------------------------------------------------------------------------

    def write(self, name: str, offset: int, data: bytes) -> None:
        image = self.images[name]
        if not data:
            return
        end = offset + len(data)
        if not image.raw:
            before = self.everything(name)
            for cluster in range(offset // image.cluster, (end - 1) // image.cluster + 1):
                start, stop = cluster * image.cluster, (cluster + 1) * image.cluster
                if image.kind_at(start) == "compressed":
                    image.set_kinds(start, stop, "data")
                image.hosted.add(cluster)
                image.doubtful.discard(cluster)
            s, e = offset // image.unit * image.unit, up(end, image.unit)
            image.own[s:e] = before[s:e]
            image.set_kinds(s, e, "data")
        image.own[offset:end] = data

    def write_compressed(self, name: str, offset: int, data: bytes) -> None:
        image = self.images[name]
        end, cluster = offset + len(data), image.cluster
        if image.raw:
            raise RefusedNaively(Reason.NOT_SUPPORTED)
        if not data:
            return
        if offset % cluster:
            raise RefusedNaively(Reason.NOT_ALIGNED)
        if end % cluster and end != image.size:
            raise RefusedNaively(Reason.NOT_ALIGNED)
        for start in range(offset, end, cluster):
            piece = data[start - offset : start - offset + cluster]
            if compresses(piece, cluster) and self.occupied(name, start) != "no":
                if len(data) > cluster or self.occupied(name, start) == "maybe":
                    raise OpenOutcomeError("which clusters are written before it fails, if it does")
                raise RefusedNaively(Reason.ALREADY_ALLOCATED)
        for start in range(offset, end, cluster):
            self.put_compressed(name, start, data[start - offset : start - offset + cluster])

    def put_compressed(self, name: str, start: int, data: bytes) -> None:
        image = self.images[name]
        if not compresses(data, image.cluster):
            self.write(name, start, data)
            return
        stop = start + image.cluster
        image.own[start:stop] = data + bytes(image.cluster - len(data))
        image.set_kinds(start, stop, "compressed")

    def occupied(self, name: str, start: int) -> Literal["yes", "no", "maybe"]:
        """Whether a compressed write finds the cluster allocated."""
        image = self.images[name]
        if image.kind_at(start) == "maybe" or start // image.cluster in image.doubtful:
            return "maybe"
        taken = start // image.cluster in image.hosted or image.kind_at(start) == "compressed"
        return "yes" if taken else "no"

    # --- zeroes -------------------------------------------------------------------------------

    def write_zeroes(self, name: str, offset: int, length: int, *, unmap: bool) -> None:
        """In pieces: up to the first unit's edge, whole units, the rest."""
        image = self.images[name]
        if image.raw:
            self.write(name, offset, bytes(length))
            return
        end = offset + length
        first = min(up(offset, image.unit), end)
        last = max(end // image.unit * image.unit, first)
        for s, e in ((offset, first), (first, last), (last, end)):
            if s < e and not self.zero_efficiently(name, s, e, unmap=unmap):
                self.write(name, s, bytes(e - s))

    def zero_efficiently(self, name: str, start: int, end: int, *, unmap: bool) -> bool:
        """Without writing data, if that is possible."""
        image = self.images[name]
        if image.v2 and image.backing is not None:
            return False
        s, e = start // image.unit * image.unit, up(end, image.unit)
        if s != start or end not in {e, image.size}:
            rest = self.status(name, s, start) | self.status(name, end, min(e, image.size))
            known = image.kind_at(s)
            if "data" in rest or known not in {"none", "zero", "maybe"}:
                return False
            if "maybe" in rest or known == "maybe":
                self.write(name, start, bytes(end - start))
                image.doubt(s, e)
                return True
        return self.zero_units(name, s, e, to_end=e >= image.size, unmap=unmap)

    def zero_units(self, name: str, s: int, e: int, *, to_end: bool, unmap: bool) -> bool:
        image = self.images[name]
        head = min(up(s, image.cluster), e)
        tail = e if to_end and head < e else max(e // image.cluster * image.cluster, head)
        cut = [edge for edge, part in ((s, s < head), (tail, tail < e)) if part]
        if any(image.kind_at(edge) == "compressed" for edge in cut):
            return False
        e = up(e, image.cluster) if tail == e and head < e else e
        image.own[s:e] = bytes(e - s)
        image.set_kinds(s, e, "none" if image.v2 else "zero")
        for cluster in range(head // image.cluster, up(tail, image.cluster) // image.cluster):
            if unmap or image.v2:
                image.hosted.discard(cluster)
                image.doubtful.discard(cluster)
        return True

    def discard(self, name: str, offset: int, length: int) -> None:
        image = self.images[name]
        end = offset + length
        if image.raw:
            self.write(name, offset, bytes(length))
            return
        if image.v2 and image.backing is not None:
            return
        last = up(end, image.cluster) if end == image.size else end
        for cluster in range(up(offset, image.cluster) // image.cluster, last // image.cluster):
            s, e = cluster * image.cluster, (cluster + 1) * image.cluster
            allocated = cluster in image.hosted or image.kind_at(s) == "compressed"
            if allocated or image.backing is not None:
                image.own[s:e] = bytes(e - s)
                image.set_kinds(s, e, "none" if image.v2 else "zero")
                image.hosted.discard(cluster)
                image.doubtful.discard(cluster)

    # --- resizing -----------------------------------------------------------------------------

    def resize(self, name: str, size: int) -> None:
        image = self.images[name]
        if size > 2**63 - 2**30:
            raise RefusedNaively(Reason.SIZE_TOO_LARGE)
        if image.raw:
            image.set_length(size)
            image.set_length(up(size, 512))
            return
        if size % 512:
            raise RefusedNaively(Reason.SIZE_NOT_ALIGNED)
        entries = image.cluster // (8 if image.unit == image.cluster else 16)
        if size > max(2**22 * entries * image.cluster, image.size):
            raise RefusedNaively(Reason.SIZE_TOO_LARGE)
        old = image.size
        longer = image.backing is not None and self.images[image.backing].size > old
        edge = up(old, image.unit)
        compressed = edge % image.cluster and image.kind_at(edge) == "compressed"
        if longer and edge < size and (image.v2 or compressed):
            raise RefusedNaively(Reason.GROW_UNSUPPORTED)
        image.set_length(size)
        if longer and size > old:
            if edge < size:
                self.zero_units(name, edge, up(size, image.unit), to_end=True, unmap=False)
            self.write(name, old, bytes(max(min(edge, size) - old, 0)))
