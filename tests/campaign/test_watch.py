"""How long a campaign waits for QEMU."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.campaign.findings import count_finding, reply_finding

from qbprop.campaign.book import Book
from qbprop.campaign.statistics import Statistics
from qbprop.campaign.watch import KNOWN_HANG_SECONDS, Watch, WatchedSession
from qbprop.findings import Finding, HangFinding
from qbprop.hazards import FAILED_ENABLE, GROUP_UNDONE, Hazard
from qbprop.trace import Header
from qbprop_model.operations import AddDisk, BlockdevMirror, Flush, JobComplete, Layer
from qbprop_model.traits import Traits
from qbprop_model.world import World

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


@pytest.mark.parametrize("first", [HangFinding("resize", "", "", ""), count_finding()])
def test_while_a_hang_is_made_simpler_no_other_is_believed(tmp_path: Path, first: Finding) -> None:
    def nothing(*_: object) -> None:
        pass

    watch = Watch(Statistics(), max_seconds=60, max_examples=None, tick=nothing, note=nothing)
    book = Book(tmp_path, Header())
    process = SimpleNamespace(all_stderr=str)
    driver = SimpleNamespace(timeout=FULL, process=process)
    session: Any = SimpleNamespace(history=[], driver=driver)
    assert not watch.disagreed(first, session, book)
    slow, wrong = HangFinding("write", "", "", ""), reply_finding()
    assert watch.disagreed(slow, session, book)
    assert watch.disagreed(wrong, session, book)
    believed = {first.id, wrong.id} | ({slow.id} if first.kind != HangFinding.kind else set())
    assert book.entries.keys() == believed


def test_one_example_in_ten_is_traced_and_none_while_shrinking() -> None:
    def nothing(*_: object) -> None:
        pass

    watch = Watch(Statistics(), max_seconds=60, max_examples=None, tick=nothing, note=nothing)
    assert not watch.traces
    wanted: list[int] = []
    for number in range(21):
        watch.example_begins()
        wanted += [number] * watch.traces
    assert wanted == [0, 10, 20]
    watch.example_ends()
    watch.statistics.examples, watch.target = 30, "a finding"
    watch._shrink_until = watch._deadline
    watch.example_begins()
    assert not watch.traces


def test_a_step_beside_a_mirror_has_a_job_in_flight() -> None:
    def nothing(*_: object) -> None:
        pass

    watch = Watch(Statistics(), max_seconds=60, max_examples=None, tick=nothing, note=nothing)
    world = World()
    session: Any = SimpleNamespace(world=world)
    for operation in (
        AddDisk(node="drive0", layers=(Layer(size=512),)),
        AddDisk(node="drive1", layers=(Layer(size=512),)),
        BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0"),
        Flush(node="filter0"),
        JobComplete(job="job0"),
        Flush(node="drive0"),
    ):
        expected = world.apply(operation)
        observed = SimpleNamespace(refused=None)
        step: Any = SimpleNamespace(operation=operation, expected=expected, observed=observed)
        watch.step_agreed(step, session, 0.1, ())
    assert watch.statistics.in_flight == 3
