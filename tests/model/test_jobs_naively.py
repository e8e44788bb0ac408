"""Jobs in flight, drawn at random: the model against the naive one, step by step."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.model.compare import check_contents, checked, same
from tests.model.naive import NaiveBitmap
from tests.model.naive_jobs import CLUSTER, NaiveJobs
from tests.sensitivity.variants import VARIANTS

from qbprop_model.expectation import Anonymous
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BlockdevBackup,
    CreateImage,
    Discard,
    InvalidOperationError,
    JobCancel,
    JobComplete,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    Layer,
    OpenOutcomeError,
    Operation,
    Read,
    Transaction,
    Write,
    WriteZeroes,
)
from qbprop_model.world import World

SIZES = {"drive0": 5 * CLUSTER + 512, "drive1": 3 * CLUSTER}
TARGETS = {"target0": SIZES["drive0"], "target1": SIZES["drive1"], "target2": SIZES["drive0"]}
GRAINS = {("drive0", "a"): 4096, ("drive0", "b"): 2 * CLUSTER, ("drive1", "a"): CLUSTER}
NAMES = {"a": "bitmap0", "b": "bitmap1"}
HELD: dict[str, Any] = {"speed": 1, "max_workers": 1, "max_chunk": CLUSTER}
VERBS = (JobPause, JobResume, JobCancel, JobFinalize, JobDismiss, JobComplete, JobCancel)


@st.composite
def backups(draw: st.DrawFn, target: str, job: str) -> BlockdevBackup:
    """A backup of the disk that has the size of ``target``; most are held."""
    node = "drive1" if target == "target1" else "drive0"
    sync: Any = draw(st.sampled_from(("bitmap", "incremental", "bitmap", "full", "none")))
    modes: dict[str, Any] = {"sync": sync}
    if sync in ("bitmap", "incremental"):
        modes["bitmap"] = draw(st.sampled_from([NAMES[k] for n, k in GRAINS if n == node]))
    if sync == "bitmap":
        modes["bitmap_mode"] = draw(st.sampled_from(("always", "on-success", "never")))
    return BlockdevBackup(
        node=node,
        target=target,
        job=job,
        auto_finalize=draw(st.integers(0, 2)) > 0,
        auto_dismiss=draw(st.integers(0, 2)) > 0,
        **modes,
        **(HELD if draw(st.integers(0, 3)) else {}),
    )


@st.composite
def requests(draw: st.DrawFn) -> Operation:
    node = draw(st.sampled_from(("drive0", "drive0", "drive1")))
    offset = draw(st.integers(0, 5)) * CLUSTER + draw(st.sampled_from((0, 512, -512, 100)))
    offset = min(max(offset, 0), SIZES[node])
    length = draw(st.sampled_from((512, CLUSTER, 1, 0, 2 * CLUSTER, 10 * CLUSTER)))
    place: dict[str, Any] = {"offset": offset, "length": min(length, SIZES[node] - offset)}
    match draw(st.integers(0, 6)):
        case 0:
            return Discard(node=node, **place)
        case 1:
            return WriteZeroes(node=node, **place, unmap=draw(st.booleans()))
        case 2:
            read = draw(st.sampled_from(("target0", "target1", node)))
            return Read(node=read, offset=0, length=SIZES["drive1"])
        case _:
            return Write(node=node, **place, stamp=draw(st.integers(1, 9)))


@st.composite
def steps(draw: st.DrawFn) -> Operation:
    """Any one operation."""
    job = draw(st.sampled_from(("job0", "job0", "job1", "job2")))
    match draw(st.integers(0, 11)):
        case 0:
            return draw(backups(draw(st.sampled_from(sorted(TARGETS))), job))
        case 1:
            pair = (draw(backups("target0", "job0")), draw(backups("target1", "job1")))
            return Transaction(actions=pair, grouped=draw(st.integers(0, 3)) > 0)
        case 2:
            cls = draw(st.sampled_from((BitmapClear, BitmapEnable, BitmapDisable)))
            node, key = draw(st.sampled_from(sorted(GRAINS)))
            return cls(node=node, name=NAMES[key])
        case 3:
            return JobSetSpeed(job=job, speed=draw(st.integers(0, 1)))
        case 4 | 5 | 6 | 7 | 8:
            block = draw(st.booleans())
            verb = draw(st.sampled_from(VERBS))
            force = {"force": draw(st.booleans())} if verb is JobCancel and block else {}
            return verb(job=job, block=block, **force)
        case _:
            return draw(requests())


@st.composite
def stories(draw: st.DrawFn) -> list[Operation]:
    """Guests write, jobs start, and then anything; twice."""
    found: list[Operation] = []
    for _ in range(2):
        for node, size in SIZES.items():
            found.append(Write(node=node, offset=0, length=CLUSTER + 1, stamp=1))
            found.append(Write(node=node, offset=size - 512, length=512, stamp=2))
        if draw(st.booleans()):
            found.append(draw(backups("target0", "job0")))
        else:
            pair = (draw(backups("target0", "job0")), draw(backups("target1", "job1")))
            found.append(Transaction(actions=pair, grouped=draw(st.integers(0, 3)) > 0))
        found += [draw(steps()) for _ in range(draw(st.integers(1, 8)))]
    return found


def topology() -> list[Operation]:
    found: list[Operation] = [
        AddDisk(node=name, layers=(Layer(size=size, format="raw"),), discard="unmap")
        for name, size in SIZES.items()
    ]
    found += [
        CreateImage(image=name, layer=Layer(size=size, format="raw"))
        for name, size in TARGETS.items()
    ]
    found += [
        BitmapAdd(node=node, name=NAMES[key], granularity=grain)
        for (node, key), grain in GRAINS.items()
    ]
    return found


def compare(operations: list[Operation], world: World) -> Counter[tuple[str, str]]:
    """Perform operations on both; how often which end met which bitmap mode."""
    for operation in topology():
        world.apply(operation)
    naive = NaiveJobs(SIZES, TARGETS)
    for (node, key), grain in GRAINS.items():
        naive.bitmaps[node, NAMES[key]] = NaiveBitmap(grain, recording=True)
    met: Counter[tuple[str, str]] = Counter()
    for operation in operations:
        before = dict(world.jobs)
        try:
            expected = world.apply(operation)
        except InvalidOperationError:
            continue
        try:
            answer = naive.apply(operation)
        except OpenOutcomeError as unknown:
            raise AssertionError(f"the model knows what is open: {unknown}") from None
        same("refusal", expected.refusal and expected.refusal.reason, answer.reason)
        if expected.data is not None:
            same("data", expected.data.tobytes(), answer.data)
        if answer.reason is None:
            same("ends", dict(expected.jobs), dict(answer.jobs))
        check_state(world, naive)
        for job_id, end in expected.jobs.items():
            job = before.get(job_id)
            if job is not None and job.bitmap is not None:
                met[f"{job.status} {'failed' if end.error else 'ok'}", job.bitmap_mode] += 1
    for name, contents in world.final().contents.items():
        if name not in naive.vague:
            check_contents(name, contents, bytes(naive.bytes[name]))
    return met


def check_state(world: World, naive: NaiveJobs) -> None:
    """Jobs, bitmaps with and without a name, exactly."""
    expected = world.final()
    shown = {job_id: job.state for job_id, job in naive.jobs.items()}
    for job_id, state in expected.alive.items():
        if state.offset is not None:
            same(job_id, state, shown[job_id])
    same("jobs", sorted(expected.alive), sorted(shown))
    for (node, name), bitmap in naive.bitmaps.items():
        same(f"{node} {name}", expected.bitmaps[node][name], bitmap.state())
        same(f"digest of {name}", expected.digests[node, name], bitmap.digest(SIZES[node]))
    nameless = [
        Anonymous(node, bitmap.granularity, len(bitmap.successor) * bitmap.granularity, rec)
        for (node, _), bitmap in naive.bitmaps.items()
        for rec in (bitmap.recording,)
        if bitmap.successor is not None
    ]
    nameless += [
        Anonymous(job.op.node, CLUSTER, len(job.rest) * CLUSTER, recording=False)
        for job in naive.active()
    ]
    told = [each for each in expected.anonymous if not each.node.startswith("#")]
    same("nameless bitmaps", sorted(told), sorted(nameless))


@checked(150)
@given(stories())
def test_jobs_in_flight_go_as_in_the_naive_model(operations: list[Operation]) -> None:
    compare(operations, World())


def until(status: str, mode: str) -> list[Operation]:
    """A story that leaves job0 with this status: dirty before its start, and written to since."""
    writes = [Write(node=n, offset=k * CLUSTER, length=9, stamp=k) for n in SIZES for k in (0, 2)]
    given = {"sync": "bitmap", "bitmap_mode": mode, "bitmap": "bitmap0"}
    one: dict[str, Any] = {"node": "drive0", "target": "target0"} | given
    other: dict[str, Any] = {"node": "drive1", "target": "target1", "job": "job1"} | given
    start: Operation = BlockdevBackup(**one, **HELD)
    if status == "waiting":
        members = (BlockdevBackup(**one), BlockdevBackup(**other, **HELD))
        start = Transaction(actions=members, grouped=True)
    if status == "pending":
        start = BlockdevBackup(**one, auto_finalize=False)
    pause = [JobPause(job="job0")] if status == "paused" else []
    since = Write(node="drive0", offset=3 * CLUSTER + 512, length=CLUSTER, stamp=7)
    return [*writes, start, *pause, since]


@pytest.mark.parametrize("mode", ["on-success", "always", "never"])
@pytest.mark.parametrize("status", ["running", "paused", "waiting", "pending"])
def test_every_outcome_of_the_table(status: str, mode: str) -> None:
    """Table 6.3: by the status in which a job is cancelled, or ends well, and by bitmap mode."""
    ends = [JobSetSpeed(job="job0"), JobSetSpeed(job="job1"), JobResume(job="job0")]
    well: list[Operation] = [*ends, JobFinalize(job="job0")]
    for how, last in (("failed", [JobCancel(job="job0")]), ("ok", well)):
        met = compare([*until(status, mode), *last], World())
        assert any(cell[0].endswith(how) and cell[1] == mode for cell in met)
        assert how == "ok" or met[f"{status} failed", mode]


@pytest.mark.parametrize(
    "name",
    [
        "always-forgets-the-last",
        "cancel-forgets-the-successor",
        "paused-copies-nothing",
        "pending-cancel-is-none",
        "resume-copies-one-more",
    ],
)
def test_the_naive_model_contradicts_a_wrong_rule(name: str) -> None:
    @settings(checked(400), phases=[Phase.generate])
    @given(stories())
    def all_agree(operations: list[Operation]) -> None:
        with VARIANTS[name].active() as rules:
            compare(operations, World(rules))

    with pytest.raises(AssertionError):
        all_agree()
