"""The matrix of iotest 257: sync mode × bitmap mode × outcome, with guest writes all along.

Each scenario writes before, while the backup is in flight, and after; then an incremental backup
of what is dirty goes to a second target, and all contents are compared. A backup fails midway
where its target refuses a compressed write onto cluster 5, which holds data already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qbprop.session import Session
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapMode,
    BlockdevBackup,
    CreateImage,
    JobCancel,
    JobDismiss,
    JobFinalize,
    JobSetSpeed,
    Layer,
    Operation,
    Pattern,
    SyncMode,
    Write,
)

Outcome = Literal["success", "failure_midway", "cancelled_at_pending"]

CLUSTER = 65536
SIZE = 8 * CLUSTER + 512
"""Bytes of the disk; the last job cluster is a partial one."""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix."""

    sync: SyncMode
    mode: BitmapMode
    outcome: Outcome

    @property
    def name(self) -> str:
        """Says what it is."""
        return f"{self.sync}_{self.mode.replace('-', '_')}_{self.outcome}"


def cells() -> Iterator[Cell]:
    """Every combination of modes that a backup accepts, with every outcome."""
    modes: dict[SyncMode, tuple[BitmapMode, ...]] = {
        "incremental": ("on-success",),
        "bitmap": ("on-success", "never", "always"),
        "full": ("on-success", "always"),
        "top": ("on-success", "always"),
    }
    for sync, accepted in modes.items():
        for mode in accepted:
            for outcome in get_args(Outcome):
                yield Cell(sync, mode, outcome)


MATRIX = tuple(cells())


def write(*clusters: int, stamp: int) -> Iterator[Write]:
    """A guest writes a sector into each of some clusters; even stamps compress."""
    for cluster in clusters:
        yield Write(node="drive0", offset=cluster * CLUSTER, length=512, stamp=stamp)


def operations(cell: Cell, *, x_perf: bool = True) -> Iterator[Operation]:
    """The scenario of a cell; without ``x_perf`` backups copy one job cluster after the other."""
    data = (Pattern(offset=0, length=SIZE, stamp=2),)
    yield AddDisk(node="drive0", layers=(Layer(size=SIZE, data=data),))
    yield BitmapAdd(node="drive0", name="bitmap0", granularity=CLUSTER)
    yield CreateImage(image="target0", layer=Layer(size=SIZE))
    yield CreateImage(image="target1", layer=Layer(size=SIZE))
    common: dict[str, Any] = {"node": "drive0", "bitmap": "bitmap0"}
    if cell.outcome == "failure_midway":
        yield from write(5, stamp=4)
        yield BlockdevBackup(target="target0", sync="incremental", compress=True, **common)
    yield from write(1, 3, 5, 8, stamp=6)
    yield from _backup(cell, common | {"target": "target0", "auto_dismiss": False}, x_perf=x_perf)
    yield JobDismiss(job="job0")
    yield from write(2, 5, stamp=10)
    yield BlockdevBackup(target="target1", sync="incremental", **common)


def _backup(cell: Cell, common: dict[str, Any], *, x_perf: bool) -> Iterator[Operation]:
    """The backup, guest writes beside it, and its end."""
    common |= {"sync": cell.sync, "bitmap_mode": cell.mode}
    during = tuple(write(0, 3, 7, stamp=8))
    if cell.outcome == "failure_midway":
        serial: dict[str, Any] = {"max_workers": 1, "max_chunk": CLUSTER} if x_perf else {}
        serial["compress"] = True
        # How far a limited one has looked for clusters is open; without x-perf, what wakes it.
        if cell.sync == "top" or not x_perf:
            yield BlockdevBackup(**common, **serial)
            yield from during
            return
        yield BlockdevBackup(**common, **serial, speed=1)
        yield from during
        yield JobSetSpeed(job="job0")
        return
    yield BlockdevBackup(**common, auto_finalize=False)
    yield from during
    yield JobFinalize(job="job0") if cell.outcome == "success" else JobCancel(job="job0")


def perform(cell: Cell, session: Session) -> None:
    """Perform a scenario; raises a Finding. The outcome is as the cell says."""
    session.begin()
    steps = operations(cell, x_perf=session.world.traits.blockdev_backup_x_perf)
    ends = [end for each in steps for end in session.step(each).expected.jobs.values()]
    failed = ends[-2].error is not None
    assert failed == (cell.outcome != "success"), f"{cell.name}: {ends[-2]}"
    assert ends[-1].error is None
    session.finish()
