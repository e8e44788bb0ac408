"""What is there and what is missing: which QEMU, guest I/O, folder, libraries, in plain words."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qbprop.errors import EnvironmentProblem
from qbprop.qemu.binaries import Binaries, block_layer_version, find_binaries, program_version
from qbprop.qemu.features import TABLE, Features
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.scratch import file_system, scratch_root

GET_LIBNBD = (
    "Debian: apt install python3-libnbd, and a virtual environment made by "
    "/usr/bin/python3 with --system-site-packages"
)
"""How to get libnbd's Python module, which PyPI does not have."""

ROOM = 1 << 30
"""Free bytes in the scratch folder below which the doctor gives a warning."""


class Mark(Enum):
    """How a finding of the doctor weighs."""

    FINE = "ok"
    MISSING = "--"
    UNUSABLE = "!!"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at, what was found, and how to get what is missing (else empty)."""

    topic: str
    mark: Mark
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All lines, in the order in which they are shown."""

    lines: tuple[Line, ...]

    @property
    def usable(self) -> bool:
        """Whether a campaign can run."""
        return all(line.mark is not Mark.UNUSABLE for line in self.lines)

    def text(self) -> str:
        """The report for a terminal, without a last line feed."""
        width = max(len(line.topic) for line in self.lines)
        rows = []
        for line in self.lines:
            rows.append(f"{line.mark.value}  {line.topic:{width}}  {line.found}")
            if line.remedy:
                rows.append(f"    {'':{width}}  -> {line.remedy}")
        return "\n".join(
            [*rows, "", "ready" if self.usable else "not usable: see the lines with !!"]
        )


def examine(qemu: str | None, environ: Mapping[str, str] = os.environ) -> Report:
    """Look at all that a campaign needs; ``qemu`` is the value of ``--qemu``, if given.

    QEMU is launched once. What is missing stands in the report: nothing is raised for it.
    """
    root = scratch_root(environ)
    return Report((*_libraries(), *_scratch(root), *_qemu(qemu, environ, root), _debugger(environ)))


def _libraries() -> Iterator[Line]:
    yield Line("python", Mark.FINE, platform.python_version())
    for name in ("hypothesis", "qemu.qmp", "numpy"):
        try:
            yield Line(name, Mark.FINE, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Line(name, Mark.UNUSABLE, "not installed", f"pip install {name}")


def _scratch(root: Path) -> Iterator[Line]:
    try:
        with tempfile.TemporaryDirectory(dir=root):
            free = shutil.disk_usage(root).free
    except OSError as error:
        remedy = "set TMPDIR to a folder that can be written"
        yield Line("images", Mark.UNUSABLE, f"{root}: {error.strerror}", remedy)
        return
    kind = file_system(root)
    found = f"{root} ({kind or 'unknown file system'}), {free / (1 << 30):.1f} GiB free"
    if free < ROOM:
        yield Line("images", Mark.MISSING, found, "make room, or set TMPDIR to another folder")
    elif kind != "tmpfs":
        yield Line(
            "images", Mark.MISSING, found, "set TMPDIR to a tmpfs: it is several times faster"
        )
    else:
        yield Line("images", Mark.FINE, found)


def _qemu(qemu: str | None, environ: Mapping[str, str], root: Path) -> Iterator[Line]:
    try:
        binaries = find_binaries(qemu, environ)
        yield from _programs(binaries)
        features = _features(binaries, root)
    except EnvironmentProblem as problem:
        yield Line("qemu", Mark.UNUSABLE, str(problem))
        return
    yield from _guest_io(features)
    for feature in TABLE:
        if getattr(features, feature.name):
            yield Line("feature", Mark.FINE, feature.what)
        else:
            yield Line("feature", Mark.MISSING, f"{feature.what}: {feature.without}")


def _programs(binaries: Binaries) -> Iterator[Line]:
    version, _ = block_layer_version(binaries.system)
    yield Line("qemu", Mark.FINE, f"{version}  {binaries.system}")
    for kind, program in (("qemu-img", binaries.img), ("qemu-io", binaries.io)):
        its_own = program_version(program, kind)
        if its_own == version:
            yield Line(kind, Mark.FINE, f"{its_own}  {program}")
        else:
            found = f"{its_own}  {program}, another version than QEMU"
            yield Line(kind, Mark.MISSING, found, f"put the {kind} of that QEMU beside it")


def _features(binaries: Binaries, root: Path) -> Features:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="qbprop-doctor-", dir=root) as folder,
            QemuProcess(binaries, Path(folder)) as process,
        ):
            return process.features
    except OSError as error:
        raise EnvironmentProblem(f"not launched, {root} is unfit: {error.strerror}") from error


def _guest_io(features: Features) -> Iterator[Line]:
    libnbd = _libnbd_version()
    if libnbd and features.block_export_add:
        yield Line("guest I/O", Mark.FINE, f"NBD through libnbd {libnbd}")
        return
    remedy = "" if libnbd else GET_LIBNBD
    if features.human_monitor_command:
        found = "HMP qemu-io, which is several times slower than NBD through libnbd"
        yield Line("guest I/O", Mark.MISSING, found, remedy)
    else:
        yield Line("guest I/O", Mark.UNUSABLE, "neither NBD nor HMP qemu-io", remedy)


def _debugger(environ: Mapping[str, str]) -> Line:
    gdb = shutil.which("gdb", path=environ.get("PATH", os.defpath))
    if gdb is not None:
        return Line("gdb", Mark.FINE, f"{gdb}, tells in which functions QEMU crashes")
    found = "not installed: crashes are told apart by their signal alone"
    return Line("gdb", Mark.MISSING, found, "Debian: apt install gdb")


def _libnbd_version() -> str | None:
    try:
        return str(importlib.import_module("nbd").NBD().get_version())
    except (ImportError, AttributeError):
        return None
