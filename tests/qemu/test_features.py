"""Features are read out of the schema that QEMU gives of itself."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import pytest

from qbprop.errors import EnvironmentProblem
from qbprop.qemu import features as module
from qbprop.qemu.binaries import Binaries, program_version
from qbprop.qemu.features import TABLE, Schema, probe
from qbprop.qemu.monitor import Command, Error, Monitor, Reply
from qbprop.qemu.process import QemuProcess

Entities = list[dict[str, Any]]


@dataclass
class Recorded:
    """Stands between :func:`probe` and a real QEMU to leave something out of its answer."""

    version: Reply
    entities: Entities

    def execute_all(self, commands: Iterable[Command]) -> list[Reply]:
        return [self.version, self.entities]


def recorded(qemu: QemuProcess) -> Recorded:
    monitor = qemu.monitor
    version = monitor.execute(Command("query-version"))
    return Recorded(version, cast("Entities", monitor.execute(Command("query-qmp-schema"))))


def probe_recorded(answer: Recorded) -> module.Features:
    return probe(cast("Monitor", answer))


def trial(qemu: QemuProcess, command: str, **arguments: object) -> str:
    """The error text of a command that cannot succeed."""
    reply = qemu.monitor.execute(Command(command, arguments))
    assert isinstance(reply, Error)
    return reply.text


def test_features_agree_with_what_qemu_accepts(qemu: QemuProcess) -> None:
    """An unknown command or argument is refused as such; a known one for another reason."""
    backup = {"job-id": "j", "device": "x", "target": "y", "sync": "full"}
    export = {"id": "e", "type": "nbd", "node-name": "x"}
    texts = {
        "blockdev_backup_x_perf": trial(qemu, "blockdev-backup", **backup, **{"x-perf": {}}),
        "blockdev_backup_discard_source": trial(
            qemu, "blockdev-backup", **backup, **{"discard-source": False}
        ),
        "blockdev_backup_on_cbw_error": trial(
            qemu, "blockdev-backup", **backup, **{"on-cbw-error": "break-snapshot"}
        ),
        "drive_backup": trial(qemu, "drive-backup"),
        "blockdev_reopen": trial(qemu, "blockdev-reopen"),
        "block_export_add": trial(qemu, "block-export-add"),
        "export_bitmap_nodes": trial(
            qemu, "block-export-add", **export, bitmaps=[{"node": "n", "name": "b"}]
        ),
        "human_monitor_command": trial(qemu, "human-monitor-command"),
    }
    refused = ("is unexpected", "has not been found", "Invalid parameter type")
    accepted = {name: not any(word in text for word in refused) for name, text in texts.items()}
    found = asdict(qemu.features)
    del found["version"]
    assert found == accepted, texts


def test_version_is_qemus_own(qemu: QemuProcess, binaries: Binaries) -> None:
    assert program_version(binaries.system, "QEMU emulator").startswith(qemu.features.version)


@pytest.mark.parametrize(
    ("feature", "command"),
    [
        ("drive_backup", "drive-backup"),
        ("blockdev_reopen", "blockdev-reopen"),
        ("block_export_add", "block-export-add"),
        ("export_bitmap_nodes", "block-export-add"),
        ("human_monitor_command", "human-monitor-command"),
    ],
)
def test_a_feature_goes_with_its_command(feature: str, command: str, qemu: QemuProcess) -> None:
    answer = recorded(qemu)
    answer.entities = [entity for entity in answer.entities if entity["name"] != command]
    assert not getattr(probe_recorded(answer), feature)


def test_a_qemu_without_something_essential_is_refused(qemu: QemuProcess) -> None:
    answer = recorded(qemu)
    lost = {"block-dirty-bitmap-merge", "transaction"}
    answer.entities = [entity for entity in answer.entities if entity["name"] not in lost]
    with pytest.raises(EnvironmentProblem) as caught:
        probe_recorded(answer)
    assert f"QEMU {qemu.features.version} is too old" in str(caught.value)
    assert "it lacks block-dirty-bitmap-merge, transaction:" in str(caught.value)


def test_an_answer_that_is_no_schema_is_refused() -> None:
    refusal = Error("CommandNotFound", "no")
    with pytest.raises(EnvironmentProblem, match="cannot describe itself"):
        probe(cast("Monitor", Recorded({}, cast("Entities", refusal))))


def test_schema_tells_commands_from_events_and_types(qemu: QemuProcess) -> None:
    schema = Schema(recorded(qemu).entities)
    assert schema.has_command("query-block")
    assert not schema.has_command("BLOCK_JOB_COMPLETED")
    assert not schema.has_command("str")
    assert schema.argument("block-dirty-bitmap-add", "granularity") == {
        "name": "int",
        "meta-type": "builtin",
        "json-type": "int",
    }
    assert schema.argument("block-dirty-bitmap-add", "no-such-thing") is None


def test_every_feature_says_what_is_lost_without_it() -> None:
    assert all(feature.what and feature.without for feature in TABLE)
