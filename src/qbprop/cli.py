"""The command line. It holds no logic: it reads options, calls, shows, and sets exit codes."""

import json
import os
import sys
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from qbprop.campaign.duration import parse_duration
from qbprop.cli_base import CROSS, QEMU, QEMUS, Exit, fail, reporting
from qbprop.cli_corpus import show_corpus
from qbprop.cli_export import export
from qbprop.cli_known import show_known
from qbprop.cli_report import report
from qbprop.cli_status import status
from qbprop.errors import EnvironmentProblem, QbpropError, TraceError
from qbprop.version import VERSION

UNLIMITED_SECONDS = 7 * 24 * 3600.0
"""Longest time of an exhaustive campaign that is given none."""


def duration(_: click.Context, parameter: click.Parameter, text: str) -> float:
    """Seconds, from an option such as 60s, 10m or 8h."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="qbprop")
def main() -> None:
    r"""Test QEMU's dirty bitmaps and backups against a model, step by step.

    \b
    qbprop doctor                    what is here, what is missing
    qbprop fuzz                      one minute of testing
    qbprop fuzz --max-time 8h        a night of it
    qbprop replay TRACE              see a finding happen again
    """


@main.command(
    epilog="""
    \b
    Examples:
      qbprop fuzz --qemu ~/src/qemu/build --max-time 10m
      qbprop fuzz --jobs 4 --max-time 8h           a night on four cores
      qbprop fuzz --resume qbprop-runs/2026-...    go on where a campaign was, even if it was killed
      qbprop fuzz --qemu A --cross B --cross C     each QEMU opens what another one has left
      qbprop fuzz --seed 7 --max-examples 500      the same examples each time
      qbprop fuzz --json 2>progress.log | jq .findings

    Each finding has a folder under OUT/findings, with a trace for `qbprop replay`. A finding
    that is met just before the time is over is still shrunk and replayed, for a minute at most.

    Images are put on a tmpfs where there is one with room; TMPDIR chooses another place.

    \b
    Exit codes: 0 nothing new was found, 1 something was, 2 wrong usage or environment, 3 blind:
    nothing was found, and neither was the mistake that was planted, 130 interrupted.
    """
)
@click.option(
    "--qemu",
    "qemus",
    metavar="PATH",
    multiple=True,
    help="A qemu-system-* binary, or the directory that holds it (a build tree, a bin/). Given "
    "again, that QEMU performs the same examples, and in what they differ is listed. "
    "[default: QEMU_PROG, else from PATH]",
)
@CROSS
@click.option(
    "--max-time",
    callback=duration,
    metavar="TIME",
    default="60s",
    show_default=True,
    help="Stop after this time: 60s, 10m, 8h.",
)
@click.option("--max-examples", type=click.IntRange(min=1), help="Stop after so many examples.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="The same seed and QEMU give the same examples. [default: a new one, which is recorded]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Workers, each with a QEMU of its own; as many as there are cores is good.",
)
@click.option(
    "--exhaustive",
    is_flag=True,
    help="Perform every sequence of up to four operations over a small world, instead of random "
    "ones; until all are done unless --max-time is given.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Let the workers of a Dask scheduler do it, such as tcp://HOST:8786 (qbprop[cluster]). "
    "Each worker tests the QEMU that it finds; they may join and leave.",
)
@click.option("--stop-on-finding", is_flag=True, help="Stop at the first new finding.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="An empty or new folder for what is found. [default: a dated one under qbprop-runs/]",
)
@click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Go on with the campaign in this folder (its --out), with the options it had; those that "
    "are given besides count instead of them.",
)
@click.option(
    "--profile", metavar="NAME", help="Steps of an example as in this Hypothesis profile."
)
@click.option(
    "--focus",
    metavar="SUBJECT[,SUBJECT]",
    help="Let all examples keep to these subjects: jobs, layers, bitmaps, backups, storage, "
    "graphs. [default: many keep to one of them, the others to none]",
)
@click.option(
    "--known",
    type=click.Path(path_type=Path),
    help="A TOML list of findings that are known and fail nothing, besides the shipped one.",
)
@click.option(
    "--database",
    multiple=True,
    metavar="PLACE",
    help="Where to keep the examples that found something: a folder, or redis://HOST:PORT, which "
    "many machines can share (qbprop[redis]); may be given again. With it they are read even "
    "beside --seed. [default: OUT/examples]",
)
@click.option(
    "--canary/--no-canary",
    default=None,
    help="Whether to plant a mistake in the model first, which must be found within minutes. "
    "[default: yes from one hour on, and in the profile qbprop-overnight]",
)
@click.option(
    "--only-known",
    is_flag=True,
    help="Do not test: try each known finding, and say which are fixed in this QEMU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, nothing else.")
@click.pass_context
def fuzz(
    context: click.Context,
    *,
    qemus: tuple[str, ...],
    cross: tuple[str, ...],
    max_time: float,
    max_examples: int | None,
    seed: int | None,
    jobs: int,
    exhaustive: bool,
    cluster: str | None,
    stop_on_finding: bool,
    out: Path | None,
    resume: Path | None,
    profile: str | None,
    focus: str | None,
    known: Path | None,
    canary: bool | None,
    database: tuple[str, ...],
    only_known: bool,
    as_json: bool,
) -> None:
    """Test a live QEMU with random operations, until the time is over."""
    from qbprop.campaign.canary import look_for_canary
    from qbprop.campaign.database import absolute
    from qbprop.campaign.folder import held
    from qbprop.campaign.request import Request
    from qbprop.campaign.result import show_result
    from qbprop.lab import Lab
    from qbprop.machine import SUBJECTS
    from qbprop.profiles import DEFAULT_PROFILE, SIZES
    from qbprop.qemu.binaries import find_binaries

    profile = profile or DEFAULT_PROFILE
    if profile not in SIZES:
        raise click.BadParameter(
            f"{profile!r} is none of {', '.join(SIZES)}", param_hint="'--profile'"
        )
    subjects = tuple(focus.split(",")) if focus is not None else ()
    for subject in subjects:
        if subject not in SUBJECTS:
            raise click.BadParameter(
                f"{subject!r} is none of {', '.join(SUBJECTS)}", param_hint="'--focus'"
            )
    if resume is not None and (out is not None or seed is not None):
        raise click.UsageError("a campaign that goes on keeps its --out and its --seed")
    if cluster and jobs > 1:
        raise click.UsageError("--cluster has workers of its own; leave out --jobs")
    if exhaustive:
        if jobs > 1 or cluster or focus:
            raise click.UsageError("--exhaustive takes one worker, and no --focus")
        if context.get_parameter_source("max_time") is ParameterSource.DEFAULT:
            max_time = UNLIMITED_SECONDS
    if len(qemus) > 1 and (jobs > 1 or cluster):
        raise click.UsageError("several --qemu take one worker")
    request = Request(
        qemu=qemus[0] if qemus else None,
        cross=cross,
        beside=qemus[1:],
        max_time=max_time,
        max_examples=max_examples,
        seed=seed,
        jobs=jobs,
        cluster=cluster,
        exhaustive=exhaustive,
        stop_on_finding=stop_on_finding,
        profile=profile,
        focus=subjects,
        known=str(known.absolute()) if known else None,
        canary=canary,
        database=tuple(map(absolute, database)),
    )
    with reporting(Exit.UNUSABLE):
        if resume is not None:
            request = replace(Request.of(resume), **_given(context, request))
        others = tuple(map(find_binaries, request.cross))
        lab = Lab(find_binaries(request.qemu), others=others)
        if only_known:
            show_known(lab, request.known_findings(), as_json=as_json)
            sys.exit(Exit.AGREED)
        folder = resume or _make_out(out)
        with held(folder):
            console = Console(stderr=True)
            campaign = request.campaign(lab, folder, console)
            try:
                if request.wants_canary:
                    look_for_canary(campaign, lab, console)
                summary = campaign.run()
            finally:
                if as_json:
                    click.echo(json.dumps(campaign.summary.to_record(), indent=2))
                elif campaign.summary.statistics.steps:
                    show_result(Console(), campaign.summary, folder)
    if summary.status == "interrupted":
        sys.exit(Exit.INTERRUPTED)
    if summary.new_findings or summary.new_differences:
        sys.exit(Exit.FOUND)
    sys.exit(Exit.BLIND if summary.blind else Exit.AGREED)


@main.command(
    epilog="""
    \b
    Examples:
      qbprop replay qbprop-runs/.../findings/ID/trace.jsonl
      git bisect run qbprop replay --qemu build trace.jsonl
      qbprop replay trace.jsonl --qemu ~/qemu-7.2/build --qemu ~/qemu-9.0/build
      qbprop replay qbprop-runs/... --qemu ~/qemu-9.0/build        all that a campaign reached

    With a folder, each of its traces is performed: those of a campaign's corpus, if it is one's.

    The list of known findings does not matter here.

    \b
    Exit codes: 0 everything agreed, 1 the finding that the trace names came back (any, if it
    names none or with --any), 125 it could not be tried, or another disagreement came, 2 wrong
    options.
    """
)
@click.argument("trace", metavar="TRACE|DIR", type=click.Path(path_type=Path))
@QEMUS
@CROSS
@click.option("--any", "any_finding", is_flag=True, help="Exit with 1 at any disagreement.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show every command that is sent, and its reply."
)
def replay(
    *,
    trace: Path,
    qemus: tuple[str, ...],
    cross: tuple[str, ...],
    any_finding: bool,
    verbose: bool,
) -> None:
    """Perform a trace again, step by step, with all checks."""
    from qbprop.comparison import judge, worst
    from qbprop.lab import Lab
    from qbprop.qemu.binaries import find_binaries
    from qbprop.replay import play
    from qbprop.replay_view import show_disagreement, show_step
    from qbprop.trace import read_trace
    from qbprop_model.operations import InvalidOperationError

    with reporting(Exit.UNTESTABLE):
        if trace.is_dir():
            show_corpus(trace, qemus or (None,))
        wanted = read_trace(trace)
        if len(qemus) > 1:
            verdicts = []
            for qemu in qemus:
                verdicts.append(judge(qemu, wanted, any_finding=any_finding))
                click.echo(verdicts[-1].line())
            sys.exit(worst(verdicts))
        others = tuple(map(find_binaries, cross))
        lab = Lab(find_binaries(*qemus or (None,)), others=others)
        with lab.session() as session:
            session.explain, driver = True, session.driver
            click.echo(f"QEMU {driver.version}, guest I/O by {driver.transport}")
            try:
                finding = play(
                    session,
                    wanted.examples,
                    lambda step: click.echo("\n".join(show_step(step, verbose=verbose))),
                )
            except InvalidOperationError as error:
                raise TraceError(f"{trace}: {error}; the trace cannot be judged") from error
    if finding is None:
        click.echo("everything agreed")
        sys.exit(Exit.AGREED)
    click.echo("\n".join(show_disagreement(finding)))
    named = wanted.header.finding
    if any_finding or named is None or finding.is_named(named.id, named.title):
        sys.exit(Exit.FOUND)
    problem = QbpropError(
        f"this is not the finding that the trace names ({named.title}, {named.id}) but "
        f"another one ({finding.title}, {finding.id}); use --any to count it"
    )
    fail(problem, Exit.UNTESTABLE)


@main.command(epilog="Exit codes: 0 a campaign can run, 2 it cannot.")
@QEMU
def doctor(*, qemu: str | None) -> None:
    """Tell which QEMU there is, what it supports, what is missing and how to get it."""
    from qbprop.qemu.doctor import examine

    with reporting(Exit.UNUSABLE):
        report = examine(qemu)
    click.echo(report.text())
    sys.exit(Exit.AGREED if report.usable else Exit.UNUSABLE)


@main.command("trace")
@click.option(
    "--schema", is_flag=True, required=True, help="Print the JSON Schema of a trace's lines."
)
def trace_command(*, schema: bool) -> None:
    """Tell about the format of traces."""
    from qbprop import trace_schema

    assert schema
    click.echo(json.dumps(trace_schema.schema(), indent=2))


def _given(context: click.Context, request: Any) -> dict[str, Any]:
    """The part of a request that stands on the command line; --jobs means workers here."""
    told = (field.name for field in fields(request))
    source = context.get_parameter_source
    given = {
        name: getattr(request, name) for name in told if source(name) is ParameterSource.COMMANDLINE
    }
    if source("qemus") is ParameterSource.COMMANDLINE:
        given |= {"qemu": request.qemu, "beside": request.beside}
    return {"cluster": None, **given} if "jobs" in given else given


def _make_out(wanted: Path | None) -> Path:
    """The campaign's folder, made if need be, and empty.

    :raises EnvironmentProblem: it cannot be made, or holds something.
    """
    now = datetime.now().astimezone()
    out = wanted or Path("qbprop-runs", f"{now:%Y-%m-%d-%H%M%S}-{os.getpid()}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(out.iterdir())
    except OSError as error:
        raise EnvironmentProblem(
            f"{out} cannot be the folder for what is found ({error.strerror}); give another --out"
        ) from error
    if used:
        raise EnvironmentProblem(f"{out} is not empty; give --out a new or empty folder")
    return out


main.add_command(export)
main.add_command(report)
main.add_command(status)
