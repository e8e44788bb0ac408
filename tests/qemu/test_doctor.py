"""The doctor tells what is there, and how to get what is not."""

import os
import shutil
from pathlib import Path

import pytest

from qbprop.qemu import doctor, scratch
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.doctor import Mark, Report, examine
from qbprop.qemu.features import TABLE
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.scratch import file_system, scratch_root


def line(report: Report, topic: str) -> doctor.Line:
    (found,) = [line for line in report.lines if line.topic == topic]
    return found


def test_a_whole_environment_is_usable(binaries: Binaries, qemu: QemuProcess) -> None:
    report = examine(None)
    assert report.usable
    assert report.text().endswith("\nready")
    assert line(report, "qemu").found.startswith(qemu.features.version)
    assert str(binaries.system) in line(report, "qemu").found
    assert str(binaries.img) in line(report, "qemu-img").found
    assert str(binaries.io) in line(report, "qemu-io").found
    for feature in TABLE:
        mark = Mark.FINE if getattr(qemu.features, feature.name) else Mark.MISSING
        assert any(
            line.mark is mark and line.found.startswith(feature.what) for line in report.lines
        )


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    assert examine(None, {**os.environ, "TMPDIR": str(tmp_path)}).usable
    assert list(tmp_path.iterdir()) == []


def test_without_qemu_the_rest_is_still_told() -> None:
    report = examine(None, {"PATH": "/nonexistent"})
    assert not report.usable
    assert "install QEMU (Debian: qemu-system-x86)" in line(report, "qemu").found
    assert line(report, "hypothesis").mark is Mark.FINE
    assert "not usable" in report.text()


def test_a_missing_library_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_libnbd_version", lambda: None)
    guest = line(examine(None), "guest I/O")
    assert guest.mark is Mark.MISSING
    assert "HMP qemu-io" in guest.found
    assert "python3-libnbd" in guest.remedy


def test_programs_of_two_versions_are_pointed_out(tmp_path: Path) -> None:
    other = tmp_path / "qemu-img"
    other.write_text("#!/bin/sh\necho qemu-img version 99.1\n")
    other.chmod(0o755)
    report = examine(None, {**os.environ, "QEMU_IMG_PROG": str(other)})
    assert line(report, "qemu-img").mark is Mark.MISSING
    assert "99.1" in line(report, "qemu-img").found
    assert "another version" in line(report, "qemu-img").found
    assert line(report, "qemu-io").mark is Mark.FINE


def test_a_folder_that_cannot_be_used_makes_it_unusable() -> None:
    report = examine(None, {**os.environ, "TMPDIR": "/nonexistent"})
    assert not report.usable
    assert line(report, "images").mark is Mark.UNUSABLE
    assert "TMPDIR" in line(report, "images").remedy


def test_images_go_where_tmpdir_says(tmp_path: Path) -> None:
    assert scratch_root({"TMPDIR": str(tmp_path)}) == tmp_path


def test_images_go_to_memory_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    if file_system(scratch.SHARED_MEMORY) != "tmpfs":
        pytest.skip("no tmpfs here")
    free = shutil.disk_usage(scratch.SHARED_MEMORY).free
    monkeypatch.setattr(scratch, "ROOM", free // 2)
    assert scratch_root({}) == scratch.SHARED_MEMORY
    monkeypatch.setattr(scratch, "ROOM", free * 2)
    assert scratch_root({}) != scratch.SHARED_MEMORY


def test_the_type_of_a_file_system() -> None:
    assert file_system(Path("/proc/self")) == "proc"


def test_without_gdb_a_campaign_can_run_all_the_same(tmp_path: Path) -> None:
    for program in ("qemu-system-x86_64", "qemu-img", "qemu-io", "setpriv"):
        found = shutil.which(program)
        if found is not None:
            (tmp_path / program).symlink_to(found)
    gdb = line(examine(None, {"PATH": str(tmp_path)}), "gdb")
    assert gdb.mark is Mark.MISSING
    assert "apt install gdb" in gdb.remedy
