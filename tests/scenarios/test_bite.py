"""Each scenario fails when the thing that it is named for is broken in the model."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qbprop.findings import Finding
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.suite.scenarios import SCENARIOS, Scenario, obstacle, perform
from qbprop_model.bitmap import Bitmap, Use
from qbprop_model.expectation import Reason
from qbprop_model.image import Image
from qbprop_model.jobs import Job
from qbprop_model.operations import Backup, BitmapMode
from qbprop_model.ranges import Ranges
from qbprop_model.rules import Rules


class KeptOnSuccess(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return replace(bitmap, busy=False, successor=None)


class CoarserThanAsked(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        return super().covered(granularity, offset // 65536 * 65536, length)


class RoundedInward(Rules):
    def covered(self, granularity: int, offset: int, length: int) -> slice:
        whole = super().covered(granularity, offset, length)
        return slice(whole.start, max(whole.start, whole.stop - 1))


class TargetClusterIgnored(Rules):
    def job_cluster(self, target: Image) -> int:
        return 65536


class ClearForgotten(Rules):
    def clear(self, bitmap: Bitmap) -> Bitmap:
        return bitmap


class NoModeRefused(Rules):
    def check_modes(self, op: Backup, bitmap: Bitmap | None) -> None:
        return


class UnknownTakenForMissing(Rules):
    def check_modes(self, op: Backup, bitmap: Bitmap | None) -> None:
        super().check_modes(op if bitmap else replace(op, bitmap=None), bitmap)


class AnyGranularity(Rules):
    def granularity_accepted(self, granularity: int) -> bool:
        return granularity > 0


class NotResized(Rules):
    def resize_bitmap(self, bitmap: Bitmap, size: int) -> Bitmap:
        return super().resize_bitmap(bitmap, 64 << 20)


class FailureClears(Rules):
    def thaw(self, bitmap: Bitmap, mode: BitmapMode, *, failed: bool) -> Bitmap:
        return super().thaw(bitmap, mode, failed=False)


class WaitingMembersStay(Rules):
    def drags(self, status: str) -> bool:
        return status != "waiting"


class ErrorsAreReported(Rules):
    def error_action(self, job: Job, side: str, reason: Reason) -> str:
        return "report"


class NothingIsStored(Rules):
    def is_stored(self, bitmap: Bitmap) -> bool:
        return False


class NeverFrozen(Rules):
    def obstacle(self, bitmap: Bitmap, use: Use) -> Reason | None:
        return super().obstacle(replace(bitmap, read_only=False), use)


class KillForgiven(Rules):
    def open_image(self, image: Image) -> Image:
        return image


class StoredAtFirstSize(Rules):
    def revive(self, stored: Bitmap, size: int) -> Bitmap:
        return super().resize_bitmap(super().revive(stored, size), 4 << 20)


class LastSourceAlone(Rules):
    def merge(self, target: Bitmap, sources: Sequence[Bitmap], size: int) -> Bitmap:
        return super().merge(target, sources[-1:], size)


class CommitsAllAtOnce(Rules):
    def commit_cluster(self, base: Image) -> int:
        return 1 << 20


class WritesOnlyToTheSource(Rules):
    def written_through(self, offset: int, length: int) -> Ranges:
        return ()


BROKEN = {
    "incremental_simple": (KeptOnSuccess, "count"),
    "small_granularity": (CoarserThanAsked, "dirty-set"),
    "large_granularity": (RoundedInward, "count"),
    "larger_cluster_target": (TargetClusterIgnored, "jobs"),
    "incremental_transaction": (ClearForgotten, "count"),
    "sync_dirty_bitmap_missing": (NoModeRefused, "reply"),
    "sync_dirty_bitmap_not_found": (UnknownTakenForMissing, "reply"),
    "sync_dirty_bitmap_bad_granularity": (AnyGranularity, "reply"),
    "growing_before_backup": (NotResized, "count"),
    "transaction_failure": (FailureClears, "count"),
    "transaction_failure_race": (WaitingMembersStay, "events"),
    "incremental_failure": (FailureClears, "count"),
    "incremental_pause": (ErrorsAreReported, "hang"),
    "survives_restarts": (NothingIsStored, "fields"),
    "writable_after_read_only": (NeverFrozen, "reply"),
    "inconsistent_after_a_kill": (KillForgiven, "fields"),
    "merges_all_or_nothing": (LastSourceAlone, "count"),
    "grows_and_shrinks": (StoredAtFirstSize, "count"),
    "anchors_of_two_disks": (ClearForgotten, "count"),
    "chain_across_a_snapshot": (LastSourceAlone, "count"),
    "undone_snapshot": (NothingIsStored, "fields"),
    "commit_of_an_overlay": (CommitsAllAtOnce, "jobs"),
    "mirror_that_follows": (WritesOnlyToTheSource, "count"),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_sees_what_it_is_named_for(
    scenario: Scenario, pytestconfig: pytest.Config
) -> None:
    rules, kind = BROKEN[scenario.name]
    lab = Lab(find_binaries(pytestconfig.getoption("--qemu")))
    with lab.session(rules()) as session:
        if unable := obstacle(scenario, session.driver):
            pytest.skip(unable)
        with pytest.raises((Finding, AssertionError)) as caught:
            perform(scenario, session)
    assert isinstance(caught.value, Finding)
    assert caught.value.kind == kind
