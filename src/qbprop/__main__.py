"""``python -m qbprop``."""

from qbprop.cli import main

main(prog_name="qbprop")
