"""A small machine and wrong models, for campaigns that take seconds."""

from io import StringIO
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from rich.console import Console

from qbprop.campaign.runner import Campaign, Options
from qbprop.campaign.summary import Summary
from qbprop.lab import Lab
from qbprop.machine import step_rule
from qbprop.machine.core import MachineBase
from qbprop.qemu.binaries import find_binaries
from qbprop_model.bitmap import ceil_div
from qbprop_model.operations import AddDisk, BitmapAdd, BitmapClear, Layer, Write
from qbprop_model.rules import Rules

GRANULARITY = 65536

Transport = Literal["nbd", "hmp"]


class SmallMachine(MachineBase):
    """One disk with a bitmap; writes, and clearing the bitmap."""

    @initialize()
    def start(self) -> None:
        """The disk and its bitmap."""
        layer = Layer(size=16 * GRANULARITY, format="raw")
        self.perform(
            [
                AddDisk(node="drive0", layers=(layer,)),
                BitmapAdd(node="drive0", name="bitmap0", granularity=GRANULARITY),
            ]
        )

    @step_rule
    @rule(node=st.sampled_from(["drive0", "drive1"]))
    def clear(self, node: str) -> None:
        """Clear the bitmap, or one that is not there."""
        self.perform(BitmapClear(node=node, name="bitmap0"))

    @step_rule
    @rule(sector=st.integers(0, 1000), length=st.integers(0, 300))
    def write(self, sector: int, length: int) -> None:
        """Write sectors."""
        self.perform(Write(node="drive0", offset=512 * sector, length=512 * length, stamp=sector))


class ForgetsPartialCluster(Rules):
    """The last cluster that a request touches in part stays clean."""

    def covered(self, granularity: int, offset: int, length: int) -> slice:
        """Rounded downward."""
        return slice(ceil_div(offset, granularity), (offset + length) // granularity)


def run(out: Path, transport: Transport | None = None, **options: Any) -> Summary:
    """A campaign of the small machine on the QEMU that is installed."""
    chosen: dict[str, Any] = {
        "machine": SmallMachine,
        "seed": 1,
        "max_examples": 15,
        "profile": "qbprop-dev",
    }
    chosen |= options
    lab = Lab(find_binaries(None), transport)
    return Campaign(lab, Options(out=out, **chosen), Console(file=StringIO())).run()
