"""What a campaign does not test, and why."""

from collections.abc import Collection, Iterator

from qbprop.hazards import Hazard
from qbprop.qemu.driver import Driver
from qbprop.qemu.features import TABLE


def skipped(driver: Driver, shunned: Collection[Hazard], focus: Collection[str]) -> Iterator[str]:
    """A line for each thing: what QEMU lacks, what it is known to fall for, what was not asked."""
    if focus:
        yield f"what has to do with none of {', '.join(focus)}: --focus asks for these"
    if driver.transport == "hmp":
        yield "bitmaps in exports, and writes held in flight: libnbd's Python module is missing"
    for feature in TABLE:
        if not getattr(driver.features, feature.name):
            yield f"{feature.what}: {feature.without}"
    for label in sorted(hazard.label for hazard in shunned):
        yield f"{label}, in most examples: this QEMU is known to fall for it"
