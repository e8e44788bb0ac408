"""What a crash is named after: the same on every build, and another for another bug."""

import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

from qbprop.autopsy import LIMIT, Autopsy, as_before
from qbprop.findings import CountFinding, CrashFinding, Finding
from qbprop.hazards import Hazards
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.process import QemuDied
from qbprop.qemu.symbols import global_functions
from qbprop.replay import play
from qbprop.session import cause_of_death
from qbprop.trace import read_trace

TRACES = Path(__file__).parents[2] / "src/qbprop/known_traces"

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


@pytest.fixture
def lab(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A QEMU that is known to crash; nothing is named after what led to it."""
    monkeypatch.setattr(Hazards, "explains", lambda *_: None)
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    with lab.driver() as driver:
        if not driver.version.startswith("7.2."):
            pytest.skip("the bugs are those of QEMU 7.2")
    return lab


def crash(lab: Lab, name: str) -> Finding:
    with lab.session() as session:
        finding = play(session, read_trace(TRACES / f"{name}.jsonl").examples)
    assert finding is not None
    return finding


def segfault(functions: tuple[str, ...] = ()) -> CrashFinding:
    return CrashFinding("write", "SIGSEGV, ok due", "life", "death", functions=functions)


@needs_gdb
def test_a_crash_is_named_after_the_functions_that_it_happens_in(lab: Lab) -> None:
    merge, enable = crash(lab, "merge-of-nothing"), crash(lab, "failed-enable")
    assert merge.functions == ("hbitmap_free", "block_dirty_bitmap_merge")
    assert merge.title.endswith("SIGSEGV in hbitmap_free < block_dirty_bitmap_merge")
    assert enable.functions == ("bdrv_disable_dirty_bitmap", "qmp_transaction")
    assert crash(lab, "merge-of-nothing").id == merge.id


@needs_gdb
def test_the_way_of_the_guests_requests_does_not_matter(lab: Lab) -> None:
    by_monitor = Lab(lab.binaries, transport="hmp")
    assert crash(by_monitor, "merge-of-nothing").id == crash(lab, "merge-of-nothing").id


def test_without_gdb_the_signal_is_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "gdb" else found(name))
    finding = crash(lab, "merge-of-nothing")
    assert (finding.functions, finding.id) == ((), finding.coarse_id)
    assert finding.title.endswith("SIGSEGV, ok due")


def test_what_does_not_crash_once_more_has_no_functions(lab: Lab) -> None:
    assert Autopsy(lab)._examine(read_trace(TRACES / "always-undone.jsonl").examples[0][:2]) == ()


def test_one_signal_in_two_functions_is_two_findings() -> None:
    one, other, coarse = segfault(("a", "b")), segfault(("c", "b")), segfault()
    assert len({one.id, other.id, coarse.id}) == 3
    assert CrashFinding("write", "SIGSEGV, x due", "", "", functions=("a", "b")).id == one.id
    assert one.coarse_id == other.coarse_id == coarse.coarse_id == coarse.id


def test_with_gdb_and_without_a_finding_is_the_same() -> None:
    one, other, coarse = segfault(("a", "b")), segfault(("c", "b")), segfault()
    assert one.is_named(one.id, one.title)
    assert not one.is_named(other.id, other.title)
    assert one.is_named(coarse.id, coarse.title)
    assert coarse.is_named(one.id, one.title)
    elsewhere = CrashFinding("read", coarse.aspect, "", "", functions=one.functions)
    assert not coarse.is_named(elsewhere.id, elsewhere.title)
    lost = CountFinding("write", "lost", "", "")
    assert lost.is_named(lost.id, lost.title)
    assert not lost.is_named(one.id, one.title)
    in_use = CountFinding("resize", "the device is in use", "", "")
    assert in_use.is_named(in_use.id, in_use.title)


def test_only_some_deaths_are_looked_into(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = mock.Mock(side_effect=[(f"f{number}",) for number in range(2 * LIMIT)])
    monkeypatch.setattr(Autopsy, "_examine", looked)
    examine = Autopsy(lab)
    told = [examine(segfault()) for _ in range(2 * LIMIT)]
    assert len(set(told)) == LIMIT
    assert set(told[LIMIT:]) == {told[LIMIT - 1]}


def test_what_once_did_not_come_back_stays_without_functions(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autopsy, "_examine", mock.Mock(side_effect=[("f",), (), ("g",)]))
    examine = Autopsy(lab)
    assert [examine(segfault()) for _ in range(3)] == [("f",), (), ()]


def test_while_a_crash_is_shrunk_those_like_it_are_taken_to_be_it() -> None:
    locate = as_before(segfault(("a", "b")), lambda _: ("other",))
    assert locate(segfault()) == ("a", "b")
    assert locate(CrashFinding("read", "SIGSEGV, ok due", "", "")) == ("other",)
    assert as_before(None, lambda _: ("other",))(segfault()) == ("other",)


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("q: ../block/x.c:12: f: Assertion `a == 0' failed.", "f: a == 0"),
        ("**\nERROR:../block/x.c:12:f: assertion failed: (a == b)\nBail out!", "f: a == b"),
        ("**\nERROR:../x.c:12:f: assertion failed (a == b): (1 == 2)", "f: a == b"),
        ("**\nERROR:../x.c:9:f: code should not be reached", "f: code should not be reached"),
        (
            "SUMMARY: AddressSanitizer: heap-use-after-free ../block/x.c:12:3 in f",
            "heap-use-after-free: f",
        ),
        ("", "SIGABRT"),
    ],
)
def test_an_assertion_tells_more_than_the_signal(stderr: str, cause: str) -> None:
    assert cause_of_death(QemuDied(-6, stderr)) == cause


def test_the_functions_of_a_program_that_others_can_call() -> None:
    functions = global_functions(Path(sys.executable).resolve())
    assert "Py_BytesMain" in functions
    assert global_functions(Path(__file__)) == frozenset()
