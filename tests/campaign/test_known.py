"""Lists of known findings."""

from dataclasses import fields
from pathlib import Path

import pytest

from qbprop.campaign.known import (
    KnownFinding,
    harmless_to,
    known_ids,
    read_known,
    shipped_known,
)
from qbprop.errors import EnvironmentProblem
from qbprop.hazards import EMPTY_MERGE, TWO_BACKUPS, Hazard
from qbprop.qemu.features import Features


def test_the_shipped_list_can_be_read() -> None:
    titles = [entry.title for entry in shipped_known()]
    assert len(titles) == len(set(titles)) > 30


def test_an_entry_concerns_the_versions_it_names() -> None:
    entry = KnownFinding(id="1", title="", qemu=("7.2", "9"))
    assert entry.concerns("7.2.22")
    assert entry.concerns("7.2")
    assert entry.concerns("9.1.0")
    assert not entry.concerns("7.20.1")
    assert not entry.concerns("7.1.0")
    assert not entry.concerns("90.0")
    assert KnownFinding(id="1", title="").concerns("1.0")


def test_a_range_of_versions_includes_both_ends() -> None:
    entry = KnownFinding(id="1", title="", qemu=("5.2..8.0",))
    for version in ("5.2.0", "5.10", "7.2.22", "8.0.4"):
        assert entry.concerns(version), version
    for version in ("4.2.1", "5.1.9", "8.1.0", "10.0.13"):
        assert not entry.concerns(version), version


def test_an_entry_may_depend_on_what_a_qemu_can_do() -> None:
    able = Features("9.0", *[True] * (len(fields(Features)) - 1))
    unable = Features("9.0", *[False] * (len(fields(Features)) - 1))
    entry = KnownFinding(id="1", title="", feature="blockdev_reopen")
    assert entry.concerns("9.0", able)
    assert not entry.concerns("9.0", unable)
    lacking = KnownFinding(id="1", title="", feature="!blockdev_reopen")
    assert not lacking.concerns("9.0", able)
    assert lacking.concerns("9.0", unable)


def test_what_was_tried_and_did_no_harm_names_nothing() -> None:
    def harmless(*versions: str) -> frozenset[Hazard]:
        rest = [True] * (len(fields(Features)) - 1)
        return harmless_to([Features(each, *rest) for each in versions], shipped_known())

    assert TWO_BACKUPS in harmless("10.0.13")
    assert EMPTY_MERGE not in harmless("10.0.13")
    assert TWO_BACKUPS not in harmless("7.2.22")
    assert TWO_BACKUPS not in harmless("10.0.13", "7.2.22")
    assert EMPTY_MERGE in harmless("5.2.0")
    for untried in ("8.1.0", "11.2.0"):
        assert harmless(untried) == frozenset()


def test_a_list_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        '[[finding]]\nid = "a"\ntitle = "one"\n[[finding]]\nid = "b"\ntitle = "two"\nqemu = ["8"]\n'
    )
    assert known_ids(read_known(path), "7.2.0") == {"a": "one"}
    assert known_ids(read_known(path), "8.2.0") == {"a": "one", "b": "two"}


@pytest.mark.parametrize(
    "text",
    [
        "[[finding]",
        '[[finding]]\nid = "a"',
        '[[finding]]\nid = 7\ntitle = "x"',
        '[[finding]]\nid = "a"\ntitle = "x"\nversion = "7"',
        '[[finding]]\nid = "a"\ntitle = "x"\nqemu = "7.2"',
        "findings = []",
        '[[finding]]\nid = "a"\ntitle = "x"\nfeature = "none"',
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(EnvironmentProblem, match=r"known\.toml: .*correct the list") as caught:
        read_known(path)
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No such file"):
        read_known(tmp_path / "none.toml")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(EnvironmentProblem, match="not UTF-8"):
        read_known(binary)
