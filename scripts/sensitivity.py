#!/usr/bin/env python3
"""How soon live QEMU contradicts each wrong rule of tests/sensitivity; writes a table.

Per seed one search by the right rules, with all the wrong ones beside it; their time is not
counted, and known bugs of QEMU end an example. With --shrink one campaign by each wrong rule
shows how short its examples become. OUT/sensitivity.json has all that was seen. With --docs the
table of docs/sensitivity.md is written anew.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.sensitivity.runner import measure, shrink  # noqa: E402
from tests.sensitivity.variants import VARIANTS  # noqa: E402

from qbprop.lab import Lab  # noqa: E402
from qbprop.qemu.binaries import find_binaries  # noqa: E402

MARK = "<!-- the table: make sensitivity -->"


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many searches")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sensitivity")
    parser.add_argument("--shrink", action="store_true", help="shrink one example of each, too")
    parser.add_argument("--docs", action="store_true", help="write docs/sensitivity.md as well")
    parser.add_argument("names", nargs="*", help="wrong rules, by default all")
    options = parser.parse_args()
    names = options.names or list(VARIANTS)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for tried in pool.map(attempt, seeds, repeat(options.seconds), repeat(names)):
            found.append(tried)
            print(
                f"seed {tried['seed']}: {tried['examples']} examples, {len(tried['shown'])} of "
                f"{len(names)} wrong rules contradicted",
                *(f"The right rules were contradicted: {each}" for each in tried["disagreements"]),
                sep="\n",
                flush=True,
            )
            write(options, names, found, {})
        shrunk = {
            name: pool.submit(shortened, name, options.first_seed, options.seconds)
            for name in (names if options.shrink else ())
        }
        short: dict[str, dict[str, Any]] = {}
        for name, job in shrunk.items():
            short[name] = job.result()
            print(f"{len(short)} of {len(names)} shrunk: {name} {short[name]}", flush=True)
    print(write(options, names, found, short))
    return 0


def write(
    options: argparse.Namespace,
    names: Sequence[str],
    found: Sequence[dict[str, Any]],
    short: dict[str, dict[str, Any]],
) -> str:
    """Write what is known so far; the table."""
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {"seconds": options.seconds, "seeds": found, "shrunk": short}
    (options.out / "sensitivity.json").write_text(json.dumps(everything, indent=1) + "\n")
    table = "\n".join(rows(names, found, short, options.seconds))
    if options.docs:
        page = ROOT / "docs" / "sensitivity.md"
        head = page.read_text("utf-8").partition(MARK)[0]
        page.write_text(f"{head}{MARK}\n\n{table}\n", "utf-8")
    return table


def attempt(seed: int, seconds: float, names: Sequence[str]) -> dict[str, Any]:
    """One seed, in a process of its own."""
    lab = Lab(find_binaries(None))
    return asdict(measure(lab, [VARIANTS[name] for name in names], seed, seconds=seconds))


def shortened(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """One example by a wrong rule, shrunk."""
    return asdict(shrink(Lab(find_binaries(None)), VARIANTS[name], seed, seconds=seconds))


def rows(
    names: Sequence[str],
    found: Sequence[dict[str, Any]],
    short: dict[str, dict[str, Any]],
    limit: float,
) -> Iterator[str]:
    """A Markdown table, the hardest first, and a line for all of them."""
    yield "| wrong rule | found | median s | longest s | per 1000 examples | shrunk to |"
    yield "|---|---|---|---|---|---|"
    examples = sum(each["examples"] for each in found)
    shown = {name: [each["shown"].get(name) for each in found] for name in names}
    hits = {name: sum(each["examples"] for each in shown[name] if each) for name in names}
    times = {name: [each["seconds"] if each else limit for each in shown[name]] for name in names}
    for name in sorted(names, key=lambda name: hits[name]):
        seen = sum(each is not None for each in shown[name])
        yield (
            f"| {VARIANTS[name].description} | {seen}/{len(found)} "
            f"| {statistics.median(times[name]):.1f} | {max(times[name]):.1f} "
            f"| {1000 * hits[name] / examples:.1f} "
            f"| {short.get(name, {}).get('operations') or '–'} |"
        )
    yield ""
    yield f"By family, {len(found)} seeds of {limit:g} s, {examples} examples:"
    yield ""
    yield "| wrong rules about | how many | found with nine of ten seeds | median s over all |"
    yield "|---|---|---|---|"
    families = sorted({VARIANTS[name].family for name in names})
    for family in (*families, "all"):
        own = [name for name in names if family in (VARIANTS[name].family, "all")]
        often = sum(10 * sum(map(bool, shown[name])) >= 9 * len(found) for name in own)
        whole = statistics.median(each for name in own for each in times[name])
        yield f"| {family} | {len(own)} | {often} | {whole:.1f} |"
    lengths = [each["operations"] for each in short.values() if each["operations"]]
    if lengths:
        sure = sum(each["rate"] == 1.0 for each in short.values())
        yield ""
        yield (
            f"Shrunk: median {statistics.median(lengths):g} operations, longest {max(lengths)}; "
            f"{sure} of {len(lengths)} came back in every replay."
        )


if __name__ == "__main__":
    sys.exit(main())
