"""Which QEMU: its programs, found as the option, the environment or PATH say.

``--qemu PATH`` is a system emulator, a qemu-storage-daemon, or a directory that holds an
emulator; its companions are taken from beside it, else from PATH. Without the option the variables
of QEMU's own iotests are used (``QEMU_PROG``, ``QEMU_IMG_PROG``, ``QEMU_IO_PROG``), then PATH.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qbprop.errors import EnvironmentProblem

OLDEST = 4
"""QEMU's oldest major version worth launching; `qbprop.qemu.features` then looks closer."""

VERSION_SECONDS = 20.0
"""Longest time that a program may take to print its version."""

DAEMON = "qemu-storage-daemon"
"""What QEMU's block layer without an emulator calls itself."""

_SYSTEM_NAME = re.compile(r"qemu-system-\w+")
_PREFERRED = ("qemu-system-x86_64", f"qemu-system-{platform.machine()}")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The absolute paths of ``qemu-system-*``, ``qemu-img`` and ``qemu-io``.

    The first may be a ``qemu-storage-daemon`` (``daemon``). ``under`` is the command that it is
    run by, such as a debugger's.
    """

    system: Path
    img: Path
    io: Path
    under: tuple[str, ...] = field(default=(), kw_only=True)
    daemon: bool = field(default=False, kw_only=True)

    @property
    def engine(self) -> str:
        """What kind of program has the block layer that is tested."""
        return DAEMON if self.daemon else "qemu-system"

    def launch_with(self, descriptor: int, trace: str, *options: str) -> tuple[str, ...]:
        """The command for a block layer with nothing in it but a QMP monitor on a socket.

        ``options`` are the emulator's, and so is the file for the ``trace``.
        """
        chardev = f"socket,id=monitor,fd={descriptor}"
        program = (*self.under, str(self.system.absolute()))
        if self.daemon:
            return (*program, "--chardev", chardev, "--monitor", "chardev=monitor")
        machine = ("-machine", "none", "-nodefaults", "-display", "none", "-S")
        return (
            *program,
            *machine,
            "-chardev",
            chardev,
            "-qmp",
            "chardev:monitor",
            "-D",
            trace,
            *options,
        )


def find_binaries(qemu: str | None, environ: Mapping[str, str] = os.environ) -> Binaries:
    """Find the programs of one QEMU; ``qemu`` is the value of ``--qemu``, if given.

    Raises EnvironmentProblem when one is missing, cannot be run, is something else or too old.
    """
    path = environ.get("PATH", os.defpath)
    named = {} if qemu else environ
    system = _system(qemu or named.get("QEMU_PROG"), path)
    version, daemon = block_layer_version(system)
    if int(version.partition(".")[0]) < OLDEST:
        raise EnvironmentProblem(f"{system} is QEMU {version}: use QEMU {OLDEST}.0 or newer")
    img = _companion("qemu-img", named.get("QEMU_IMG_PROG"), system, path)
    io = _companion("qemu-io", named.get("QEMU_IO_PROG"), system, path)
    return Binaries(system, img, io, daemon=daemon)


def _system(wanted: str | None, path: str) -> Path:
    if not wanted:
        found = next(_emulators(path.split(os.pathsep)), None)
        if found is None:
            raise EnvironmentProblem(
                "no qemu-system-* in PATH: install QEMU (Debian: qemu-system-x86), or name one "
                "with --qemu PATH"
            )
        return found
    if Path(wanted).is_dir():
        found = next(_emulators([wanted, f"{wanted}/bin", f"{wanted}/build"]), None)
        if found is None:
            raise EnvironmentProblem(
                f"no qemu-system-* in {wanted}: give the emulator or the directory that holds it"
            )
        return found
    return _executable(wanted, path)


def _emulators(directories: list[str]) -> Iterator[Path]:
    """System emulators in the directories: the preferred ones of each first."""
    for directory in directories:
        try:
            names = [entry.name for entry in Path(directory).iterdir()]
        except OSError:
            continue
        names = sorted(filter(_SYSTEM_NAME.fullmatch, names))
        names.sort(key=lambda name: _PREFERRED.index(name) if name in _PREFERRED else 9)
        for name in names:
            program = Path(directory, name).absolute()
            if _can_run(program):
                yield program


def _companion(name: str, wanted: str | None, system: Path, path: str) -> Path:
    if wanted:
        program = _executable(wanted, path)
    else:
        beside = [system.with_name(name), system.resolve().with_name(name)]
        found = shutil.which(name, path=path)
        candidates = [*filter(_can_run, beside), *([Path(found).absolute()] if found else [])]
        if not candidates:
            raise EnvironmentProblem(
                f"no {name} beside {system} or in PATH: install it (Debian: qemu-utils)"
            )
        program = candidates[0]
    program_version(program, name)
    return program


def _executable(wanted: str, path: str) -> Path:
    """The program that ``wanted`` names: a path, or a name to look up in PATH."""
    if os.sep not in wanted and not Path(wanted).exists():
        found = shutil.which(wanted, path=path)
        if found is None:
            raise EnvironmentProblem(f"{wanted} is neither a file nor in PATH: give its full path")
        return Path(found).absolute()
    program = Path(wanted).absolute()
    if not program.exists():
        raise EnvironmentProblem(
            f"{wanted} does not exist: give a qemu-system-* or the directory that holds it"
        )
    if not _can_run(program):
        raise EnvironmentProblem(f"{wanted} cannot be executed: chmod +x it, or give another")
    return program


def _can_run(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)


def block_layer_version(program: Path) -> tuple[str, bool]:
    """The version of a program that has QEMU's block layer, and whether it is the storage daemon.

    Raises EnvironmentProblem as `program_version` does.
    """
    try:
        return program_version(program, "QEMU emulator"), False
    except EnvironmentProblem as problem:
        try:
            return program_version(program, DAEMON), True
        except EnvironmentProblem:
            raise problem from None


def program_version(program: Path, kind: str) -> str:
    """The version of a program as it prints it, such as "7.2.22 (Debian 1:7.2)".

    ``kind`` is what the program calls itself: "QEMU emulator", "qemu-img" or "qemu-io".
    Raises EnvironmentProblem when it does not, or cannot be run.
    """
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(
            f"{program} --version printed nothing in {VERSION_SECONDS:g} s: it is not QEMU's"
        ) from None
    except OSError as error:
        raise EnvironmentProblem(f"{program} cannot be run: {error.strerror}") from error
    text = done.stdout.decode(errors="replace")
    found = re.search(rf"^{kind} version (\d+\.\d.*)", text, re.MULTILINE)
    if found is None:
        said = (text + done.stderr.decode(errors="replace")).strip().partition("\n")[0][:200]
        raise EnvironmentProblem(f'{program} is no {kind}: its --version says "{said}"')
    return found[1]
