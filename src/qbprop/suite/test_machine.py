"""Random operations on a live QEMU, against the model."""

import pytest
from hypothesis import Phase, settings

from qbprop.campaign.canary import Canary
from qbprop.findings import Finding
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.profiles import OVERNIGHT, chosen_settings
from qbprop.qemu.binaries import find_binaries
from qbprop.streams import Stream


@pytest.mark.skipif(
    settings.get_current_profile_name() != OVERNIGHT, reason="only before a night's work"
)
def test_a_planted_mistake_is_found(pytestconfig: pytest.Config) -> None:
    few = settings(chosen_settings(), max_examples=200, database=None, phases=[Phase.generate])
    with Lab(find_binaries(pytestconfig.getoption("--qemu"))).session(Canary()) as session:
        machine = type("CanaryMachine", (BlockMachine,), {"session": session})
        with pytest.raises(Finding):
            Stream().search(machine, few)


def test_qemu_agrees_with_the_model(qbprop_stream: Stream) -> None:
    qbprop_stream.search(BlockMachine)
