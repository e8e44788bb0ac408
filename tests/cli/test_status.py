"""How far a campaign is, told from outside."""

from pathlib import Path

from tests.cli.run import qbprop

from qbprop.campaign.summary import FindingRecord, Summary, WorkerRecord


def test_a_few_lines_tell_how_far_it_is(tmp_path: Path) -> None:
    summary = Summary(qbprop="1", qemus=[], guest_io="nbd", profile="p", seed=1, seconds=75)
    summary.activity = "1 of 2 workers"
    summary.workers.append(WorkerRecord(share=5, seconds=3.0, steps=900, activity="shrinking x"))
    summary.statistics.steps, summary.statistics.examples = 3000, 40
    for identity, known in (("a1", False), ("b2", True)):
        summary.findings.append(
            FindingRecord(
                id=identity, kind="k", title="t", operations=1, seconds_to_find=1, known=known
            )
        )
    summary.write(tmp_path)
    done = qbprop("status", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        (
            "running: 1 min 15 s  3,000 steps  40 examples  40 steps/s  "
            "1 findings (+1 known)  · 1 of 2 workers"
        ),
        "  share 5  3.0 s  900 steps  · shrinking x",
        "  NEW a1  t, met 0 times",
        "  known b2  t, met 0 times",
    ]


def test_a_folder_without_a_campaign_is_said_so(tmp_path: Path) -> None:
    done = qbprop("status", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"qbprop: {tmp_path} has no campaign.json; ")
    assert done.stderr.count("\n") == 1
