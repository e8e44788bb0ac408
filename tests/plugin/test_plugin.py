"""The pytest plugin, in pytest processes of their own."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent

import pytest

PLAIN = """
    import sys

    def test_nothing_of_qbprop_is_there():
        assert "qbprop.machine" not in sys.modules
        assert "qbprop.profiles" not in sys.modules
        assert "hypothesis" not in sys.modules
"""

SHOWS_SETTINGS = """
    from hypothesis import settings

    def test_shows():
        d = settings.default
        print("SIZE", d.max_examples, d.stateful_step_count, d.derandomize, d.deadline)
"""

SUBCLASS = """
    import pytest
    from hypothesis import strategies as st
    from hypothesis.stateful import rule
    from qbprop.machine import BlockMachine, step_rule
    from qbprop_model.operations import Flush

    class MyMachine(BlockMachine):
        @step_rule
        @rule(node=st.sampled_from(["drive0", "drive1"]))
        def a_rule_of_mine(self, node):
            self.perform(Flush(node=node))

    TestMine = MyMachine.TestCase
"""


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test module in an empty folder, with the plugin as if qbprop were installed."""
    (folder / "test_it.py").write_text(dedent(text))
    plugin = [] if _installed() else ["-p", "qbprop.pytest_plugin"]
    alone = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *plugin, *options, "test_it.py"],
        cwd=folder,
        env=alone,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _installed() -> bool:
    return any(entry.name == "qbprop" for entry in entry_points(group="pytest11"))


def test_a_session_without_qbprop_is_as_it_was(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, PLAIN)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("profile", "size"),
    [
        ("qbprop-dev", "SIZE 25 20 False None"),
        ("qbprop-ci", "SIZE 200 30 True None"),
        ("qbprop-nightly", "SIZE 7000 30 False None"),
        ("qbprop-overnight", "SIZE 55000 30 False None"),
    ],
)
def test_the_profiles_can_be_chosen(tmp_path: Path, profile: str, size: str) -> None:
    done = run_pytest(tmp_path, SHOWS_SETTINGS, f"--hypothesis-profile={profile}")
    assert done.returncode == 0, done.stdout
    assert size in done.stdout


def test_the_profiles_are_not_loaded_by_themselves(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, f"    import qbprop.profiles\n{SHOWS_SETTINGS}")
    assert "SIZE 100 50 " in done.stdout


def test_a_qemu_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SUBCLASS, "--qemu", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "does not exist" in done.stdout


def test_a_machine_of_the_user_runs_on_the_qemu_of_the_session(tmp_path: Path) -> None:
    few = """
    from hypothesis import settings
    settings.register_profile("few", max_examples=2, stateful_step_count=3, derandomize=True)
    settings.load_profile("few")
    """
    done = run_pytest(tmp_path, few + SUBCLASS)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


FAILING = """
    from hypothesis import settings
    from qbprop.machine.core import MachineBase, step_rule
    from hypothesis.stateful import initialize, rule
    from hypothesis import strategies as st
    from qbprop_model.operations import AddDisk, BitmapAdd, Layer, Write
    from qbprop_model.rules import Rules

    class Wrong(Rules):
        def covered(self, granularity, offset, length):
            return slice(0, 0)

    class MyMachine(MachineBase):
        @initialize()
        def start(self):
            self.session.rules = self.world.rules = Wrong()
            disk = AddDisk(node="drive0", layers=(Layer(size=65536, format="raw"),))
            self.perform([disk, BitmapAdd(node="drive0", name="bitmap0")])

        @step_rule
        @rule(sector=st.integers(0, 100))
        def write(self, sector):
            self.perform(Write(node="drive0", offset=512 * sector, length=512, stamp=1))

    TestMine = MyMachine.TestCase
"""


def test_a_failure_comes_with_its_trace(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FAILING)
    assert done.returncode == 1
    assert "count after write" in done.stdout
    assert '{"qbprop_trace": 1' in done.stdout
    assert "see it again: qbprop replay" in done.stdout
    (trace,) = (tmp_path / ".pytest_cache/d/qbprop").glob("*.jsonl")
    assert '"op": "write"' in trace.read_text()


STREAMS = """
    import os
    from pathlib import Path

    import pytest
    from hypothesis import settings, strategies as st
    from hypothesis.stateful import initialize, rule
    from qbprop.machine.core import MachineBase

    settings.register_profile("few", max_examples=40, stateful_step_count=5, derandomize=True)
    settings.load_profile("few")
    drawn = []

    class Draws(MachineBase):
        def __init__(self):
            super().__init__()
            drawn.append([])

        @rule(number=st.integers())
        def draw(self, number):
            drawn[-1].append(number)

    def test_search(qbprop_stream):
        qbprop_stream.search(Draws)
        count = len(drawn)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        Path(f"{qbprop_stream.number}.txt").write_text(f"{worker} {count} {drawn}")
"""


def test_each_worker_of_xdist_searches_elsewhere(tmp_path: Path) -> None:
    def streams(*options: str) -> list[list[str]]:
        done = run_pytest(tmp_path, STREAMS, *options)
        assert done.returncode == 0, done.stdout
        found = [path.read_text().split(" ", 2) for path in sorted(tmp_path.glob("?.txt"))]
        for path in tmp_path.glob("?.txt"):
            path.unlink()
        return found

    first = streams("-n", "2")
    assert {worker for worker, _, _ in first} == {"gw0", "gw1"}
    assert first[0][2] != first[1][2]
    assert all(int(count) < 40 for _, count, _ in first)
    again = streams("-n", "2")
    assert [drawn for _, _, drawn in again] == [drawn for _, _, drawn in first]
    ((worker, count, drawn),) = streams("-p", "no:xdist")
    assert worker == "alone"
    assert int(count) >= 40
    assert drawn not in [drawn for _, _, drawn in first]
