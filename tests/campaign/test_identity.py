"""One bug is one finding, whatever the seed and the way of the guest's requests; two stay two."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from tests.campaign.machines import SmallMachine, Transport, run

from qbprop.campaign.known import shipped_known
from qbprop.hazards import Hazards
from qbprop.lab import Lab
from qbprop.machine import step_rule
from qbprop.qemu.binaries import find_binaries
from qbprop_model.operations import BitmapEnable, BitmapMerge, Transaction

Campaigns = tuple[tuple[int, Transport], ...]

CAMPAIGNS: Campaigns = ((1, "nbd"), (2, "hmp"), (3, "nbd"))

KNOWN = {entry.trace: entry.id for entry in shipped_known() if entry.trace}


class CrashingMachine(SmallMachine):
    """The small machine, with two operations that crash QEMU 7.2."""

    @step_rule
    @rule()
    def merge_nothing(self) -> None:
        """A merge without sources."""
        self.perform(BitmapMerge(node="drive0", target="bitmap0", sources=()))

    @step_rule
    @rule(number=st.integers(1, 9))
    def undo_enable(self, number: int) -> None:
        """A transaction that enables a bitmap which is not there."""
        enable = BitmapEnable(node="drive0", name=f"bitmap{number}")
        self.perform(Transaction(actions=(enable,)))


@pytest.fixture(autouse=True)
def little_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab(find_binaries(None)).driver() as driver:
        if not driver.version.startswith("7.2."):
            pytest.skip("the bugs are those of QEMU 7.2")
    monkeypatch.setattr("qbprop.autopsy.LIMIT", 2)
    monkeypatch.setattr("qbprop.campaign.watch.SHRINK_EXAMPLES", 3)
    monkeypatch.setattr("qbprop.campaign.certificate.REPLAYS", 2)


def met(out: Path, campaigns: Campaigns) -> dict[str, int]:
    """The length of the trace of each finding, by id, over several campaigns: always the same."""
    found: list[dict[str, int]] = []
    for seed, transport in campaigns:
        folder = out / f"{seed}"
        folder.mkdir()
        summary = run(folder, transport, machine=CrashingMachine, seed=seed, max_examples=30)
        found.append({each.id: each.operations for each in summary.findings})
        assert max(each.count for each in summary.findings) > 1
    assert found[1:] == found[:-1]
    return found[0]


def test_a_bug_that_is_named_after_a_hazard(tmp_path: Path) -> None:
    assert met(tmp_path, CAMPAIGNS) == {KNOWN["merge-of-nothing"]: 3, KNOWN["failed-enable"]: 1}


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_a_bug_that_is_named_after_where_qemu_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hazards, "explains", lambda *_: None)
    assert sorted(met(tmp_path, CAMPAIGNS[:2]).values()) == [1, 3]
    titles = {
        json.loads(path.read_text())["title"] for path in tmp_path.glob("*/findings/*/finding.json")
    }
    assert titles == {
        f"crash after {where}"
        for where in (
            "bitmap_merge: SIGSEGV in hbitmap_free < block_dirty_bitmap_merge",
            "transaction.bitmap_enable: SIGSEGV in bdrv_disable_dirty_bitmap < qmp_transaction",
        )
    }
