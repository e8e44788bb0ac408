"""How long a campaign waits for QEMU."""

from types import SimpleNamespace
from typing import Any

import pytest

from qbprop.campaign.statistics import Statistics
from qbprop.campaign.watch import KNOWN_HANG_SECONDS, Watch, WatchedSession
from qbprop.findings import HangFinding
from qbprop.hazards import FAILED_ENABLE, GROUP_UNDONE, Hazard
from qbprop_model.traits import Traits

FULL = 10.0


@pytest.mark.parametrize(
    ("known", "hazard", "seconds"),
    [
        (True, GROUP_UNDONE, KNOWN_HANG_SECONDS),
        (False, GROUP_UNDONE, FULL),
        (True, FAILED_ENABLE, FULL),
        (True, None, FULL),
    ],
)
def test_only_where_a_hang_is_no_news_the_wait_is_short(
    *, known: bool, hazard: Hazard | None, seconds: float
) -> None:
    def nothing(*_: object) -> None:
        pass

    watch = Watch(Statistics(), max_seconds=60, max_examples=None, tick=nothing, note=nothing)
    if known:
        watch.hidden.add(HangFinding(GROUP_UNDONE.label, "", "", "").id)
    features = SimpleNamespace(traits=Traits())
    driver: Any = SimpleNamespace(timeout=FULL, features=features, every_features=(features,))
    session = WatchedSession(driver, None, watch)
    assert session.patience(hazard) == seconds
