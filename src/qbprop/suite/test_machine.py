"""Random operations on a live QEMU, against the model."""

from hypothesis.stateful import run_state_machine_as_test

from qbprop.machine import BlockMachine
from qbprop.profiles import chosen_settings


def test_qemu_agrees_with_the_model() -> None:
    run_state_machine_as_test(BlockMachine, settings=chosen_settings())
