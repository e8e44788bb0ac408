"""The pytest plugin: ``--qemu``, qbprop's Hypothesis profiles, and a QEMU for its machines.

It is loaded by every pytest session where qbprop is installed, and does nothing to one that
neither imports ``qbprop.machine`` nor asks for a ``qbprop-…`` profile: not even Hypothesis is
imported.
"""

import sys
from collections.abc import Generator
from typing import Any

import pytest

PROFILE_OPTION = "--hypothesis-profile"
PROFILE_PREFIX = "qbprop-"

_bench_key = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--qemu``."""
    parser.getgroup("qbprop", "qbprop").addoption(
        "--qemu",
        metavar="PATH",
        help="the QEMU that qbprop's machines test: a qemu-system-* binary, or the directory that "
        "holds it (default: QEMU_PROG, else from PATH)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the profiles before Hypothesis' own plugin loads one of them."""
    profile = config.getoption(PROFILE_OPTION, default=None)
    if profile and profile.startswith(PROFILE_PREFIX):
        import qbprop.profiles  # noqa: F401 (registers them)


@pytest.fixture
def qbprop_stream(request: pytest.FixtureRequest) -> Any:
    """The :class:`~qbprop.streams.Stream` of a search; pytest-xdist's workers have one each."""
    from qbprop.streams import Stream

    number, count = getattr(request, "param", (0, 1))
    return Stream(number, count)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one search for each of pytest-xdist's workers."""
    workers = getattr(metafunc.config, "workerinput", {}).get("workercount", 1)
    if workers > 1 and "qbprop_stream" in metafunc.fixturenames:
        streams = [
            pytest.param((number, workers), id=f"stream{number}") for number in range(workers)
        ]
        metafunc.parametrize("qbprop_stream", streams, indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give the machines a QEMU, if any test module imported them; it is launched when used."""
    if "qbprop.machine" in sys.modules:
        from qbprop.bench import Bench

        bench = Bench(session.config.getoption("--qemu"))
        bench.serve()
        session.config.stash[_bench_key] = bench


def pytest_unconfigure(config: pytest.Config) -> None:
    """End that QEMU."""
    bench = config.stash.get(_bench_key, None)
    if bench is not None:
        bench.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the trace of a finding to the report of the test that failed with it."""
    report = yield
    bench = item.config.stash.get(_bench_key, None)
    if bench is not None and call.excinfo is not None:
        cache = getattr(item.config, "cache", None)
        folder = cache.mkdir("qbprop") if cache is not None else None
        report.sections += bench.sections(call.excinfo.value, folder)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the known findings that were met."""
    bench = config.stash.get(_bench_key, None)
    for line in bench.known_lines() if bench is not None else ():
        terminalreporter.write_line(line)
