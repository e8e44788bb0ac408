"""``git bisect run`` with an exported script finds a bug that was planted in QEMU's sources."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.qemu_source.conftest import Sources

from qbprop.export.folder import export_finding
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.trace import FindingHeader, Header, Trace
from qbprop_model.operations import AddDisk, BitmapAdd, Layer, Write

TRACE = Trace(
    (
        (
            AddDisk(node="drive0", layers=(Layer(size=131072),)),
            BitmapAdd(node="drive0", name="bitmap0"),
            Write(node="drive0", offset=0, length=512, fill=1),
        ),
    ),
    Header(finding=FindingHeader(id="0" * 12, kind="count", title="count after write: lost")),
)

CORE = "block/dirty-bitmap.c"
RECORDS = "        hbitmap_set(bitmap->bitmap, offset, bytes);\n"
"""Where a guest's request sets the bits of a bitmap; in a loop, hence its indentation."""

FORGETS = RECORDS.replace("hbitmap_set", "if (bytes > 512) hbitmap_set")

BUILD_SECONDS = 1800


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def repository(sources: Sources) -> Iterator[tuple[Path, dict[str, str]]]:
    """A history of four commits in the sources, the third of which is bad; undone afterwards."""
    folder = sources.source
    if (folder / ".git").exists():
        pytest.skip("the sources are a git repository already")
    core = folder / CORE
    before = core.read_text()
    assert before.count(RECORDS) == 1
    commits = {}

    def commit(name: str, text: str) -> None:
        core.write_text(text)
        git(folder, "add", "-f", CORE, "configure")
        git(folder, "commit", "-qm", name)
        commits[name] = git(folder, "rev-parse", "HEAD").strip()

    try:
        git(folder, "init", "-q")
        commit("first", before)
        commit("good", before + "\n/* A comment. */\n")
        commit("bad", before.replace(RECORDS, FORGETS))
        commit("last", before.replace(RECORDS, FORGETS) + "\n/* A comment. */\n")
        yield folder, commits
    finally:
        core.write_text(before)
        subprocess.run(["rm", "-rf", folder / ".git"], check=True)
        subprocess.run(
            ["ninja", "-C", sources.build, "qemu-system-x86_64", "qemu-img", "qemu-io"],
            check=True,
            capture_output=True,
        )


def test_bisecting_finds_the_bad_commit(
    sources: Sources, repository: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, commits = repository
    assert list(export_finding(Lab(find_binaries(str(sources.build))), TRACE, tmp_path))
    git(folder, "bisect", "start", commits["last"], commits["first"])
    done = subprocess.run(
        ["git", "bisect", "run", tmp_path / "bisect.sh"],
        cwd=folder,
        env=os.environ | {"BUILD": str(sources.build)},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    sys.stdout.write(done.stdout[-3000:])
    assert f"{commits['bad']} is the first bad commit" in done.stdout


def test_what_does_not_build_cannot_be_tried(
    sources: Sources, repository: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, _ = repository
    list(export_finding(Lab(find_binaries(str(sources.build))), TRACE, tmp_path))
    (folder / CORE).write_text("no C\n")
    done = subprocess.run(
        [tmp_path / "bisect.sh"],
        cwd=folder,
        env=os.environ | {"BUILD": str(sources.build)},
        capture_output=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 125
