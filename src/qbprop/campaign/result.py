"""The summary that a campaign ends with, for people."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qbprop.campaign.beside import DIFFERENCES
from qbprop.campaign.duration import show_duration
from qbprop.campaign.job_states import STATES, UNREACHABLE
from qbprop.campaign.statistics import ALL_NAMES
from qbprop.campaign.summary import (
    CanaryRecord,
    DifferenceRecord,
    FindingRecord,
    SequencesRecord,
    Summary,
)


def show_result(console: Console, summary: Summary, out: Path) -> None:
    """Print what was exercised, what was found, and where it is."""
    console.print(_outcomes(summary))
    console.print(_job_states(summary))
    for line in _figures(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for finding in summary.findings:
        for line in _finding(finding, out):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for difference in summary.differences:
        for line in _difference(difference, summary, out):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"everything is in {out}", markup=False, highlight=False, soft_wrap=True)


def _outcomes(summary: Summary) -> Table:
    table = Table("operation", title="what was exercised", title_justify="left", box=None)
    table.add_column("ok", justify="right")
    table.add_column("refused", justify="right")
    counts = summary.statistics
    for name in ALL_NAMES:
        table.add_row(Text(name), f"{counts.succeeded[name]:,}", f"{counts.refused[name]:,}")
    return table


def _job_states(summary: Summary) -> Table:
    """Operation × state of the jobs it met; "." where no operation can get."""
    table = Table(
        title="jobs that it met",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("operation", no_wrap=True)
    for state in STATES:
        table.add_column(state, justify="right", no_wrap=True, min_width=len(state))
    for name, counts in summary.statistics.job_state_table().items():
        cells = (
            "." if (name, state) in UNREACHABLE else f"{count:,}" for state, count in counts.items()
        )
        table.add_row(Text(name), *cells)
    return table


def _figures(summary: Summary) -> Iterator[str]:
    counts = summary.statistics
    examples = max(counts.examples, 1)
    refused = sum(n for name, n in counts.refused.items() if "." not in name)
    qemus = ", ".join(f"QEMU {qemu.version} ({qemu.path})" for qemu in summary.qemus)
    new = len(summary.new_findings)
    yield ""
    yield f"{qemus}, guest I/O by {summary.guest_io}, seed {summary.seed}"
    yield (
        f"{summary.status} after {show_duration(summary.seconds)}: {counts.steps:,} steps in "
        f"{counts.examples:,} examples, {summary.steps_per_second:.0f} steps/s "
        f"(and {counts.shrink_steps:,} steps of shrinking)"
    )
    yield (
        f"{refused / max(counts.steps, 1):.0%} of the steps refused; "
        f"{counts.in_flight / max(counts.steps, 1):.0%} with a job in flight; "
        f"{counts.bitmaps / examples:.1f} bitmaps per example; "
        f"{counts.partial_backups / examples:.0%} of the examples finished a backup from a "
        "bitmap that covered part of the disk"
    )
    for heading, found in counts.reach_by_heading().items():
        yield f"{heading}: {', '.join(f'{what} {n:,}' for what, n in found.items())}"
    yield f"never refused for: {', '.join(counts.never_refused) or 'all reasons were met'}"
    if summary.trace_events:
        never = summary.never_traced
        met = len(summary.trace_events) - len(never)
        tail = f"; never {', '.join(never)}" if never else ""
        yield f"trace events of QEMU: {met} of {len(summary.trace_events)}{tail}"
    if summary.sequences is not None:
        yield _sequences(summary.sequences)
    yield from summary.warnings
    if summary.canary is not None:
        yield _canary(summary.canary)
    yield f"{new} new finding{'s' * (new != 1)}, {len(summary.findings) - new} known"


def _sequences(record: SequencesRecord) -> str:
    done = "all" if record.done == record.longest else f"{record.done:,} of"
    return (
        f"{done} {record.longest:,} sequences of {record.length} operations, which begin with all "
        f"shorter ones ({record.all:,} together); {record.unjudged:,} cannot be judged"
    )


def _canary(canary: CanaryRecord) -> str:
    seconds = show_duration(canary.seconds)
    if canary.found:
        return f"the mistake that was planted was found after {seconds}: {canary.title}"
    return f"BLIND: the mistake that was planted was not found in {seconds}"


def _difference(difference: DifferenceRecord, summary: Summary, out: Path) -> Iterator[str]:
    first, second = difference.qemus
    mine, theirs = difference.outcomes
    label = "differs" if difference.known else "NEW"
    match difference.what:
        case "model":
            told = f"QEMU {second} does not do what the model says: {theirs}"
        case "reply" | "text":
            told = f"{first}: {mine}; {second}: {theirs}"
        case what:
            told = f"other {what} on {first} than on {second}"
    yield f"  {label} {difference.id}  {difference.operation}: {told} ({difference.count} times)"
    qemus = " ".join(f"--qemu {qemu.path}" for qemu in summary.qemus)
    yield f"    qbprop replay {qemus} {out / DIFFERENCES / difference.id}.jsonl"


def _finding(finding: FindingRecord, out: Path) -> Iterator[str]:
    share = "" if finding.rate is None else f", comes back in {finding.rate:.0%} of replays"
    yield f"  {'known' if finding.known else 'NEW'} {finding.id}  {finding.title}"
    yield (
        f"    {finding.operations} operations, met {finding.count} times, first after "
        f"{show_duration(finding.seconds_to_find)}{share}"
    )
    yield f"    qbprop replay {out / 'findings' / finding.id / 'trace.jsonl'}"
