"""Reproducers in bash: they show what their trace shows, and nothing on a QEMU that behaves."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from tests.export.stories import HEALTHY, IN_FLIGHT, STOPPED
from tests.sensitivity.variants import VARIANTS

from qbprop.campaign.certificate import one_less
from qbprop.campaign.known import shipped_known
from qbprop.export import iotest, sh
from qbprop.export.certify import BEHAVES, BUG, UNTRIED, export_sh, run
from qbprop.export.patterns import json_text, reply_pattern
from qbprop.export.sh import render
from qbprop.export.sh_script import Transport
from qbprop.export.sh_steps import calls
from qbprop.export.story import About, ExportError, tell
from qbprop.findings import KINDS
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import Features
from qbprop.replay import play
from qbprop.trace import Trace, read_trace
from qbprop_model.data import Stamp
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.operations import (
    BITMAPS,
    AddDisk,
    BitmapAdd,
    BitmapRemove,
    ExportAdd,
    ExportDel,
    ExportedBitmap,
    Layer,
    Migrate,
    Operation,
    ReadDirtyExtents,
    Resize,
    Transaction,
    Write,
)

HERE = Path(__file__).parent
WRONG = sorted((HERE / "variants").glob("*.jsonl"))
BUGS = sorted((HERE.parents[1] / "src/qbprop/known_traces").glob("*.jsonl"))

ABOUT = About(id="0123456789ab", kind="", title="a test")


ODD = BITMAPS[5]
EXPORTED: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=131584),)),
    BitmapAdd(node="drive0", name=ODD, granularity=512),
    BitmapAdd(node="drive0", name="off", disabled=True),
    ExportAdd(export="export0", node="drive0", bitmaps=(ExportedBitmap(name="none"),)),
    ExportAdd(export="export0", node="drive0", bitmaps=(ExportedBitmap(name=ODD),), writable=True),
    ExportAdd(export="export1", node="drive0", bitmaps=(ExportedBitmap(name="off"),)),
    ExportDel(export="export1"),
    ExportDel(export="export1"),
    Resize(node="drive0", size=65536),
    BitmapRemove(node="drive0", name=ODD),
    ReadDirtyExtents(export="export0", bitmap="off", offset=0, length=512),
    ReadDirtyExtents(export="export1", bitmap=ODD, offset=0, length=512),
    Write(node="drive0", offset=1000, length=3000, fill=1),
    Write(node="drive0", offset=70000, length=1, fill=1),
    Write(node="drive0", offset=131583, length=1, fill=1),
    ReadDirtyExtents(export="export0", bitmap=ODD, offset=2000, length=129584),
)
"""Exports, refused and made, deleted and left; a client that asks for a part of a bitmap."""


@pytest.fixture(scope="module")
def lab(pytestconfig: pytest.Config) -> Lab:
    return Lab(find_binaries(pytestconfig.getoption("--qemu")), timeout=2.0)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sh, "PATIENCE", 2)


def judged(kind: str, features: Features) -> int:
    """The end of a script that finds no bug; before 6.1 qemu-img tells no allocations."""
    return UNTRIED if kind == "image-check" and not features.blockdev_reopen else BEHAVES


def check_possible(lab: Lab, trace: Trace) -> None:
    """Leave out the test of a trace that holds what this QEMU cannot do, or tell."""
    finding = trace.header.finding
    with lab.driver() as driver:
        if not all(map(driver.can_perform, trace.examples[-1])):
            pytest.skip("this QEMU has not all that it takes")
        if finding is not None and judged(finding.kind, driver.features) == UNTRIED:
            pytest.skip("this qemu-img does not tell what an image has of its own")


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_rule_is_contradicted_and_a_right_one_is_not(lab: Lab, path: Path) -> None:
    trace = read_trace(path)
    check_possible(lab, trace)
    with VARIANTS[path.stem].active() as rules:
        wrong = export_sh(lab, trace, rules)
    assert (wrong.due, wrong.code) == (BUG, BUG), wrong.output
    right = export_sh(lab, trace)
    assert (right.due, right.code) == (BEHAVES, BEHAVES), right.output


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_no_operation_can_be_left_out(lab: Lab, path: Path) -> None:
    trace = read_trace(path)
    named = trace.header.finding
    assert named is not None
    check_possible(lab, trace)
    with VARIANTS[path.stem].active() as rules, lab.session(rules) as session:
        found = play(session, trace.examples)
        assert found is not None
        assert found.id == named.id
        for shorter in one_less(trace.examples):
            finding = play(session, shorter)
            assert finding is None or finding.id != named.id


def test_there_are_enough_and_they_are_short() -> None:
    lengths = [read_trace(path).length for path in WRONG]
    assert len(lengths) >= 20
    assert median(lengths) <= 6
    assert max(lengths) <= 12


@pytest.mark.parametrize("path", BUGS, ids=lambda path: path.stem)
def test_a_bug_of_qemu_is_there(lab: Lab, path: Path) -> None:
    trace = read_trace(path)
    entries = [entry for entry in shipped_known() if entry.trace == path.stem]
    with lab.session() as session:
        features = session.driver.features
    if not any(entry.concerns(features.version, features) for entry in entries):
        pytest.skip("this QEMU is not known to have it")
    if any(isinstance(operation, Migrate) for operation in trace.examples[-1]):
        pytest.skip("a script has one QEMU at a time")
    made = export_sh(lab, trace)
    assert (made.due, made.code) == (BUG, BUG), made.output
    assert "RESULT: the bug is there" in made.output


@pytest.mark.parametrize("transport", ["nbd", "hmp"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_check_fails_where_qemu_does_as_the_model_says(
    lab: Lab, features: Features, kind: str, transport: Transport
) -> None:
    story = tell([HEALTHY, HEALTHY[:3]], kind)
    code, output = run(render(story, ABOUT, transport), lab.binaries)
    assert code == judged(kind, features), output


@pytest.mark.needs("blockdev_backup_x_perf")
@pytest.mark.parametrize("transport", ["nbd", "hmp"])
@pytest.mark.parametrize("kind", ["jobs", "count", "contents", "image-check"])
@pytest.mark.parametrize("length", [6, 9, 11])
def test_jobs_in_flight_are_waited_for_and_ended(
    lab: Lab, kind: str, transport: Transport, length: int
) -> None:
    with lab.driver() as driver:
        traits = driver.features.traits
    story = tell([IN_FLIGHT[:length], HEALTHY[:3]], kind, traits=traits)
    assert any(scene.alive for scene in story.examples[0])
    code, output = run(render(story, ABOUT, transport), lab.binaries)
    assert code == BEHAVES, output
    story = tell([HEALTHY[:3], IN_FLIGHT[:length]], kind, traits=traits)
    code, output = run(render(story, ABOUT, transport), lab.binaries)
    assert code == BEHAVES, output


@pytest.mark.needs("blockdev_backup_x_perf")
@pytest.mark.parametrize("length", [4, 5, 6])
def test_a_job_that_stops_at_an_error_is_waited_for(lab: Lab, length: int) -> None:
    story = tell([STOPPED[:length]], "jobs")
    code, output = run(render(story, ABOUT, "nbd"), lab.binaries)
    assert code == BEHAVES, output


def test_a_job_in_another_state_is_the_bug(lab: Lab) -> None:
    text = render(tell([IN_FLIGHT[:5]], "jobs"), ABOUT, "nbd")
    for old, new in (
        ('"status": "pending"', '"status": "running"'),
        ("check_jobs 1", "check_jobs 0"),
        ("waiting pending", "waiting waiting pending"),
    ):
        before, heading, after = text.partition("# What must be true now")
        assert old in after
        code, output = run(before + heading + after.replace(old, new), lab.binaries)
        assert code == BUG, output


@pytest.mark.parametrize("transport", ["nbd", "hmp"])
@pytest.mark.parametrize("kind", ["reply", "fields", "dirty-set", "image-check"])
def test_exports_are_made_and_left(
    lab: Lab, features: Features, kind: str, transport: Transport
) -> None:
    story = tell([EXPORTED, EXPORTED], kind)
    code, output = run(render(story, ABOUT, transport), lab.binaries)
    assert code == judged(kind, features), output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2000-4096", "512-4096"),
        (" 69632-70144", ""),
        ("131072-131584", "131072-131584 131584-132096"),
        ("check_dirty 2000", "check_dirty 1000"),
    ],
)
def test_other_extents_are_the_bug(lab: Lab, old: str, new: str) -> None:
    text = render(tell([EXPORTED], "dirty-set"), ABOUT, "nbd")
    before, heading, after = text.partition("# What must be true now")
    assert old in after
    code, output = run(before + heading + after.replace(old, new), lab.binaries)
    assert code == BUG, output


@pytest.mark.parametrize(
    "last",
    [
        ExportDel(export="export0"),
        ReadDirtyExtents(export="export0", bitmap=ODD, offset=0, length=0),
        ReadDirtyExtents(export="export0", bitmap=ODD, offset=0, length=131585),
    ],
)
def test_what_needs_a_client_of_its_own_is_said_to_have_no_rendering(last: Operation) -> None:
    with pytest.raises(ExportError, match="client"):
        render(tell([(*EXPORTED, last)], "reply"), ABOUT, "nbd")


def test_a_test_for_the_suite_makes_exports_but_has_no_client() -> None:
    text = iotest.render(tell([EXPORTED[:10], EXPORTED[:5]], "fields"), ABOUT)
    compile(text, "test", "exec")
    assert text.count("nbd-server-start") == 1
    assert text.count("BLOCK_EXPORT_DELETED") == 2
    with pytest.raises(ExportError, match="a client reads dirty extents"):
        iotest.render(tell([EXPORTED], "fields"), ABOUT)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("count", '"count": 65536', '"count": 0'),
        ("fields", '"recording": true', '"recording": false'),
        ("fields", "check_node drive0 300032", "check_node drive0 300544"),
        ("fields", "check_node drive0 300032 2", "check_node drive0 300032 1"),
        ("dirty-set", "has ", "has 0000"),
        ("contents", "stamp 4 1000 3333", "stamp 5 1000 3333"),
    ],
)
def test_a_check_that_is_made_wrong_fails(lab: Lab, kind: str, old: str, new: str) -> None:
    text = render(tell([HEALTHY[:7]], kind), ABOUT, "nbd")
    before, heading, after = text.partition("# What must be true now")
    assert old in after
    code, output = run(before + heading + after.replace(old, new), lab.binaries)
    assert code == BUG, output


def test_another_course_before_the_step_in_question_cannot_be_tried(lab: Lab) -> None:
    text = render(tell([HEALTHY[:5]], "count"), ABOUT, "nbd")
    code, output = run(text.replace('"granularity": 512', '"granularity": 513'), lab.binaries)
    assert (code, "could not be tried" in output) == (UNTRIED, True), output


def test_a_qemu_that_is_silent_or_missing(lab: Lab, tmp_path: Path) -> None:
    silent = tmp_path / "qemu"
    silent.write_text("#!/bin/bash\nread -r -t 60 line\n")
    silent.chmod(0o755)
    text = render(tell([HEALTHY[:4]], "count"), ABOUT, "nbd")
    code, output = run(text, replace(lab.binaries, system=silent))
    assert (code, "was silent" in output) == (UNTRIED, True), output
    code, output = run(text, replace(lab.binaries, system=tmp_path / "none"))
    assert (code, "not to be found" in output) == (UNTRIED, True), output


def test_a_program_that_does_not_end_is_said_so(lab: Lab, tmp_path: Path) -> None:
    endless = tmp_path / "qemu-io"
    endless.write_text("#!/bin/bash\nexec sleep 5\n")
    endless.chmod(0o755)
    disk = AddDisk(node="drive0", layers=(Layer(size=65536),))
    written = Write(node="drive0", offset=0, length=512, fill=1)
    text = render(tell([(disk, written)], "hang"), ABOUT, "nbd")
    code, output = run(text, replace(lab.binaries, io=endless))
    assert (code, "no end within 2 seconds" in output) == (BUG, True), output


def test_bash_and_python_make_the_same_stamped_data(tmp_path: Path) -> None:
    text = render(tell([HEALTHY], "contents"), ABOUT, "nbd")
    function = text[text.index("stamp() {") :].partition("\n}\n")[0] + "\n}\n"
    for number, offset, length in ((1, 0, 512), (2, 1000, 700), (2**32 - 1, 12345, 3000)):
        script = f"{function}stamp {number} {offset} {length} out\n"
        subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
        made = (tmp_path / "out").read_bytes()[:length]
        assert made == Stamp(number).render(offset, length).tobytes()


def test_nothing_is_left_behind(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "reproduce.sh"
    script.write_text(render(tell([HEALTHY[:4]], "count"), ABOUT, "nbd"))
    images = tmp_path / "images"
    images.mkdir()
    environment = {
        "PATH": os.defpath,
        "TMPDIR": str(images),
        "QEMU_PROG": str(lab.binaries.system),
        "QEMU_IMG_PROG": str(lab.binaries.img),
        "QEMU_IO_PROG": str(lab.binaries.io),
    }
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True)
    assert list(images.iterdir()) == []


def test_patterns_fit_what_qemu_writes() -> None:
    pattern = reply_pattern(Refusal(Reason.BITMAP_NOT_FOUND, 'ü"\\.'))
    assert pattern == r'''"desc": "Dirty bitmap '\\u00FC\\"\\\\\.' not found"'''
    assert json_text("ü") == r'"\u00FC"'


def test_a_step_of_an_unknown_kind_is_refused_by_its_name() -> None:
    with pytest.raises(ExportError, match="object cannot be exported"):
        next(calls(object(), None))  # type: ignore[arg-type]


def test_a_transaction_of_nothing_needs_no_checks(lab: Lab) -> None:
    made = export_sh(lab, Trace(((HEALTHY[0], Transaction()),)))
    assert (made.due, made.code) == (BEHAVES, BEHAVES), made.output
