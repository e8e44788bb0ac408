"""Features are read out of the schema that QEMU gives of itself."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, run
from typing import Any, cast

import pytest

from qbprop.errors import EnvironmentProblem
from qbprop.qemu import features as module
from qbprop.qemu.binaries import Binaries, program_version
from qbprop.qemu.features import TABLE, TRIALS, Schema, probe
from qbprop.qemu.monitor import Command, Error, Monitor, Reply
from qbprop.qemu.process import QemuProcess

Entities = list[dict[str, Any]]


@dataclass
class Recorded:
    """Stands between :func:`probe` and a real QEMU to leave something out of its answer."""

    version: Reply
    entities: Entities
    trials: list[Reply]

    def execute_all(self, commands: Iterable[Command]) -> list[Reply]:
        return [self.version, self.entities, *self.trials]


def recorded(qemu: QemuProcess) -> Recorded:
    monitor = qemu.monitor
    version = monitor.execute(Command("query-version"))
    entities = cast("Entities", monitor.execute(Command("query-qmp-schema")))
    return Recorded(version, entities, monitor.execute_all(list(TRIALS.values())))


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
        "copy_before_write": trial(qemu, "blockdev-add", driver="copy-before-write"),
    }
    refused = (
        "is unexpected",
        "has not been found",
        "Invalid parameter type",
        "Invalid parameter 'c",
    )
    accepted = {name: not any(word in text for word in refused) for name, text in texts.items()}
    found = asdict(qemu.features)
    assert {name: found[name] for name in accepted} == accepted, texts


def test_what_a_group_refuses_first(qemu: QemuProcess) -> None:
    backup = {"job-id": "j", "device": "nowhere", "target": "y", "sync": "full"}
    text = trial(
        qemu,
        "transaction",
        actions=[{"type": "blockdev-backup", "data": backup}, {"type": "abort", "data": {}}],
        properties={"completion-mode": "grouped"},
    )
    assert qemu.features.groups_checked_first == ("completion-mode" in text), text


def test_whose_the_copy_bitmap_is(qemu: QemuProcess) -> None:
    for name in ("a", "b"):
        null = {"driver": "null-co", "node-name": name, "size": 65536, "read-zeroes": True}
        assert qemu.monitor.execute(Command("blockdev-add", null)) == {}
    backup = {"job-id": "j", "device": "a", "target": "b", "sync": "none", "filter-node-name": "f"}
    assert qemu.monitor.execute(Command("blockdev-backup", backup)) == {}
    nodes = cast("Entities", qemu.monitor.execute(Command("query-named-block-nodes")))
    bitmaps = {node["node-name"]: len(node.get("dirty-bitmaps", ())) for node in nodes}
    assert bitmaps["a"] == (0 if qemu.features.copy_bitmap_on_filter else 1)
    assert bool(bitmaps["f"]) == qemu.features.copy_before_write


def test_whether_zeroing_frees_clusters_without_discard(
    qemu: QemuProcess, binaries: Binaries, tmp_path: Path
) -> None:
    image = tmp_path / "a.qcow2"
    run([binaries.img, "create", "-q", "-f", "qcow2", image, "64k"], check=True)
    requests = ["-c", "write -q 0 64k", "-c", "write -q -z -u 0 64k"]
    run([binaries.io, "-d", "off", *requests, image], check=True)
    told = run([binaries.img, "map", "--output=json", image], check=True, stdout=PIPE).stdout
    (extent,) = json.loads(told)
    assert qemu.features.unmap_needs_discard == ("offset" in extent)


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
        probe(cast("Monitor", Recorded({}, cast("Entities", refusal), [refusal])))


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
