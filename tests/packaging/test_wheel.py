"""The built wheel, installed into a virtual environment outside the clone, by a stranger.

Nothing is downloaded: the new environment gets the wheel through pip, and links to exactly
the distributions that the wheel requires, from the environment the tests run in. What the
wheel needs and does not declare is therefore missing there.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CLONE = Path(__file__).parents[2]
ROOTS = (CLONE / "src", CLONE / "model")
LITTER = ("__pycache__", "*.egg-info", "ruff.toml", ".*")


@dataclass(frozen=True)
class Stranger:
    """A folder of someone who has installed the wheel, and their ``python``."""

    folder: Path
    python: Path
    qemu: tuple[str, ...]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """What ``command`` says, run in the folder, knowing nothing of the clone."""
        hints = ("PYTHON", "PYTEST")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(hints)}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
            check=False,
        )

    def pytest(self, *arguments: str) -> str:
        """The output of a pytest run that must pass, with the shortest profile."""
        profile = "--hypothesis-profile=qbprop-dev"
        done = self.run(self.python, "-m", "pytest", profile, *self.qemu, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution of a copy of the clone."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(CLONE / name, copy)
    for root in ROOTS:
        shutil.copytree(root, copy / root.name, ignore=shutil.ignore_patterns(*LITTER))
    here("build", "--no-isolation", "--outdir", copy / "dist", copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def stranger(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Stranger:
    place = tmp_path_factory.mktemp("stranger")
    venv.create(place / "venv", system_site_packages=True, symlinks=True)
    python = place / "venv" / "bin" / "python"
    quiet = ("--quiet", "--disable-pip-version-check")
    here("pip", "--python", python, "install", *quiet, "--no-index", "--no-deps", wheel)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    for entry in sorted(required_entries(requirements(site))):
        (site / entry.name).symlink_to(entry)
    qemu = pytestconfig.getoption("--qemu")
    folder = place / "elsewhere"
    folder.mkdir()
    return Stranger(folder, python, ("--qemu", str(qemu)) if qemu else ())


def here(module: str, *arguments: str | Path) -> None:
    """Run a module of the environment the tests run in."""
    command = (sys.executable, "-m", module, *arguments)
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def required_entries(names: set[str]) -> set[Path]:
    """What lies in site-packages of the distributions ``names``, Debian's apart."""
    return {
        Path(str(distribution.locate_file(file.parts[0])))
        for distribution in map(importlib.metadata.distribution, names)
        for file in distribution.files or ()
        if file.parts[0] not in {"..", "__pycache__"}
        if Path(str(distribution.locate_file(""))).is_relative_to(sys.prefix)
    }


def requirements(site: Path) -> set[str]:
    """The names of what the qbprop in ``site`` requires, and of what that requires in turn."""
    (ours,) = importlib.metadata.distributions(name="qbprop", path=[str(site)])
    found: set[str] = set()
    unread = [ours]
    while unread:
        for requirement in map(Requirement, unread.pop().requires or ()):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.name not in found:
                found.add(requirement.name)
                unread.append(importlib.metadata.distribution(requirement.name))
    return found


def litter(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in LITTER)


def test_it_ships_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(root))
        for root in ROOTS
        for path in root.glob("qbprop*/**/*")
        if path.is_file() and not litter(path.relative_to(root))
    }
    assert shipped == ours


def test_the_clone_has_no_part_in_it(stranger: Stranger) -> None:
    done = stranger.run(
        stranger.python, "-c", "import qbprop, qbprop_model; print(qbprop.__path__, qbprop_model)"
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(str(stranger.python.parents[1])) == 2
    assert str(CLONE) not in done.stdout


def test_doctor_finds_nothing_missing(stranger: Stranger) -> None:
    done = stranger.run(stranger.python.with_name("qbprop"), "doctor", *stranger.qemu)
    assert done.returncode == 0, done.stdout


def test_the_suite_passes(stranger: Stranger) -> None:
    assert " passed" in stranger.pytest("--pyargs", "qbprop.suite")


def test_the_subclass_in_the_readme_passes(stranger: Stranger) -> None:
    readme = (CLONE / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (example,) = (block for block in blocks if "(BlockMachine)" in block)
    (stranger.folder / "test_example.py").write_text(example)
    assert "1 passed" in stranger.pytest("test_example.py")
