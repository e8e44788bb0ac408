"""What qbprop costs: written to build/bench.json, and shown as tables.

``overhead_ratio`` is the time of a campaign over that of its bare traffic with QEMU, sent
again in the same run (benchmarks/bare.py): the median over the seeds.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from benchmarks.lengths import length
from benchmarks.memory import memory
from benchmarks.overhead import overhead
from benchmarks.worlds import worlds
from rich.console import Console
from rich.table import Table

from qbprop.atomic import write_atomically
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries

LENGTHS = (20, 50, 100, 200, 500)
"""Most rules of an example."""

PER_STEP = (
    "round_trips_per_step",
    "commands_per_step",
    "bytes_sent_per_step",
    "bytes_received_per_step",
)

console = Console()


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--qemu", help="as for qbprop fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a campaign")
    parser.add_argument("--seeds", type=int, default=3, help="campaigns")
    parser.add_argument("--steps", type=int, default=1000, help="steps in worlds of each size")
    parser.add_argument(
        "--memory",
        type=int,
        default=0,
        help="compare memory after so many steps and ten times that",
    )
    parser.add_argument("--out", type=Path, default=Path("build", "bench.json"))
    options = parser.parse_args()

    lab = Lab(find_binaries(options.qemu))
    with lab.driver() as driver:
        version = driver.version
    runs = [overhead(lab, seed, options.seconds) for seed in range(1, options.seeds + 1)]
    record: dict[str, Any] = {
        key: statistics.median(run[key] for run in runs)
        for key in ("overhead_ratio", "steps_per_second", *PER_STEP)
    }
    record |= {"qemu_version": version, "cpus": os.cpu_count(), "python": platform.python_version()}
    record |= {"runs": runs}
    show_overhead(record)
    record["lengths"] = [length(lab, steps, options.seconds / 6) for steps in LENGTHS]
    show("examples by length", record["lengths"])
    record["worlds"] = worlds(options.steps)
    large = record["worlds"]
    show("worlds", [large["large"], large["small"], *large["bitmaps"]])
    console.print(f"16 TiB over 4 MiB, time per step: {large['time_ratio']:.2f}")
    if options.memory:
        record["memory"] = memory(options.memory, 10 * options.memory)
        console.print(record["memory"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, json.dumps(record, indent=1) + "\n")
    console.print(f"written to {options.out}")


def show_overhead(record: dict[str, Any]) -> None:
    """The ratio, and where the time went."""
    runs = record["runs"]
    table = Table("share of the campaign", *(f"seed {run['seed']}" for run in runs), box=None)
    for part in runs[0]["shares"]:
        table.add_row(part, *(f"{run['shares'][part]:.1%}" for run in runs))
    for key in ("overhead_ratio", "steps_per_second", *PER_STEP, "launches", "programs_run"):
        table.add_row(key, *(f"{run[key]:.2f}" for run in runs))
    console.print(table)
    console.print(f"QEMU {record['qemu_version']}: overhead_ratio {record['overhead_ratio']:.2f}")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of records that have the same fields."""
    table = Table(*rows[0], title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else f"{v:,}" for v in row.values()))
    console.print(table)


if __name__ == "__main__":
    main()
