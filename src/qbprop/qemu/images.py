"""Image files: made, changed and checked with ``qemu-img`` and ``qemu-io``.

Starting a program costs milliseconds. So a blank image is written from a template where one
is known: what ``qemu-img create`` made for the same options. Two blank qcow2 images with L1
tables of as many clusters differ in the name of their backing file, in the fields for its length
and for the image's size, and in the length of the table, which ends the file; so one template
serves many images. What ``qemu-io`` filled is kept as a whole, for the same layer over the same
untouched chain: campaigns vary an example many times.
"""

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.monitor import QemuSilent
from qbprop.qemu.observation import Refused, RequestRefused
from qbprop.qemu.patience import patiently
from qbprop.qemu.primitives import MakeImage, Program
from qbprop.qemu.qcow2 import (
    BACKING_LENGTH_FIELD,
    L1_ENTRY,
    L1_SIZE_FIELD,
    SIZE_FIELD,
    backing_name,
    format_of,
    is_whole,
    l1_table,
)
from qbprop_model.data import SECTOR, Fill
from qbprop_model.operations import Layer, Pattern

SUFFIX = ".img"
"""How the name of every image file ends."""

TEMPLATE_LIMIT = 1 << 23
"""Most bytes written for a template; with more the program is no slower."""

_BLOCK = 4096
"""Bytes of a template that are kept or left out together."""

TEMPLATE_COUNT = 256
"""Most templates kept."""

FILLED_LIMIT = 1 << 23
"""Most bytes kept of filled images; the oldest go first."""

_RAW_START = 4096
"""QEMU allocates so many first bytes of a new raw image."""

_UNTOUCHED = 0
"""The time of change that a new image is given; a write sets another one."""

_HEADER = 48
"""First bytes of a qcow2 image that say where its L1 table is."""


LEAKS = 3
"""The exit code of ``qemu-img check`` where it finds nothing but lost clusters."""


@dataclass(frozen=True)
class _Extent:
    """Data of a sparse file: its first byte, its length, and the blocks in it that are not zero.

    Blocks have their offsets in the extent.
    """

    start: int
    length: int
    blocks: tuple[tuple[int, bytes], ...]

    @classmethod
    def read(cls, descriptor: int, start: int, end: int) -> Self:
        """The data of an open file from ``start`` to ``end``."""
        data = os.pread(descriptor, end - start, start)
        blocks = ((at, data[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK))
        return cls(start, len(data), tuple((at, b) for at, b in blocks if b != bytes(len(b))))

    def write(self, descriptor: int) -> None:
        """Write it to an open file, the zeroes too."""
        data = bytearray(self.length)
        for at, block in self.blocks:
            data[at : at + len(block)] = block
        os.pwrite(descriptor, data, self.start)


@dataclass(frozen=True)
class _File:
    """The first ``length`` bytes of a sparse file, in memory."""

    length: int
    data: tuple[_Extent, ...]

    @classmethod
    def read(cls, descriptor: int, length: int, limit: int) -> Self | None:
        """Those of an open file; None where their data takes more than ``limit``."""
        found = data_extents(descriptor, length)
        extents = [(start, min(end, length)) for start, end in found if start < length]
        if sum(end - start for start, end in extents) > limit:
            return None
        return cls(length, tuple(_Extent.read(descriptor, *each) for each in extents))

    @property
    def weight(self) -> int:
        """Bytes of its data."""
        return sum(extent.length for extent in self.data)

    def write(self, descriptor: int) -> None:
        """Write it to an open file that is empty."""
        for extent in self.data:
            extent.write(descriptor)
        os.ftruncate(descriptor, self.length)


@dataclass(frozen=True)
class _Template:
    """A blank image.

    Of a qcow2 image what is before the L1 table, the offset of which is ``table``; ``backing``
    is where the name of its backing file stands, in ``backing_length`` bytes.
    """

    file: _File
    table: int | None
    backing: int
    backing_length: int


class Images:
    """The image files of one folder. ``timeout`` bounds every program, in seconds.

    ``runs`` counts the programs started. Every method raises QemuSilent when one takes longer.
    """

    def __init__(self, binaries: Binaries, folder: Path, timeout: float) -> None:
        self.take(binaries)
        self._folder = folder
        self.timeout = timeout
        self._templates: dict[object, _Template] = {}
        self._made: dict[str, MakeImage] = {}
        self._filled: dict[tuple[MakeImage, ...], _File] = {}
        self.runs = 0

    def take(self, binaries: Binaries) -> None:
        """From now on run the programs of this QEMU."""
        self._programs = {"qemu-img": str(binaries.img), "qemu-io": str(binaries.io)}

    def format_of(self, file: str) -> str:
        """The format of a file as it is now; "raw" where there is none."""
        return format_of(self._folder / file)

    def path(self, file: str) -> Path:
        """Where a file is."""
        return self._folder / file

    def is_plain(self, file: str) -> bool:
        """Whether a file's bytes are those of the disk in it: raw, and of whole sectors."""
        path = self.path(file)
        return path.is_file() and format_of(path) == "raw" and path.stat().st_size % SECTOR == 0

    def run(self, program: Program) -> None:
        """Run a program in the folder. Raises RequestRefused when its exit status is not 0."""
        code, output = self._run(program)
        if code:
            raise RequestRefused(Refused("program", str(code), output))

    def make(self, step: MakeImage) -> None:
        """Make an image as MakeImage says, from a template where possible.

        Raises RequestRefused when a program refuses.
        """
        path = self._folder / step.file
        path.unlink(missing_ok=True)
        self._made.pop(step.file, None)
        try:
            self._write(step, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        os.utime(path, ns=(_UNTOUCHED, _UNTOUCHED))
        self._made[step.file] = step

    @contextmanager
    def checking(
        self, files: Iterable[str], leaky: Collection[str] = ()
    ) -> Iterator[Callable[[], dict[str, str]]]:
        """Start ``qemu-img check`` of each image of ``files``; a call tells what was found wrong.

        Nothing is with a file that is not qcow2, or that nobody has written to since `make`. Lost
        clusters are nothing wrong with those that are ``leaky``.
        """
        with ExitStack() as stack:
            checks = {
                file: self._started(Program("qemu-img", ("check", "-f", "qcow2", file)), stack)
                for file in files
                if self.format_of(file) == "qcow2" and not self._is_untouched(file)
            }
            yield lambda: self._problems(checks, leaky)

    def flatten(self, file: str) -> Path:
        """A sparse raw file with all that a new process reads from ``file`` and its chain.

        Raises RequestRefused when it cannot be read.
        """
        raw = f"{file}.raw"
        form = self.format_of(file)
        self.run(Program("qemu-img", ("convert", "-f", form, "-O", "raw", file, raw)))
        return self._folder / raw

    def delete_all(self) -> None:
        """Delete every image file of the folder."""
        for path in self._folder.glob("*" + SUFFIX):
            path.unlink()
        self._made.clear()

    def _run(self, program: Program) -> tuple[int, str]:
        with ExitStack() as stack:
            return self._ended(self._started(program, stack))

    def _started(self, program: Program, stack: ExitStack) -> subprocess.Popen[bytes]:
        """The program, running; whatever happens, it does not outlive the stack."""
        self.runs += 1
        words = [self._programs[program.tool], *map(str, program.arguments)]
        process = stack.enter_context(
            subprocess.Popen(
                words,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        stack.callback(process.kill)
        return process

    def _ended(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """The exit code of a program, and what it said."""
        try:
            output, errors = patiently(lambda left: process.communicate(timeout=left), self.timeout)
        except subprocess.TimeoutExpired:
            words = process.args
            assert isinstance(words, list)
            raise QemuSilent(" ".join(words), self.timeout) from None
        said = errors.strip() or output.strip()
        return process.returncode, said.decode(errors="replace")

    def _problems(
        self, checks: Mapping[str, subprocess.Popen[bytes]], leaky: Collection[str]
    ) -> dict[str, str]:
        ends = {file: self._ended(check) for file, check in checks.items()}
        kinds = {2: "corruption", LEAKS: "leaked clusters"}
        return {
            file: f"qemu-img check of {file}: {kinds.get(code, f'exit code {code}')}: {output}"
            for file, (code, output) in ends.items()
            if code and not (code == LEAKS and file in leaky)
        }

    def _write(self, step: MakeImage, path: Path) -> None:
        origin = self._origin(step) if step.layer.data and step.layer.format == "qcow2" else None
        filled = self._filled.get(origin) if origin else None
        if filled is not None:
            with path.open("xb", buffering=0) as file:
                filled.write(file.fileno())
            return
        self._blank(step, path)
        self._fill(step, path)
        if origin is not None:
            self._keep(origin, path)

    def _origin(self, step: MakeImage) -> tuple[MakeImage, ...] | None:
        """All that the image hangs on, from the top down; None where that is not known."""
        steps = [step]
        while (backing := steps[-1].backing) is not None:
            made = self._made.get(backing)
            if made is None or not self._is_untouched(backing):
                return None
            steps.append(made)
        return tuple(steps)

    def _is_untouched(self, file: str) -> bool:
        """Whether a file is as `make` has left it."""
        return (self._folder / file).stat().st_mtime_ns == _UNTOUCHED

    def _keep(self, origin: tuple[MakeImage, ...], path: Path) -> None:
        """Keep a filled image, in place of the oldest ones."""
        with path.open("rb", buffering=0) as file:
            filled = _File.read(file.fileno(), path.stat().st_size, TEMPLATE_LIMIT)
        if filled is None:
            return
        self._filled[origin] = filled
        while sum(each.weight for each in self._filled.values()) > FILLED_LIMIT:
            del self._filled[next(iter(self._filled))]

    def _blank(self, step: MakeImage, path: Path) -> None:
        name = (step.backing or "").encode()
        key = (_shape(step.layer), step.backing_format)
        template = self._templates.get(key)
        whole = step.backing is None or is_whole(self._folder / step.backing)
        if template is not None and whole:
            _write_blank(path, template, step.layer, name)
            return
        self.run(create_program(step))
        if (template := _template(path)) is not None:
            if len(self._templates) >= TEMPLATE_COUNT:
                self._templates.clear()
            self._templates[key] = template

    def _fill(self, step: MakeImage, path: Path) -> None:
        """Write the layer's patterns; into a raw image without a program's help."""
        patterns = step.layer.data
        if not patterns:
            return
        if step.layer.format == "raw" and all(_fits(each, step.layer) for each in patterns):
            with path.open("r+b", buffering=0) as file:
                for each in patterns:
                    os.pwrite(file.fileno(), _bytes(each), each.offset)
            return
        names = data_files(step)
        try:
            for name, pattern in names.items():
                (self._folder / name).write_bytes(_bytes(pattern))
            self.run(fill_program(step))
        finally:
            for name in names:
                (self._folder / name).unlink(missing_ok=True)


def create_program(step: MakeImage) -> Program:
    """The ``qemu-img create`` that makes the blank image of a step."""
    layer = step.layer
    words = ["create", "-q", "-f", layer.format]
    if layer.format == "qcow2":
        options = f"cluster_size={layer.cluster_size},compat={layer.compat}"
        words += ["-o", options + (",extended_l2=on" if layer.extended_l2 else "")]
    if step.backing is not None:
        words += ["-b", step.backing, "-F", str(step.backing_format)]
    return Program("qemu-img", (*words, step.file, str(layer.size)))


def fill_program(step: MakeImage) -> Program:
    """The ``qemu-io`` that writes the layer's data; it reads the files of `data_files`."""
    words = ["-f", step.layer.format]
    for index, each in enumerate(step.layer.data):
        source = f"-P {each.fill}" if isinstance(each.data, Fill) else f"-s {_name(step, index)}"
        if not each.length:
            source = ""
        words += ["-c", f"write {source} {each.offset} {each.length}"]
    return Program("qemu-io", (*words, step.file))


def data_files(step: MakeImage) -> dict[str, Pattern]:
    """The files that `fill_program` reads, and what each must hold."""
    return {
        _name(step, index): each
        for index, each in enumerate(step.layer.data)
        if each.length and not isinstance(each.data, Fill)
    }


def _name(step: MakeImage, index: int) -> str:
    return f"{step.file}.data{index}"


def _bytes(pattern: Pattern) -> bytes:
    return pattern.data.render(pattern.offset, pattern.length).tobytes()


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


def _fits(pattern: Pattern, layer: Layer) -> bool:
    return pattern.offset + pattern.length <= _whole_sectors(layer.size)


def _tables(layer: Layer) -> int:
    """Entries of the L1 table: one for each L2 table."""
    entry = 16 if layer.extended_l2 else 8
    covered = layer.cluster_size * (layer.cluster_size // entry)
    return -(-_whole_sectors(layer.size) // covered)


def _shape(layer: Layer) -> object:
    """What the layout of a blank image depends on."""
    if layer.format == "raw":
        return ("raw", min(_whole_sectors(layer.size), _RAW_START))
    clusters = -(-_tables(layer) * L1_ENTRY // layer.cluster_size)
    return (clusters, layer.cluster_size, layer.compat, layer.extended_l2)


def _template(path: Path) -> _Template | None:
    """The file as a template, unless it holds too much or is laid out in another way."""
    with path.open("rb", buffering=0) as file:
        descriptor, end, table = file.fileno(), os.fstat(file.fileno()).st_size, None
        header = os.pread(descriptor, _HEADER, 0)
        if format_of(path) == "qcow2":
            table, length = l1_table(header)
            if table + length != end or length > TEMPLATE_LIMIT:
                return None
            end = table
        start = _File.read(descriptor, end, TEMPLATE_LIMIT)
        return None if start is None else _Template(start, table, *backing_name(header))


def _write_blank(path: Path, template: _Template, layer: Layer, backing: bytes) -> None:
    size = _whole_sectors(layer.size)
    with path.open("xb", buffering=0) as file:
        descriptor = file.fileno()
        template.file.write(descriptor)
        if template.table is None:
            file.truncate(size)
            return
        if backing:
            os.pwrite(descriptor, backing.ljust(template.backing_length, b"\0"), template.backing)
            os.pwrite(descriptor, len(backing).to_bytes(4, "big"), BACKING_LENGTH_FIELD)
        tables = _tables(layer)
        os.pwrite(descriptor, bytes(tables * L1_ENTRY), template.table)
        os.pwrite(descriptor, size.to_bytes(8, "big"), SIZE_FIELD)
        os.pwrite(descriptor, tables.to_bytes(4, "big"), L1_SIZE_FIELD)


def data_extents(descriptor: int, length: int) -> Iterator[tuple[int, int]]:
    """The ranges (start, end) of a sparse file that are not holes, ascending."""
    position = 0
    while position < length:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position
