"""Campaigns that keep to some subjects."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cli.run import start_qbprop

CAMPAIGNS = {
    "layers": ({"write_compressed", "resize"}, {"transaction.bitmap_remove", "rebase_image"}),
    "bitmaps": ({"bitmap_merge", "resize"}, {"block_commit", "block_stream", "blockdev_mirror"}),
    "storage": ({"close_disk", "restart"}, {"write_compressed"}),
    "graphs": ({"blockdev_snapshot", "blockdev_mirror", "block_commit"}, {"write_compressed"}),
    "jobs,layers": ({"job_pause", "write_compressed"}, {"transaction.bitmap_remove"}),
}
"""What succeeds in a campaign with these subjects, and what does not."""


@pytest.mark.needs("blockdev_backup_x_perf")
def test_examples_keep_to_the_subjects_that_are_asked_for(tmp_path: Path) -> None:
    def succeeded(focus: str) -> set[str]:
        words = ("--focus", focus, "--seed", "3", "--max-examples", "40", "--max-time", "10m")
        with start_qbprop("fuzz", *words, "--json", "--out", tmp_path / focus) as process:
            outcomes = json.loads(process.communicate()[0])["outcomes"]
        return {name for name, counts in outcomes.items() if counts["ok"]}

    with ThreadPoolExecutor(2) as two:
        for focus, met in zip(CAMPAIGNS, two.map(succeeded, CAMPAIGNS), strict=True):
            done, left = CAMPAIGNS[focus]
            assert done <= met, focus
            assert not left & met, focus
