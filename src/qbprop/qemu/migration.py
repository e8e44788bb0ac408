"""Live migration from one running QEMU to another, which was launched to be migrated to."""

from collections.abc import Mapping

from qbprop.qemu.monitor import Command, Error, Event, QemuSilent
from qbprop.qemu.observation import Refused
from qbprop.qemu.patience import Patience
from qbprop.qemu.primitives import MigrateQemu
from qbprop.qemu.process import QemuProcess
from qbprop.qemu.query import accepted

INCOMING = ("-incoming", "defer")
"""The options of a QEMU that is migrated to."""

UNANNOUNCED = ("-global", "migration.send-switchover-start=off")
"""The options of a QEMU that announces the end of a migration: not all others understand that."""

DOWNTIME = 2_000_000
"""Milliseconds that the end of a migration may take, as many as QEMU allows.

QEMU ends a migration once what is left takes no longer than that at the speed that was measured,
and there is no speed to measure on a machine without memory. Bitmaps alone are left to the end.
"""

SOCKET = "migration.socket"
"""Where the two meet: a file in the folder of both."""


def migrate(old: QemuProcess, new: QemuProcess, step: MigrateQemu) -> Refused | None:
    """Migrate, and let the new QEMU go on; what the old one said if it failed and goes on itself.

    Raises RequestRefused when either refuses a command, and the gone exceptions of either.
    """
    capabilities = {"dirty-bitmaps": step.bitmaps, "events": True}
    states = [{"capability": key, "state": state} for key, state in capabilities.items()]
    for process, mapping in ((old, step.old_mapping), (new, step.new_mapping)):
        _tell(process, "migrate-set-capabilities", {"capabilities": states})
        if mapping is not None:
            _tell(process, "migrate-set-parameters", {"block-bitmap-mapping": mapping})
    _tell(old, "migrate-set-parameters", {"downtime-limit": DOWNTIME})
    address = {"uri": f"unix:{SOCKET}"}
    _tell(new, "migrate-incoming", address)
    _tell(old, "migrate", address)
    old.monitor.wait(_ended)
    if any(map(_failed, old.monitor.events())):
        _await_silence(old)
        program, _, said = old.stderr_text().strip().partition(": ")
        return Refused("qmp", "GenericError", said.split(f"\n{program}: ")[0])
    new.monitor.wait(_ended)
    _tell(new, "cont", {})
    new.monitor.events()
    return None


def _await_silence(old: QemuProcess) -> None:
    """Wait until all of a failed migration is closed: until then QEMU may complain of that.

    Before 6.0 QEMU does not tell, and has not been seen to complain.
    """
    patience = Patience(old.monitor.timeout)
    while not patience.over:
        instances = old.monitor.execute(Command("query-yank"))
        if isinstance(instances, Error) or {"type": "migration"} not in instances:
            return
    raise QemuSilent("a migration that has failed is not closed", old.monitor.timeout)


def _tell(process: QemuProcess, name: str, arguments: Mapping[str, object]) -> None:
    accepted(process.monitor.execute(Command(name, arguments)))


def _ended(event: Event) -> bool:
    return event.name == "MIGRATION" and event.data["status"] in ("completed", "failed")


def _failed(event: Event) -> bool:
    return event.name == "MIGRATION" and event.data["status"] == "failed"
