"""What a campaign says that it does not test."""

from dataclasses import replace

from qbprop.campaign.skipped import skipped
from qbprop.hazards import EMPTY_MERGE
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries


def test_what_is_skipped_has_a_reason() -> None:
    with Lab(find_binaries(None), transport="hmp").driver() as driver:
        lacking = replace(driver.features, blockdev_backup_x_perf=False, drive_backup=True)
        driver.process.features = lacking
        lines = list(skipped(driver, {EMPTY_MERGE}, ["jobs"]))
    assert "what has to do with none of jobs: --focus asks for these" in lines
    assert any("libnbd" in line for line in lines)
    assert "a merge of nothing, in most examples: this QEMU is known to fall for it" in lines
    assert any(line.startswith("x-perf of blockdev-backup: ") for line in lines)
    assert not any(line.startswith("drive-backup: ") for line in lines)
