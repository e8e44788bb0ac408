"""``campaign.json``, and the counts in it."""

import json
from pathlib import Path

from qbprop.campaign.job_states import STATES
from qbprop.campaign.progress import describe
from qbprop.campaign.statistics import ALL_NAMES, Statistics
from qbprop.campaign.summary import (
    DifferenceRecord,
    FindingRecord,
    QemuRecord,
    Summary,
    WorkerRecord,
)
from qbprop_model.expectation import Reason
from qbprop_model.operations import (
    OPERATIONS,
    Abort,
    BitmapClear,
    Flush,
    Transaction,
    operation_name,
)


def a_summary() -> Summary:
    counts = Statistics()
    counts.step(Flush(node="drive0"), refused=False)
    counts.step(Flush(node="drive0"), refused=True)
    clear = BitmapClear(node="drive0", name="bitmap0")
    counts.step(Transaction(actions=(clear, clear, Abort())), refused=True)
    counts.reach.update([("merges", "rare"), ("merges", "often"), ("merges", "often")])
    counts.cells.update([("flush", "pending", "ok"), ("flush", "pending", "refused")])
    counts.traced.update([("flush", "hbitmap_set"), ("flush", "job_state_transition.a.b")] * 3)
    counts.reasons.update([("flush", "guest_not_found")])
    counts.in_flight += 2
    counts.example_done(partial_backup=True, bitmaps=3)
    counts.example_done(partial_backup=False, bitmaps=0)
    found = FindingRecord(
        id="a1", kind="count", title="t", operations=4, seconds_to_find=1.23456, count=2, rate=1.0
    )
    known = FindingRecord(
        id="b2", kind="crash", title="u", operations=5, seconds_to_find=2, count=1, known=True
    )
    return Summary(
        qbprop="1.0",
        qemus=[QemuRecord(version="7.2.22", path="/usr/bin/qemu")],
        guest_io="nbd",
        profile="qbprop-dev",
        seed=12,
        seconds=10.00049,
        commands=77,
        memory=5 << 20,
        statistics=counts,
        findings=[found, known],
        differences=[
            DifferenceRecord(
                id="c3",
                operation="flush",
                what="reply",
                qemus=["7.2.22", "5.2.0"],
                outcomes=["ok", "eio"],
                count=3,
            )
        ],
        trace_events=["hbitmap_reset", "hbitmap_set", "job_state_transition"],
        news_seconds=4.0,
        workers=[
            WorkerRecord(share=3, seconds=65.0, steps=1234, activity=""),
            WorkerRecord(share=4, seconds=0.0, steps=0, activity="shrinking u"),
        ],
    )


def test_the_object_of_the_design(tmp_path: Path) -> None:
    summary = a_summary()
    summary.write(tmp_path)
    record = json.loads((tmp_path / "campaign.json").read_text())
    outcomes, operations = record.pop("outcomes"), record.pop("operations")
    states, cells = record.pop("job_states"), record.pop("cells")
    assert cells["flush"]["pending"] == {"ok": 1, "refused": 1}
    assert cells["flush"]["none"] == {"ok": 0, "refused": 0}
    assert set(states) == {operation_name(cls) for cls in OPERATIONS}
    assert states["flush"] == {state: 2 * (state == "pending") for state in STATES}
    assert record == {
        "qbprop": "1.0",
        "qemus": [{"version": "7.2.22", "path": "/usr/bin/qemu"}],
        "machine": "",
        "skipped": [],
        "canary": None,
        "warnings": [],
        "sequences": None,
        "guest_io": "nbd",
        "profile": "qbprop-dev",
        "jobs": 1,
        "seed": 12,
        "request": {},
        "status": "running",
        "seconds": 10.0,
        "examples": 2,
        "steps": 3,
        "shrink_steps": 0,
        "commands": 77,
        "memory": 5 << 20,
        "rounds": 0,
        "partial_backup_examples": 1,
        "bitmaps_per_example": 1.5,
        "reach": {"merges": {"often": 2, "rare": 1}},
        "traced": {"flush": {"hbitmap_set": 3, "job_state_transition.a.b": 3}},
        "reasons": {"flush": {"guest_not_found": 1}},
        "trace_events": ["hbitmap_reset", "hbitmap_set", "job_state_transition"],
        "news_seconds": 4.0,
        "activity": "",
        "workers": [
            {"share": 3, "seconds": 65.0, "steps": 1234, "activity": ""},
            {"share": 4, "seconds": 0.0, "steps": 0, "activity": "shrinking u"},
        ],
        "steps_in_flight": 2,
        "findings": [
            {
                "id": "a1",
                "kind": "count",
                "title": "t",
                "operations": 4,
                "seconds_to_find": 1.235,
                "count": 2,
                "rate": 1.0,
                "known": False,
            },
            {
                "id": "b2",
                "kind": "crash",
                "title": "u",
                "operations": 5,
                "seconds_to_find": 2,
                "count": 1,
                "rate": None,
                "known": True,
            },
        ],
        "differences": [
            {
                "id": "c3",
                "operation": "flush",
                "what": "reply",
                "qemus": ["7.2.22", "5.2.0"],
                "outcomes": ["ok", "eio"],
                "count": 3,
                "known": True,
            },
        ],
    }
    assert tuple(outcomes) == tuple(operations) == ALL_NAMES
    assert outcomes["flush"] == {"ok": 1, "refused": 1}
    assert outcomes["transaction"] == {"ok": 0, "refused": 1}
    assert outcomes["transaction.bitmap_clear"] == {"ok": 0, "refused": 2}
    assert outcomes["bitmap_clear"] == {"ok": 0, "refused": 0}
    assert operations["transaction.abort"] == 1


def test_what_is_written_can_be_read_again_and_added_up(tmp_path: Path) -> None:
    assert Summary.read(tmp_path) is None
    written = a_summary()
    written.write(tmp_path)
    read = Summary.read(tmp_path)
    assert read is not None
    assert read.to_record() == written.to_record()
    assert read.statistics.bitmaps == 3
    read.statistics.add(written.statistics)
    twice = read.to_record()
    assert (twice["steps"], twice["examples"], twice["bitmaps_per_example"]) == (6, 4, 1.5)
    assert twice["outcomes"]["transaction.bitmap_clear"] == {"ok": 0, "refused": 4}
    assert twice["reach"] == {"merges": {"often": 4, "rare": 2}}
    assert twice["job_states"]["flush"]["pending"] == 4
    assert twice["traced"] == {"flush": {"hbitmap_set": 6, "job_state_transition.a.b": 6}}


def test_reasons_that_never_came_are_named() -> None:
    never = a_summary().statistics.never_refused
    assert len(never) == len(Reason) - 1
    assert "guest_not_found" not in never


def test_the_time_of_the_last_news_is_kept() -> None:
    summary = a_summary()
    assert summary.never_traced == ["hbitmap_reset"]
    summary.look(20.0)
    assert (summary.seconds, summary.news_seconds) == (20.0, 20.0)
    summary.statistics.traced.update([("flush", "hbitmap_set")])
    summary.look(30.0)
    assert (summary.seconds, summary.news_seconds) == (30.0, 20.0)
    summary.statistics.traced.update([("flush", "hbitmap_reset")])
    summary.look(40.0)
    assert summary.news_seconds == 40.0
    assert summary.never_traced == []
    summary.statistics.cells.update([("write", "none", "ok")])
    summary.look(50.0)
    assert summary.news_seconds == 50.0


def test_the_live_line_has_the_figures() -> None:
    summary = a_summary()
    summary.activity = "shrinking t"
    whole, *workers = describe(summary, 60.0)
    assert whole == (
        "10.0 s of 1 min 00 s  3 steps  2 examples  0 steps/s  1 findings (+1 known)  "
        "2 cells, nothing new for 6.0 s  5 MiB  · shrinking t"
    )
    assert workers == [
        "  share 3  1 min 05 s  1,234 steps",
        "  share 4  0.0 s  0 steps  · shrinking u",
    ]
    summary.findings[0].rate = 0.5
    assert "  1 findings (1 of them racy, +1 known)  " in describe(summary, None)[0]
