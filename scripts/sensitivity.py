#!/usr/bin/env python3
"""How soon live QEMU contradicts each wrong rule of tests/sensitivity; writes a table.

Several seeds each, no shrinking; known bugs of QEMU are left out. With --shrink one more
campaign for each, with its first seed, shows how short its examples become. OUT/sensitivity.json
has all tries. With --docs the table of docs/sensitivity.md is written anew.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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
    parser.add_argument("--seeds", type=int, default=10, help="tries of each wrong rule")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time of one try")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sensitivity")
    parser.add_argument("--shrink", action="store_true", help="shrink one example of each, too")
    parser.add_argument("--docs", action="store_true", help="write docs/sensitivity.md as well")
    parser.add_argument("names", nargs="*", help="wrong rules, by default all")
    options = parser.parse_args()
    names = options.names or list(VARIANTS)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    tries: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [
            (name, pool.submit(attempt, name, seed, options.seconds))
            for seed in seeds
            for name in names
        ]
        for done, (name, job) in enumerate(jobs, 1):
            tries[name].append(job.result())
            if done % len(names) == 0:
                print(f"{done} of {len(jobs)} tries", flush=True)
                write(options, tries)
        shrunk = {
            name: pool.submit(shortened, name, options.first_seed, options.seconds)
            for name in (names if options.shrink else ())
        }
        for done, (name, job) in enumerate(shrunk.items(), 1):
            tries[name][0] |= job.result()
            print(f"{done} of {len(names)} shrunk: {name} {job.result()}", flush=True)
    print(write(options, tries))
    return 0


def write(options: argparse.Namespace, tries: dict[str, list[dict[str, Any]]]) -> str:
    """Write what is known so far; the table."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sensitivity.json").write_text(json.dumps(tries, indent=1) + "\n")
    table = "\n".join(rows(tries))
    if options.docs:
        page = ROOT / "docs" / "sensitivity.md"
        head = page.read_text("utf-8").partition(MARK)[0]
        page.write_text(f"{head}{MARK}\n\n{table}\n", "utf-8")
    return table


def attempt(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """One try, in a process of its own."""
    lab = Lab(find_binaries(None))
    found = measure(lab, VARIANTS[name], seed, seconds=seconds)
    return {
        "seed": seed,
        "seconds": round(found.seconds, 2),
        "examples": found.examples,
        "operations": found.operations,
        "finding": found.finding.title if found.finding else None,
    }


def shortened(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """The length of one example after shrinking."""
    found = shrink(Lab(find_binaries(None)), VARIANTS[name], seed, seconds=seconds)
    return {
        "shrunk": found.operations,
        "rate": found.rate,
        "shrunk_seconds": round(found.seconds, 1),
    }


def rows(tries: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """A Markdown table, the hardest first, and a line for all of them."""
    yield "| wrong rule | found | median s | longest s | per 1000 examples | shrunk to |"
    yield "|---|---|---|---|---|---|"
    medians = []
    for name in sorted(tries, key=lambda name: rate(tries[name])):
        found = [each for each in tries[name] if each["finding"]]
        times = sorted(each["seconds"] for each in tries[name])
        medians.append(statistics.median(times))
        yield (
            f"| {VARIANTS[name].description} | {len(found)}/{len(times)} "
            f"| {medians[-1]:.1f} | {times[-1]:.1f} | {rate(tries[name]):.0f} "
            f"| {tries[name][0].get('shrunk') or '–'} |"
        )
    yield ""
    whole = statistics.median(each["seconds"] for some in tries.values() for each in some)
    missed = sum(each["finding"] is None for some in tries.values() for each in some)
    total = sum(map(len, tries.values()))
    yield (
        f"{len(tries)} wrong rules, {total} tries: median {whole:.1f} s over all, {missed} tries "
        "found nothing."
    )
    lengths = [each["shrunk"] for some in tries.values() for each in some if each.get("shrunk")]
    if lengths:
        sure = sum(each.get("rate") == 1.0 for some in tries.values() for each in some)
        yield (
            f"Shrunk: median {statistics.median(lengths):g} operations, longest {max(lengths)}; "
            f"{sure} of {len(lengths)} came back in every replay."
        )


def rate(tries: list[dict[str, Any]]) -> float:
    """Contradictions per thousand examples."""
    examples = sum(each["examples"] for each in tries)
    return float(1000 * sum(each["finding"] is not None for each in tries) / max(1, examples))


if __name__ == "__main__":
    sys.exit(main())
