"""A campaign as one page of HTML, with the verdict first, and as JUnit XML for CI servers."""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qbprop.atomic import write_atomically
from qbprop.campaign.duration import show_duration
from qbprop.campaign.growth import Point, read_growth
from qbprop.campaign.job_states import OUTCOMES, STATES, UNREACHABLE
from qbprop.campaign.memory import show
from qbprop.campaign.summary import FindingRecord, Summary
from qbprop.campaign.verdict import verdict
from qbprop.campaign.watch import TRACE_EVERY
from qbprop.errors import EnvironmentProblem, TraceError
from qbprop.replay_view import show_operation
from qbprop.report.junit import junit
from qbprop.report.page import template
from qbprop.trace import read_trace

WIDTH, HEIGHT = 600, 120
"""Of a curve, in the units of its picture."""


@dataclass(frozen=True)
class FindingView:
    """A finding: what is known of it, its trace in words, its files, and commands to paste."""

    record: FindingRecord
    about: dict[str, Any]
    examples: list[list[str]]
    page: str
    commands: list[str]


@dataclass(frozen=True)
class Curve:
    """How a figure grew: ``line`` are the points of a polyline, the highest stands for ``most``."""

    name: str
    most: str
    line: str


def write_report(out: Path, page: Path | None = None) -> Path:
    """Write the page of the campaign in a folder, or to ``page``, and ``junit.xml`` beside it.

    :raises EnvironmentProblem: there is no campaign in that folder.
    :raises OSError: they cannot be written.
    """
    summary = Summary.read(out)
    if summary is None:
        raise EnvironmentProblem(f"{out} has no campaign.json; give the folder of a campaign")
    page = page or out / "report.html"
    views = [_view(out, page, record) for record in summary.findings]
    write_atomically(page, render(out, summary, read_growth(out), views))
    expectations = {view.record.id: view.about for view in views}
    write_atomically(page.with_name("junit.xml"), junit(summary, expectations))
    return page


def render(
    out: Path, summary: Summary, points: Sequence[Point], findings: Sequence[FindingView]
) -> str:
    """The whole page; it holds everything that it shows and needs no network."""
    counts = summary.statistics
    cells = counts.cell_table()
    return template("campaign.html").render(
        summary=summary,
        verdict=verdict(summary),
        good=not (summary.new_findings or summary.new_differences or summary.blind)
        and summary.status in ("finished", "running"),
        seconds=show_duration(summary.seconds),
        duration=show_duration,
        findings=[view for view in findings if not view.record.known],
        known=[view for view in findings if view.record.known],
        repeat=_repeat(summary),
        resume=f"qbprop fuzz --resume {shlex.quote(str(out))}",
        curves=list(_curves(points)),
        span=show_duration(points[-1].seconds) if points else "",
        width=WIDTH,
        height=HEIGHT,
        states=STATES,
        outcomes=OUTCOMES,
        cells=cells,
        unreachable=UNREACHABLE,
        reached=counts.cells_reached,
        trace_every=TRACE_EVERY,
        all_cells=len(cells) * len(STATES) * len(OUTCOMES),
    )


def _view(out: Path, page: Path, record: FindingRecord) -> FindingView:
    folder = out / "findings" / record.id
    about: dict[str, Any] = {"expected": "", "observed": "", "stderr": "", "certificate": None}
    try:
        about |= json.loads((folder / "finding.json").read_text("utf-8"))
        trace = read_trace(folder / "trace.jsonl")
    except (FileNotFoundError, TraceError):
        # A share that is under way has it still to itself.
        return FindingView(record, about, [], "", [])
    examples = [[show_operation(operation) for operation in each] for each in trace.examples]
    picture = folder / "report.html"
    link = quote(os.path.relpath(picture, page.parent)) if picture.exists() else ""
    return FindingView(record, about, examples, link, list(_commands(folder)))


def _commands(folder: Path) -> Iterator[str]:
    place = shlex.quote(str(folder.resolve()))
    yield f"qbprop replay {place}/trace.jsonl"
    if (folder / "reproduce.sh").exists():
        yield f"bash {place}/reproduce.sh"
    if (folder / "bisect.sh").exists():
        yield f"git bisect run {place}/bisect.sh"


def _repeat(summary: Summary) -> str:
    """The command that does it again; with one worker it makes the same examples."""
    request = summary.request
    words = ["qbprop", "fuzz", "--seed", str(summary.seed), "--profile", summary.profile]
    if request.get("qemu"):
        words += ["--qemu", request["qemu"]]
    if "max_time" in request:
        words += ["--max-time", f"{request['max_time']:.0f}s"]
    if request.get("max_examples"):
        words += ["--max-examples", str(request["max_examples"])]
    if request.get("focus"):
        words += ["--focus", ",".join(request["focus"])]
    if summary.jobs > 1:
        words += ["--jobs", str(summary.jobs)]
    if request.get("known"):
        words += ["--known", request["known"]]
    return shlex.join(words)


def _curves(points: Sequence[Point]) -> Iterator[Curve]:
    if not points:
        return
    span = max(points[-1].seconds, 0.001)
    for name in ("steps", "examples", "cells", "findings", "memory"):
        heights = [getattr(point, name) for point in points]
        most = max(heights)
        line = " ".join(
            f"{point.seconds / span * WIDTH:.1f},{HEIGHT * (1 - height / max(most, 1)):.1f}"
            for point, height in zip(points, heights, strict=True)
        )
        yield Curve(name, show(most) if name == "memory" else f"{most:,}", line)
