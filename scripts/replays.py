#!/usr/bin/env python3
"""How often each trace shows its finding again, on a fresh QEMU each time; one line a trace.

By default the traces of the known bugs of QEMU, of which some show themselves in several ways.
A trace that names no finding must agree each time. Exit code: 0 all came back each time, 1 some
did not. The shrunk examples of wrong rules are replayed as often by
`scripts/sensitivity.py --shrink`.
"""

import argparse
import sys
from pathlib import Path

from qbprop.campaign.known import shipped_known
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.replay import play
from qbprop.trace import read_trace

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "src" / "qbprop" / "known_traces"


def main() -> int:
    """Replay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="replays of each trace")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds that make a hang")
    parser.add_argument("--qemu", help="as for `qbprop fuzz`")
    parser.add_argument("traces", type=Path, nargs="*", help="by default the known bugs")
    options = parser.parse_args()
    lab = Lab(find_binaries(options.qemu), timeout=options.timeout)
    racy = 0
    for path in options.traces or sorted(KNOWN.glob("*.jsonl")):
        back = sum(comes_back(lab, path) for _ in range(options.times))
        print(f"{back} of {options.times}  {path.stem}", flush=True)
        racy += back < options.times
    return min(racy, 1)


def comes_back(lab: Lab, path: Path) -> bool:
    """Whether one replay ends as the trace says."""
    trace = read_trace(path)
    with lab.session() as session:
        finding = play(session, trace.examples)
    named = trace.header.finding
    if finding is None or named is None:
        return finding is None and named is None
    pages = {entry.id: entry.document for entry in shipped_known()}
    return pages.get(finding.id, finding.id) == pages.get(named.id, named.id)


if __name__ == "__main__":
    sys.exit(main())
