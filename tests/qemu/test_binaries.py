"""Which QEMU is taken, and what is said when there is none."""

import os
import shutil
from pathlib import Path

import pytest

from qbprop.errors import EnvironmentProblem
from qbprop.qemu import binaries as module
from qbprop.qemu.binaries import Binaries, find_binaries

NOWHERE = {"PATH": "/nonexistent"}


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def link(path: Path, target: Path) -> Path:
    """A program at another place: the real one, so that it is QEMU indeed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return script(path, f'exec "{target}" "$@"')


def problem(qemu: str | Path | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(EnvironmentProblem) as caught:
        find_binaries(
            None if qemu is None else str(qemu), os.environ if environ is None else environ
        )
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_path_is_searched(binaries: Binaries) -> None:
    path = f"/nonexistent:{binaries.system.parent}"
    found = find_binaries(None, {"PATH": path})
    assert found == Binaries(*(binaries.system.parent / p.name for p in astuple(binaries)))


def astuple(binaries: Binaries) -> tuple[Path, Path, Path]:
    return binaries.system, binaries.img, binaries.io


@pytest.mark.parametrize("place", ["", "bin", "build"])
def test_a_directory_brings_its_own_companions(
    place: str, tmp_path: Path, binaries: Binaries
) -> None:
    tree = [link(tmp_path / place / p.name, p) for p in astuple(binaries)]
    script(tmp_path / place / "qemu-system-aaa", "exit 1")
    script(tmp_path / place / "qemu-system-x86_64.notes", "exit 1")
    assert find_binaries(str(tmp_path)) == Binaries(*tree)


def test_a_storage_daemon_is_taken(binaries: Binaries) -> None:
    daemon = binaries.system.with_name("qemu-storage-daemon")
    found = find_binaries(str(daemon))
    assert (found.system, found.daemon, found.engine) == (daemon, True, "qemu-storage-daemon")
    assert find_binaries(str(binaries.system)).engine == "qemu-system"


def test_a_directory_with_another_architecture_is_taken(tmp_path: Path, binaries: Binaries) -> None:
    other = link(tmp_path / "qemu-system-zzz", binaries.system)
    assert find_binaries(str(tmp_path)) == Binaries(other, binaries.img, binaries.io)


def test_companions_come_from_path_when_not_beside(tmp_path: Path, binaries: Binaries) -> None:
    odd = link(tmp_path / "an odd name", binaries.system)
    assert find_binaries(str(odd)) == Binaries(odd, binaries.img, binaries.io)


def test_a_link_brings_the_companions_of_its_target(tmp_path: Path, binaries: Binaries) -> None:
    tree = [link(tmp_path / "build" / p.name, p) for p in astuple(binaries)]
    here = tmp_path / "qemu"
    here.symlink_to(tree[0])
    assert find_binaries(str(here), NOWHERE) == Binaries(here, tree[1], tree[2])


def test_a_relative_path_becomes_absolute(
    tmp_path: Path, binaries: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = [link(tmp_path / "build" / p.name, p) for p in astuple(binaries)]
    monkeypatch.chdir(tmp_path)
    assert find_binaries("build") == Binaries(*tree)
    assert find_binaries("build/" + tree[0].name) == Binaries(*tree)


def test_variables_of_the_iotests_are_used(tmp_path: Path, binaries: Binaries) -> None:
    named = {
        "QEMU_PROG": str(link(tmp_path / "a/one", binaries.system)),
        "QEMU_IMG_PROG": str(link(tmp_path / "b/two", binaries.img)),
        "QEMU_IO_PROG": str(link(tmp_path / "c/three", binaries.io)),
    }
    expected = Binaries(*(Path(value) for value in named.values()))
    assert find_binaries(None, named | NOWHERE) == expected


def test_the_option_goes_before_the_variables(tmp_path: Path, binaries: Binaries) -> None:
    wrong = str(script(tmp_path / "wrong", "exit 1"))
    environ = {**os.environ, "QEMU_PROG": wrong, "QEMU_IMG_PROG": wrong, "QEMU_IO_PROG": wrong}
    assert find_binaries(str(binaries.system), environ) == binaries


def test_an_empty_variable_counts_as_unset(binaries: Binaries) -> None:
    assert find_binaries(None, {**os.environ, "QEMU_PROG": ""}) == binaries


def test_no_qemu_anywhere() -> None:
    text = problem(None, NOWHERE)
    assert "no qemu-system-*" in text
    assert "qemu-system-x86" in text
    assert "--qemu" in text


def test_a_path_that_does_not_exist() -> None:
    assert problem("/nonexistent/qemu").startswith("/nonexistent/qemu does not exist")


def test_a_name_that_is_nowhere() -> None:
    assert "neither a file nor in PATH" in problem("qemu-system-none")


def test_a_directory_without_qemu(tmp_path: Path) -> None:
    assert f"no qemu-system-* in {tmp_path}" in problem(tmp_path)


def test_a_file_that_is_not_executable(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("")
    assert "cannot be executed" in problem(tmp_path / "qemu")


def test_a_program_that_is_not_qemu(tmp_path: Path) -> None:
    wrong = script(tmp_path / "qemu", 'echo "frobnicator 7.2"')
    assert 'no QEMU emulator: its --version says "frobnicator 7.2"' in problem(wrong)


def test_a_file_that_no_kernel_can_run(tmp_path: Path) -> None:
    wrong = tmp_path / "qemu"
    wrong.write_bytes(b"\x7fELF nonsense")
    wrong.chmod(0o755)
    assert "Exec format error" in problem(wrong)


def test_a_program_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERSION_SECONDS", 0.2)
    wrong = script(tmp_path / "qemu", "exec sleep 60")
    assert "printed nothing in 0.2 s" in problem(wrong)


def test_a_qemu_that_is_too_old(tmp_path: Path) -> None:
    old = script(tmp_path / "qemu", "echo QEMU emulator version 3.1.0")
    assert "is QEMU 3.1.0: use QEMU 4.0 or newer" in problem(old)


@pytest.mark.parametrize("missing", ["qemu-img", "qemu-io"])
def test_a_missing_companion(missing: str, tmp_path: Path, binaries: Binaries) -> None:
    for program in astuple(binaries):
        if program.name != missing:
            link(tmp_path / program.name, program)
    text = problem(tmp_path, NOWHERE)
    assert f"no {missing} beside" in text
    assert "qemu-utils" in text


def test_a_companion_that_is_something_else() -> None:
    wrong = shutil.which("true")
    assert wrong is not None
    environ = {**os.environ, "QEMU_IMG_PROG": wrong}
    assert f"{wrong} is no qemu-img" in problem(None, environ)
