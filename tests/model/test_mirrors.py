"""Mirrors, against a second, naive implementation: one array per disk, one bool per sector."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbprop_model.data import Bytes
from qbprop_model.expectation import FOLLOWS, Reason
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BlockCommit,
    BlockdevMirror,
    BlockdevSnapshot,
    BlockStream,
    CloseDisk,
    CopyMode,
    DriveBackup,
    Flush,
    InvalidOperationError,
    JobCancel,
    JobComplete,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    Layer,
    MirrorSync,
    OpenOutcomeError,
    Operation,
    Pattern,
    Read,
    Resize,
    Restart,
    Transaction,
    Write,
    WriteCompressed,
    WriteZeroes,
)
from qbprop_model.traits import Traits
from qbprop_model.world import World

SECTOR = 512
CHUNK = 65536
SIZE = 5 * CHUNK + 3 * SECTOR
PATTERNS = (Pattern(offset=CHUNK + 1000, length=2000, fill=3), Pattern(offset=0, length=9, fill=4))
SOURCE = AddDisk(
    node="drive0",
    layers=(
        Layer(size=SIZE, data=(Pattern(offset=2 * CHUNK, length=100, fill=5),)),
        Layer(size=3 * CHUNK, data=PATTERNS),
    ),
)
TARGET = AddDisk(
    node="drive1",
    layers=(Layer(size=SIZE, data=(Pattern(offset=4 * CHUNK, length=SECTOR, fill=9),)),),
)
MIRROR = BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0")
BITMAPS = tuple(
    BitmapAdd(node=node, name="bits", granularity=SECTOR) for node in ("drive0", "drive1")
)


def world(*operations: Operation, traits: Traits | None = None) -> World:
    """A World behind some operations."""
    made = World(traits=traits)
    for operation in (SOURCE, TARGET, *BITMAPS, *operations):
        made.apply(operation)
    return made


def bytes_of(state: World, name: str) -> Bytes:
    """All bytes of a disk."""
    view = state.contents(name)
    assert view is not None
    return view.render(0, view.size)


def dirty(state: World, name: str) -> set[int]:
    """The sectors that a disk's bitmap has."""
    return set(np.flatnonzero(state.nodes[name].bitmaps["bits"].bits).tolist())


def sectors(start: int, end: int) -> set[int]:
    """The sectors that a range of bytes touches."""
    return set(range(start // SECTOR, -(-end // SECTOR)))


class Naive:
    """The target of a mirror: what was copied, and what is dirty."""

    def __init__(self, state: World, sync: MirrorSync, mode: CopyMode) -> None:
        self.mode = mode
        self.bytes = bytes_of(state, "drive1").copy()
        self.dirty: set[int] = set()
        source = bytes_of(state, "drive0")
        self.waiting: set[int] | None = None
        copied = {"full": range(6), "top": (2,), "none": ()}[sync]
        for chunk in copied:
            self.copy(source, chunk)

    def copy(self, source: Bytes, chunk: int) -> None:
        """One chunk becomes as it is in the source."""
        start, end = chunk * CHUNK, min((chunk + 1) * CHUNK, SIZE)
        self.bytes[start:end] = source[start:end]
        self.dirty |= sectors(start, end)

    def written(self, source: Bytes, offset: int, length: int) -> None:
        """A guest has written to the source."""
        chunks = set(range(offset // CHUNK, -(-(offset + length) // CHUNK)))
        if self.mode == "write-blocking":
            self.bytes[offset : offset + length] = source[offset : offset + length]
            self.dirty |= sectors(offset, offset + length)
        elif self.waiting is not None:
            self.waiting |= chunks
        else:
            for chunk in chunks:
                self.copy(source, chunk)

    def resumed(self, source: Bytes) -> None:
        """It goes on."""
        for chunk in self.waiting or ():
            self.copy(source, chunk)
        self.waiting = None


PLACES = st.tuples(st.integers(0, SIZE - 1), st.sampled_from((1, 512, 5000, 70_000)))
STEPS = st.lists(
    st.one_of(
        st.builds(lambda at, fill: (at, fill), PLACES, st.sampled_from((0, 7, None))),
        st.sampled_from(("pause", "resume")),
    ),
    max_size=8,
)


def write(state: World, step: tuple[tuple[int, int], int | None]) -> tuple[int, int]:
    """A guest's write, or of zeroes where there is no fill; its offset and length."""
    (offset, length), fill = step
    length = min(length, SIZE - offset)
    if fill is None:
        state.apply(WriteZeroes(node="filter0", offset=offset, length=length))
    else:
        state.apply(Write(node="filter0", offset=offset, length=length, fill=fill))
    return offset, length


@given(
    st.sampled_from(("full", "top", "none")),
    st.sampled_from(("background", "write-blocking")),
    STEPS,
)
def test_a_mirror_is_what_was_copied(
    sync: MirrorSync,
    mode: CopyMode,
    steps: list[tuple[tuple[int, int], int | None] | str],
) -> None:
    state = world()
    naive = Naive(state, sync, mode)
    state.apply(replace(MIRROR, sync=sync, copy_mode=mode))
    for step in steps:
        if step == "pause" and naive.waiting is None:
            naive.waiting = set()
            state.apply(JobPause(job="job0"))
        elif step == "resume" and naive.waiting is not None:
            state.apply(JobResume(job="job0"))
            naive.resumed(bytes_of(state, "drive0"))
        elif not isinstance(step, str):
            offset, length = write(state, step)
            naive.written(bytes_of(state, "drive0"), offset, length)
        assert bytes_of(state, "drive1").tobytes() == naive.bytes.tobytes()
        assert dirty(state, "drive1") == naive.dirty
    if naive.waiting is not None:
        state.apply(JobResume(job="job0"))
        naive.resumed(bytes_of(state, "drive0"))
    seen = state.apply(JobComplete(job="job0"))
    assert set(seen.contents) == {"drive0", "drive1"}
    assert not state.mirrors
    assert "filter0" not in state.nodes
    assert bytes_of(state, "drive1").tobytes() == naive.bytes.tobytes()
    assert dirty(state, "drive1") == naive.dirty
    if sync == "full":
        assert bytes_of(state, "drive1").tobytes() == bytes_of(state, "drive0").tobytes()


WRITE = Write(node="filter0", offset=CHUNK - 1, length=2, fill=1)


def test_what_was_copied_is_told_in_whole_chunks_cut_off_at_the_end() -> None:
    state = world()
    ready = state.apply(MIRROR).alive["job0"]
    assert (ready.status, ready.length, ready.kind) == ("ready", SIZE, "mirror")
    assert state.apply(WRITE).alive["job0"].length == SIZE + 2 * CHUNK
    last = state.apply(Write(node="filter0", offset=SIZE - 1, length=1, fill=1))
    assert last.alive["job0"].length == SIZE + 2 * CHUNK + 3 * SECTOR
    assert FOLLOWS in last.words["job0"]
    ended = state.apply(JobCancel(job="job0"))
    assert ended.jobs["job0"].error is Reason.JOB_CANCELLED


def test_with_discard_the_target_is_zeroed_first_and_less_is_copied() -> None:
    state = World()
    alone = AddDisk(node="drive2", layers=(SOURCE.layers[0],))
    for operation in (SOURCE, alone, replace(TARGET, discard="unmap"), *BITMAPS):
        state.apply(operation)
    assert state.apply(replace(MIRROR, node="drive2")).alive["job0"].length == CHUNK
    assert dirty(state, "drive1") == sectors(0, SIZE)
    assert bytes_of(state, "drive1").tobytes() == bytes_of(state, "drive2").tobytes()


def test_write_blocking_counts_what_guests_write() -> None:
    state = world(replace(MIRROR, sync="none", copy_mode="write-blocking"))
    seen = state.apply(WRITE)
    assert seen.alive["job0"].length == 2
    assert FOLLOWS not in seen.words["job0"]


@pytest.mark.parametrize(
    ("on_filter", "mode", "holder", "recording"),
    [
        (False, "background", "drive0", True),
        (False, "write-blocking", "drive0", False),
        (True, "background", "filter0", False),
    ],
)
def test_the_bitmap_of_a_mirror(
    on_filter: bool,  # noqa: FBT001
    mode: CopyMode,
    holder: str,
    recording: bool,  # noqa: FBT001
) -> None:
    state = world(
        replace(MIRROR, sync="none", copy_mode=mode),
        JobPause(job="job0"),
        traits=Traits(mirror_bitmap_on_filter=on_filter),
    )
    (nameless,) = state.apply(WRITE).anonymous
    assert (nameless.node, nameless.granularity, nameless.recording) == (holder, CHUNK, recording)
    assert nameless.count == (2 * CHUNK if mode == "background" else 0)


def test_known_zeroes_are_not_written() -> None:
    empty = AddDisk(node="drive1", layers=(Layer(size=4 * CHUNK),))
    source = AddDisk(node="drive0", layers=(Layer(size=4 * CHUNK),))
    zeroes = WriteZeroes(node="filter0", offset=CHUNK, length=CHUNK)
    for skips, due in ((False, sectors(0, 4 * CHUNK)), (True, set())):
        state = World(traits=Traits(commit_skips_zeroes=skips))
        for operation in (source, empty, *BITMAPS, MIRROR):
            state.apply(operation)
        assert dirty(state, "drive1") == due
        state.apply(BitmapClear(node="drive1", name="bits"))
        state.apply(zeroes)
        assert bool(dirty(state, "drive1")) == (not skips)
        state.apply(Write(node="filter0", offset=CHUNK, length=1, fill=1))
        assert dirty(state, "drive1") == sectors(CHUNK, 2 * CHUNK)


def test_zeroes_of_which_a_mirror_knows_some_are_not_judged() -> None:
    """Seen on 11.1: it writes them at once, and all of them where it has to write one chunk."""
    state = World(traits=Traits(commit_skips_zeroes=True))
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=4 * CHUNK, compat="0.10"),)),
        AddDisk(node="drive1", layers=(Layer(size=4 * CHUNK),)),
        *BITMAPS,
        MIRROR,
        Write(node="filter0", offset=CHUNK, length=1, fill=1),
        WriteZeroes(node="filter0", offset=3 * CHUNK, length=CHUNK),
        JobPause(job="job0"),
    ):
        assert state.apply(operation).refusal is None
    zeroes = WriteZeroes(node="filter0", offset=CHUNK, length=CHUNK, unmap=True)
    assert state.apply(zeroes).refusal is None
    alone, before = state.copy(), dirty(state, "drive1")
    assert alone.apply(JobResume(job="job0")).refusal is None
    assert dirty(alone, "drive1") == before | sectors(CHUNK, 2 * CHUNK)
    assert state.apply(replace(zeroes, offset=2 * CHUNK)).refusal is None
    with pytest.raises(OpenOutcomeError, match="at once"):
        state.apply(JobResume(job="job0"))


def test_commands_to_a_mirror() -> None:
    state = world(MIRROR)
    refusals: list[tuple[Operation, Reason | None]] = [
        (JobResume(job="job0"), Reason.NOT_PAUSED),
        (JobFinalize(job="job0"), Reason.VERB_REFUSED),
        (JobPause(job="job0"), None),
        (JobPause(job="job0"), Reason.ALREADY_PAUSED),
        (JobCancel(job="job0", block=True), Reason.CANCEL_PAUSED),
    ]
    for operation, reason in refusals:
        refusal = state.apply(operation).refusal
        assert (refusal and refusal.reason) == reason
    late: list[Operation] = [JobComplete(job="job0"), JobSetSpeed(job="job0", speed=1)]
    for operation in late:
        with pytest.raises(OpenOutcomeError):
            state.apply(operation)
    state.apply(WRITE)
    late = [JobCancel(job="job0"), Restart()]
    for operation in late:
        with pytest.raises(OpenOutcomeError):
            state.apply(operation)


@pytest.mark.parametrize("notices", [True, False])
def test_whether_a_mirror_of_an_empty_disk_is_paused_and_cancelled(notices: bool) -> None:  # noqa: FBT001
    state = World(traits=Traits(blockdev_backup_x_perf=notices))
    for name in ("drive0", "drive1"):
        state.apply(AddDisk(node=name, layers=(Layer(size=0),)))
    state.apply(MIRROR)
    cancelled = state.copy().apply(JobCancel(job="job0")).jobs["job0"]
    assert cancelled.error is (Reason.JOB_CANCELLED if notices else None)
    if notices:
        assert state.apply(JobPause(job="job0")).alive["job0"].status == "standby"
        return
    with pytest.raises(OpenOutcomeError):
        state.apply(JobPause(job="job0"))


@pytest.mark.parametrize(
    "operation",
    [
        Write(node="drive0", offset=0, length=1, fill=1),
        Flush(node="drive1"),
        Resize(node="drive0", size=SIZE + SECTOR),
        CloseDisk(node="drive1"),
        DriveBackup(node="drive0", target="target0", sync="full"),
        Transaction(actions=(DriveBackup(node="filter0", target="target0", sync="full"),)),
    ],
)
def test_nobody_else_uses_what_is_mirrored(operation: Operation) -> None:
    state = world(MIRROR)
    with pytest.raises(InvalidOperationError):
        state.apply(operation)
    assert state.apply(JobComplete(job="job0")).refusal is None


def test_what_is_below_an_overlay_is_not_mirrored_not_even_into_itself() -> None:
    itself = replace(MIRROR, target="drive0")
    refusal = world().apply(itself).refusal
    assert refusal
    assert refusal.reason is Reason.MIRRORED_INTO_ITSELF
    state = world(BlockdevSnapshot(node="drive0", overlay="drive1"))
    for operation in (itself, replace(MIRROR, target="drive2")):
        with pytest.raises(InvalidOperationError):
            state.apply(operation)


def test_what_is_below_a_mirrored_overlay_is_read_only_not_unshared() -> None:
    snapshot = BlockdevSnapshot(node="drive0", overlay="drive1")
    state = world(snapshot, replace(TARGET, node="drive2"))
    assert state.apply(replace(MIRROR, node="drive1", target="drive2")).refusal is None
    refusal = state.apply(WriteCompressed(node="drive0", offset=0, length=0, fill=1)).refusal
    assert refusal
    assert refusal.reason is Reason.READ_ONLY


LAYERS = (
    AddDisk(node="drive0", layers=(Layer(size=3 * CHUNK, data=PATTERNS),)),
    AddDisk(node="drive1", layers=(Layer(size=SIZE, cluster_size=4096),)),
    AddDisk(node="drive2", layers=(Layer(size=SIZE, cluster_size=4096),)),
    *(BitmapAdd(node=f"drive{n}", name="bits", granularity=SECTOR) for n in range(3)),
    BlockdevSnapshot(node="drive0", overlay="drive1"),
    Write(node="drive1", offset=CHUNK, length=5000, fill=5),
    BlockdevSnapshot(node="drive1", overlay="drive2"),
    Write(node="drive2", offset=3 * CHUNK + 100, length=5000, fill=6),
)
COMMIT = BlockCommit(
    job="job0", node="drive2", base="drive0", between=("drive1",), filter="filter0"
)


def layered(*operations: Operation, traits: Traits | None = None) -> World:
    """A World with three disks above each other, behind some operations."""
    made = World(traits=traits)
    for operation in (*LAYERS, *operations):
        assert made.apply(operation).refusal is None
    return made


@given(STEPS, st.sampled_from((JobComplete(job="job0"), JobCancel(job="job0", block=True))))
def test_a_base_follows_what_is_written_above_its_commit(
    steps: list[tuple[tuple[int, int], int | None] | str], ending: Operation
) -> None:
    state = layered(COMMIT)
    base = bytes_of(state, "drive0").copy()
    assert base.tobytes() == bytes_of(state, "drive2").tobytes()
    due, waiting = sectors(CHUNK, 2 * CHUNK) | sectors(3 * CHUNK, 4 * CHUNK), set()
    paused = False
    assert dirty(state, "drive0") == due
    for step in steps:
        if step in ("pause", "resume"):
            if (step == "pause") is not paused:
                state.apply(JobPause(job="job0") if step == "pause" else JobResume(job="job0"))
                paused = step == "pause"
        elif not isinstance(step, str):
            offset, length = write(state, step)
            start, end = offset // CHUNK * CHUNK, -(-(offset + length) // CHUNK) * CHUNK
            waiting |= sectors(start, min(end, SIZE))
        if not paused:
            due, waiting = due | waiting, set()
            base = bytes_of(state, "drive2").copy()
        assert bytes_of(state, "drive0").tobytes() == base.tobytes()
        assert dirty(state, "drive0") == due
    if paused:
        state.apply(JobResume(job="job0"))
    state.apply(ending)
    assert bytes_of(state, "drive0").tobytes() == bytes_of(state, "drive2").tobytes()
    assert dirty(state, "drive0") == due | waiting
    assert state.apply(Write(node="drive0", offset=SIZE - 1, length=1, fill=1)).refusal is None
    assert bytes_of(state, "drive1")[SIZE - 1] == 1


@pytest.mark.parametrize("freezes", [True, False])
def test_a_commit_that_is_cancelled_leaves_what_it_has_copied(freezes: bool) -> None:  # noqa: FBT001
    state = layered(COMMIT, traits=Traits(cancelled_commit_freezes=freezes))
    state.apply(Write(node="filter0", offset=0, length=1, fill=9))
    ended = state.apply(JobCancel(job="job0"))
    assert (ended.jobs["job0"].error, ended.jobs["job0"].kind) == (Reason.JOB_CANCELLED, "commit")
    assert bytes_of(state, "drive0")[0] == 9
    refusal = state.apply(Write(node="drive0", offset=1, length=1, fill=1)).refusal
    assert (refusal and refusal.reason) == (Reason.READ_ONLY if freezes else None)


def test_the_target_of_a_mirror_that_is_cancelled_stays_writable() -> None:
    state = World(traits=Traits(cancelled_commit_freezes=True))
    for operation in (SOURCE, TARGET, MIRROR, JobCancel(job="job0")):
        assert state.apply(operation).refusal is None
    assert state.apply(Write(node="drive1", offset=0, length=1, fill=1)).refusal is None


def test_a_base_shows_what_is_below_it_around_what_it_gets() -> None:
    state = World()
    for operation in (
        replace(SOURCE, layers=(Layer(size=SIZE, cluster_size=2 * CHUNK), SOURCE.layers[1])),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BlockdevSnapshot(node="drive0", overlay="drive1"),
        replace(COMMIT, node="drive1", between=()),
        Write(node="filter0", offset=0, length=1, fill=1),
    ):
        assert state.apply(operation).refusal is None
    data = bytes_of(state, "drive0")
    assert (data[0], data[1], data[CHUNK + 1000]) == (1, 4, 3)
    layers = state.chain("drive0.0")
    assert layers[0].allocated == ((0, 2 * CHUNK),)


def test_who_else_may_use_the_layers_of_a_commit() -> None:
    state = layered(COMMIT)
    for operation in (
        Write(node="drive2", offset=0, length=1, fill=1),
        Read(node="drive1", offset=0, length=1),
        Read(node="drive0", offset=0, length=1),
        CloseDisk(node="drive1"),
        BlockStream(job="job1", node="drive2"),
    ):
        with pytest.raises(InvalidOperationError):
            state.apply(operation)
    assert state.final().contents.keys() == {"drive2"}
    for disk in ("drive0", "drive1", "drive2"):
        assert state.apply(BitmapClear(node=disk, name="bits")).refusal is None
    assert state.apply(Read(node="filter0", offset=CHUNK, length=1)).refusal is None
    assert state.apply(JobComplete(job="job0")).refusal is None
    assert state.final().contents.keys() == {"drive0", "drive1", "drive2"}


def test_names_of_a_commit_that_are_taken() -> None:
    state = World()
    backup = DriveBackup(
        node="drive2",
        target="target0",
        sync="full",
        filter="filter0",
        speed=1,
        max_workers=1,
        max_chunk=CHUNK,
    )
    for operation in (
        *(AddDisk(node=f"drive{n}", layers=(Layer(size=3 * CHUNK),)) for n in range(3)),
        BlockdevSnapshot(node="drive0", overlay="drive1"),
        backup,
    ):
        assert state.apply(operation).refusal is None
    commit = BlockCommit(job="job1", node="drive1", base="drive0", filter="filter1")
    for wrong, due in (
        (replace(commit, job="job0"), Reason.JOB_ID_TAKEN),
        (replace(commit, filter="filter0"), Reason.NODE_NAME_TAKEN),
    ):
        refusal = state.copy().apply(wrong).refusal
        assert refusal
        assert refusal.reason is due


def test_zeroes_that_a_commit_may_know_are_not_judged() -> None:
    empty = (
        AddDisk(node="drive0", layers=(Layer(size=SIZE),)),
        AddDisk(node="drive1", layers=(Layer(size=SIZE),)),
        BlockdevSnapshot(node="drive0", overlay="drive1"),
        Write(node="drive1", offset=0, length=CHUNK, fill=1),
        BlockCommit(job="job0", node="drive1", base="drive0", filter="filter0"),
    )
    state = World(traits=Traits(commit_skips_zeroes=True))
    for operation in empty:
        assert state.apply(operation).refusal is None
    with pytest.raises(OpenOutcomeError, match="zeroes"):
        state.apply(WriteZeroes(node="filter0", offset=CHUNK, length=CHUNK))
    assert state.apply(Write(node="filter0", offset=CHUNK, length=1, fill=1)).refusal is None
    (length,) = {each.length for each in state.apply(Flush(node="filter0")).alive.values()}
    assert length == 2 * CHUNK


def test_nobody_reads_the_target_of_a_mirror_at_the_end() -> None:
    assert {"drive0", "drive1"} <= world().final().contents.keys()
    final = world(MIRROR).final()
    assert "drive0" in final.contents
    assert "drive1" not in {*final.contents, *final.allocated}


def test_a_mirror_ends_with_qemu_and_its_target_stays() -> None:
    state = world(MIRROR, WRITE)
    before = bytes_of(state, "drive0").tobytes()
    state.apply(Restart())
    assert not state.mirrors
    assert not state.nodes
    assert bytes_of(state, "drive1.0").tobytes() == before


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Layer(size=1 << 43), "bytes"),
        (Layer(size=1 << 43, cluster_size=4096), "units"),
        (Layer(size=SIZE), "another size"),
        (Layer(size=1 << 43, compat="0.10"), "zeroes"),
    ],
)
def test_what_is_not_judged(layer: Layer, match: str) -> None:
    state = World()
    for name, made in (("drive0", Layer(size=1 << 43)), ("drive1", layer)):
        state.apply(AddDisk(node=name, layers=(made,), discard="unmap"))
    with pytest.raises(InvalidOperationError, match=match):
        state.apply(MIRROR)
