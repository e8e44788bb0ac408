"""``scripts/qemus`` on a tiny repository of its own: packages that hold ``sleep`` for a QEMU."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "qemus"
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
LOADER = LIBRARIES / "ld-linux-x86-64.so.2"

WAIT_SECONDS = 20.0

pytestmark = pytest.mark.skipif(
    shutil.which("apt-get") is None or not LOADER.exists(),
    reason="scripts/qemus is for Debian on x86-64",
)

UNSIGNED = 'Acquire::AllowInsecureRepositories "1"; APT::Get::AllowUnauthenticated "1";\n'
"""Nobody signs the repository of a test."""


class Mirror:
    """A repository with one suite, and a folder to bring QEMUs into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.qemus = folder / "qemus"
        self.uri = f"file:{folder / 'mirror'}"
        self.pool = folder / "mirror" / "pool"
        self.pool.mkdir(parents=True)
        (folder / "apt.conf").write_text(UNSIGNED)

    def serve(self, suite: str, version: str) -> None:
        """Let a suite hold two packages of a QEMU of this version."""
        tree = self.folder / "package"
        (tree / "usr/bin").mkdir(parents=True)
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        libraries.mkdir(parents=True)
        shutil.copy(LOADER, libraries / LOADER.name)
        shutil.copy(LIBRARIES / "libc.so.6", libraries)
        shutil.copy("/usr/bin/sleep", tree / "usr/bin/qemu-system-x86_64")
        stanzas = [self._package("qemu-system-x86", version, tree)]
        shutil.rmtree(tree)
        (tree / "usr/bin").mkdir(parents=True)
        shutil.copy("/usr/bin/sleep", tree / "usr/bin/qemu-img")
        stanzas.append(self._package("qemu-utils", version, tree))
        shutil.rmtree(tree)
        dist = self.folder / "mirror" / "dists" / suite
        index = dist / "main/binary-amd64/Packages"
        index.parent.mkdir(parents=True)
        index.write_text("\n".join(stanzas))
        told = f" {_sha(index)} {index.stat().st_size} main/binary-amd64/Packages"
        (dist / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
            f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{told}\n"
        )

    def _package(self, name: str, version: str, tree: Path) -> str:
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: a test's\n"
        )
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control)
        file = self.pool / f"{name}_1_amd64.deb"
        command: list[str | Path] = ["dpkg-deb", "--root-owner-group", "--build", tree, file]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        place = file.relative_to(self.folder / "mirror")
        return f"{control}Filename: {place}\nSize: {file.stat().st_size}\nSHA256: {_sha(file)}\n"

    def bring(self, *versions: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        environment = {
            **os.environ,
            "QBPROP_QEMUS": str(self.qemus),
            "APT_CONFIG": str(self.folder / "apt.conf"),
        }
        command: list[str | Path] = [
            SCRIPT,
            "--mirror",
            f"file:{self.folder / 'mirror'}",
            *versions,
        ]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


def test_a_version_is_brought_over_what_was_interrupted_and_runs(mirror: Mirror) -> None:
    mirror.serve("trixie", "1:10.0.7+ds-1")
    state, home = mirror.qemus / ".apt/10.0", mirror.qemus / "10.0"
    (state / "new/tree/usr/bin").mkdir(parents=True)
    (state / "archives").mkdir()
    (state / "archives/qemu-utils_1%3a9.9_amd64.deb").write_text("an older package, half")
    done = mirror.bring("10.0")
    assert done.returncode == 0, done.stderr
    assert "QEMU 10.0.7 of Debian's trixie: " in done.stdout
    assert " MB to download" in done.stdout
    assert "MB in " in done.stdout
    programs = sorted(path.name for path in (home / "bin").iterdir())
    assert programs == ["qemu-img", "qemu-system-x86_64"]
    assert [path.name for path in mirror.qemus.iterdir()] == ["10.0"]
    with subprocess.Popen([home / "bin" / "qemu-system-x86_64", "60"]) as process:
        assert str(home / "tree/usr/lib/x86_64-linux-gnu/libc.so.6") in libraries_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == -signal.SIGTERM

    shutil.rmtree(mirror.folder / "mirror")
    again = mirror.bring("10.0")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("qemus: 10.0 is there: ")


def libraries_of(pid: int) -> str:
    """What a process has mapped, when its C library is among it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        maps = Path(f"/proc/{pid}/maps").read_text()
        if "qemu-system-x86_64" in maps and "libc.so.6" in maps:
            return maps
        assert time.monotonic() < deadline, maps
        time.sleep(0.01)


def test_what_is_not_to_be_had_is_said_in_a_line_each(mirror: Mirror) -> None:
    mirror.serve("sid", "1:12.0.0+ds-1")
    done = mirror.bring("5.2", "11.1")
    assert done.returncode == 2
    old, new = done.stderr.splitlines()
    assert old.startswith("qemus: QEMU 5.2 is not to be had: ")
    assert "does not serve bullseye" in old
    assert new.startswith("qemus: QEMU 11.1 is not to be had: sid has QEMU 12.0.0; ")
    assert not list(mirror.qemus.glob("*/bin"))


def test_an_unknown_version_is_refused(mirror: Mirror) -> None:
    done = mirror.bring("6.0")
    assert done.returncode == 2
    assert done.stderr == "qemus: there is no QEMU 6.0 here, only 5.2 7.2 10.0 11.1\n"
