#!/usr/bin/env python3
"""Campaigns with seeds 1, 2, 3, … until enough steps are checked; stops at the first failure.

Each campaign's directory is OUT/SEED. Options not known here go to
`qbprop fuzz`. Exit code: 0 all agreed; else that of the campaign that did not.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the campaigns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="steps to check in all")
    parser.add_argument("--max-time", default="5m", help="length of one campaign")
    parser.add_argument("--out", type=Path, required=True, help="folder, emptied first")
    options, passed_on = parser.parse_known_args()

    shutil.rmtree(options.out, ignore_errors=True)
    qbprop = Path(sys.executable).with_name("qbprop")
    steps = seed = 0
    while steps < options.steps:
        seed += 1
        folder = options.out / str(seed)
        campaign = [qbprop, "fuzz", "--seed", str(seed), "--max-time", options.max_time]
        code = subprocess.run([*campaign, "--out", folder, *passed_on], check=False).returncode
        if code:
            return code
        steps += json.loads((folder / "campaign.json").read_text())["steps"]
        print(f"soak: {steps} of {options.steps} steps checked, {seed} seeds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
