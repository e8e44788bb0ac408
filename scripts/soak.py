#!/usr/bin/env python3
"""Campaigns with seeds 1, 2, 3, … until enough steps are checked; stops at the first failure.

As many run side by side as there are processors. Each has the directory OUT/SEED and its
output in OUT/SEED.log; OUT/campaign.json adds them all up. Options not known here go to
`qbprop fuzz`. Exit code: 0 all agreed; else that of the campaign that did not.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5


def main() -> int:
    """Run the campaigns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="steps to check in all")
    parser.add_argument("--max-time", default="5m", help="length of one campaign")
    parser.add_argument("--first-seed", type=int, default=1, help="where the seeds start")
    parser.add_argument("--out", type=Path, required=True, help="folder, emptied first")
    options, passed_on = parser.parse_known_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)

    seeds = itertools.count(options.first_seed)
    running: dict[int, subprocess.Popen[bytes]] = {}
    done: list[dict[str, Any]] = []
    code = 0
    try:
        while not code and _steps(done) < options.steps:
            while len(running) < (os.cpu_count() or 1):
                seed = next(seeds)
                running[seed] = _start(seed, options, passed_on)
            time.sleep(POLL_SECONDS)
            for seed in [seed for seed, process in running.items() if process.poll() is not None]:
                code = code or running.pop(seed).returncode
                summary = options.out / str(seed) / "campaign.json"
                if summary.exists():
                    done.append(json.loads(summary.read_text()))
                _write(options.out, done)
                print(
                    f"soak: seed {seed} over, {_steps(done)} of {options.steps} steps", flush=True
                )
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            process.wait()
    return code


def _start(seed: int, options: argparse.Namespace, passed_on: list[str]) -> subprocess.Popen[bytes]:
    qbprop = Path(sys.executable).with_name("qbprop")
    command = [qbprop, "fuzz", "--seed", str(seed), "--max-time", options.max_time]
    with (options.out / f"{seed}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--out", options.out / str(seed), *passed_on],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _steps(done: list[dict[str, Any]]) -> int:
    return sum(summary["steps"] for summary in done)


def _write(out: Path, done: list[dict[str, Any]]) -> None:
    """All campaigns in one summary: numbers added up, findings by id."""
    operations: Counter[str] = Counter()
    findings: dict[str, dict[str, Any]] = {}
    for summary in done:
        operations.update(summary["operations"])
        for finding in summary["findings"]:
            known = findings.setdefault(finding["id"], finding | {"count": 0})
            known["count"] += finding["count"]
    total = {
        "qbprop": done[0]["qbprop"],
        "qemus": done[0]["qemus"],
        "seeds": sorted(summary["seed"] for summary in done),
        "findings": list(findings.values()),
        "operations": dict(operations),
    }
    for key in ("seconds", "examples", "steps", "shrink_steps", "commands"):
        total[key] = sum(summary[key] for summary in done)
    (out / "campaign.json").write_text(json.dumps(total, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
