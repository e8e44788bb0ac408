"""Migration between two real QEMUs, without a model."""

from pathlib import Path

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.migration import INCOMING, migrate
from qbprop.qemu.monitor import Command
from qbprop.qemu.primitives import MigrateQemu
from qbprop.qemu.process import QemuProcess

DISK = Command("blockdev-add", {"driver": "null-co", "node-name": "disk", "size": 1 << 20})
BITMAP = Command("block-dirty-bitmap-add", {"node": "disk", "name": "bitmap"})
STATES = 4
"""How often a migration that succeeds tells a new state, at most."""


def test_looks_at_what_is_left_are_no_flood(
    qemu: QemuProcess, binaries: Binaries, tmp_path: Path
) -> None:
    """A migration passes at least twice over what is left; on 11.1 up to 10,000 times."""
    qemu.monitor.execute_all([DISK, BITMAP])
    qemu.monitor._client._event_limit = STATES
    with QemuProcess(binaries, tmp_path, options=INCOMING) as new:
        new.monitor.execute(DISK)
        step = MigrateQemu(disks=(), bitmaps=True, old_mapping=None, new_mapping=None)
        assert migrate(qemu, new, step) is None
        nodes = new.monitor.execute(Command("query-named-block-nodes"))
    assert isinstance(nodes, list)
    assert [bitmap["name"] for bitmap in nodes[0]["dirty-bitmaps"]] == ["bitmap"]
