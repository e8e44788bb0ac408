"""Campaigns that keep to some subjects."""

import json
from pathlib import Path

import pytest
from tests.cli.run import qbprop


@pytest.mark.parametrize(
    ("focus", "done", "left"),
    [
        ("layers", {"write_compressed", "resize"}, {"transaction.bitmap_remove", "rebase_image"}),
        ("bitmaps", {"bitmap_merge", "resize"}, {"write_compressed", "rebase_image"}),
        ("storage", {"close_disk", "restart"}, {"write_compressed"}),
        ("jobs,layers", {"job_pause", "write_compressed"}, {"transaction.bitmap_remove"}),
    ],
)
def test_examples_keep_to_the_subjects_that_are_asked_for(
    focus: str, done: set[str], left: set[str], tmp_path: Path
) -> None:
    words = ("--focus", focus, "--seed", "3", "--max-examples", "60", "--max-time", "10m", "--json")
    told = json.loads(qbprop("fuzz", *words, "--out", tmp_path / "out").stdout)
    succeeded = {name for name, counts in told["outcomes"].items() if counts["ok"]}
    assert done <= succeeded
    assert not left & succeeded
