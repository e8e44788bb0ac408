#!/usr/bin/env python3
"""Runs exported scripts many times: each must exit as it should, every time.

The script of a known bug of QEMU must exit with 1 where a replay shows that bug, else with 0. The
trace of a wrong rule (tests/export/variants) stands in for a finding: exported by the wrong model
its script must exit with 1, by the right one with 0. Prints a line for each script; exits with 1
if one did otherwise.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.sensitivity.variants import VARIANTS  # noqa: E402

from qbprop.campaign.known import shipped_known  # noqa: E402
from qbprop.campaign.only_known import try_known  # noqa: E402
from qbprop.export import sh  # noqa: E402
from qbprop.export.certify import BEHAVES, BUG, export_sh, run  # noqa: E402
from qbprop.lab import Lab  # noqa: E402
from qbprop.qemu.binaries import find_binaries  # noqa: E402
from qbprop.trace import read_trace  # noqa: E402

WRONG = sorted((ROOT / "tests/export/variants").glob("*.jsonl"))


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs of each script")
    parser.add_argument("--patience", type=int, default=sh.PATIENCE, help="seconds: a hang")
    parser.add_argument("--qemu", help="the QEMU to export on [default: as qbprop]")
    parser.add_argument("--on", help="run the scripts of known bugs on this QEMU instead")
    parser.add_argument("names", nargs="*", help="traces, by default all")
    options = parser.parse_args()
    sh.PATIENCE = options.patience
    lab = Lab(find_binaries(options.qemu))
    place = Lab(find_binaries(options.on)) if options.on else lab
    wrong = 0
    for name, text, due in scripts(lab, place, set(options.names)):
        codes = Counter(run(text, place.binaries)[0] for _ in range(options.times))
        came = ", ".join(f"{count} of {options.times} with {code}" for code, count in codes.items())
        wrong += codes[due] != options.times
        print(
            f"{'ok ' if codes[due] == options.times else 'BAD'} due {due}: {came}  {name}",
            flush=True,
        )
    print(f"{wrong} scripts exited otherwise than they should")
    return int(wrong > 0)


def scripts(lab: Lab, place: Lab, names: set[str]) -> Iterator[tuple[str, str, int]]:
    """Name, text and due exit code of each script, exported on ``lab`` to be run at ``place``."""
    entries = shipped_known()
    wanted = {entry.trace for entry in entries} & names if names else None
    for tried in try_known(place, entries):
        name = tried.entry.trace
        if wanted is None or name in wanted:
            due = BUG if tried.outcome == "there" else BEHAVES
            yield name, export_sh(lab, tried.entry.read_trace()).text, due
    for path in WRONG:
        if place is lab and (not names or path.stem in names):
            trace = read_trace(path)
            with VARIANTS[path.stem].active() as rules:
                yield f"{path.stem}, by the wrong rule", export_sh(lab, trace, rules).text, BUG
            yield f"{path.stem}, by the right one", export_sh(lab, trace).text, BEHAVES


if __name__ == "__main__":
    sys.exit(main())
