"""QMP against a real QEMU: replies, events, and every way of not answering."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qbprop.qemu.monitor import (
    Command,
    Error,
    Event,
    EventFlood,
    QemuDied,
    QemuSilent,
    Reply,
    _message,
)
from qbprop.qemu.process import QemuProcess

VERSION = Command("query-version")
CREATE = Command(
    "blockdev-create",
    {"job-id": "job", "options": {"driver": "file", "filename": "a.img", "size": 65536}},
)


@contextmanager
def quicker_than(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def value(reply: Reply) -> Any:
    assert not isinstance(reply, Error)
    return reply


def keep_asking(qemu: QemuProcess) -> None:
    for _ in range(1000):
        qemu.monitor.execute(VERSION)


def events_of(qemu: QemuProcess, *commands: str) -> list[str]:
    qemu.monitor.execute_all([Command(name) for name in commands])
    return [event.name for event in qemu.monitor.events()]


def test_a_reply_is_the_value_returned(qemu: QemuProcess) -> None:
    reply = value(qemu.monitor.execute(VERSION))
    assert "{major}.{minor}.{micro}".format(**reply["qemu"]) == qemu.features.version


def test_a_refusal_is_returned_with_class_and_text(qemu: QemuProcess) -> None:
    missing = Command("query-nonsense")
    assert qemu.monitor.execute(missing) == Error(
        "CommandNotFound", "The command query-nonsense has not been found"
    )
    delete = Command("blockdev-del", {"node-name": "x"})
    reply = qemu.monitor.execute(delete)
    assert isinstance(reply, Error)
    assert reply.error_class == "GenericError"
    assert "x" in reply.text


def test_replies_to_commands_sent_together_come_in_order(qemu: QemuProcess) -> None:
    def add(node: str) -> Command:
        return Command("blockdev-add", {"driver": "null-co", "node-name": node})

    before = qemu.monitor.round_trips
    one, refused, two, nodes, nothing = qemu.monitor.execute_all(
        [
            *(add("one"), add("one"), add("two")),
            *(Command("query-named-block-nodes"), Command("query-nonsense")),
        ]
    )
    assert (one, two) == ({}, {})
    assert isinstance(refused, Error)
    assert {node["node-name"] for node in value(nodes)} == {"one", "two"}
    assert isinstance(nothing, Error)
    assert nothing.error_class == "CommandNotFound"
    assert qemu.monitor.round_trips == before + 1


def test_many_commands_sent_together_are_all_answered(qemu: QemuProcess) -> None:
    """More than QEMU's own queue of requests holds, and than the socket's buffers."""
    names = [f"query-{i}-{'x' * 1000}" for i in range(100)]
    replies = qemu.monitor.execute_all([Command(name) for name in names])
    texts = [f"The command {name} has not been found" for name in names]
    assert replies == [Error("CommandNotFound", text) for text in texts]


def test_no_commands_need_no_reply(qemu: QemuProcess) -> None:
    assert qemu.monitor.execute_all([]) == []


def test_odd_names_survive_the_way_there_and_back(qemu: QemuProcess) -> None:
    monitor = qemu.monitor
    monitor.execute(Command("blockdev-add", {"driver": "null-co", "node-name": "n"}))
    for name in ('"', "\\", "ä€😀", "a\nb", "%s", "\x7f"):
        add = Command("block-dirty-bitmap-add", {"node": "n", "name": name})
        assert monitor.execute(add) == {}
        (node,) = value(monitor.execute(Command("query-named-block-nodes")))
        assert name in {bitmap["name"] for bitmap in node["dirty-bitmaps"]}


def test_a_large_reply_comes_whole(qemu: QemuProcess) -> None:
    assert len(value(qemu.monitor.execute(Command("query-qmp-schema")))) > 500


def test_events_are_taken_in_order_and_once(qemu: QemuProcess) -> None:
    assert events_of(qemu, "cont", "stop", "cont") == ["RESUME", "STOP", "RESUME"]
    assert qemu.monitor.events() == []


def test_waiting_sees_events_to_come_and_takes_none(qemu: QemuProcess) -> None:
    assert qemu.monitor.execute(CREATE) == {}
    concluded = Event("JOB_STATUS_CHANGE", {"id": "job", "status": "concluded"})
    qemu.monitor.wait(lambda event: event == concluded)
    qemu.monitor.wait(lambda event: event == concluded)
    seen = [event.data["status"] for event in qemu.monitor.events()]
    assert seen[0] == "created"
    assert "concluded" in seen


def test_waiting_in_vain_ends(qemu: QemuProcess) -> None:
    qemu.monitor.timeout = 0.1
    with quicker_than(1), pytest.raises(QemuSilent, match="an awaited event did not come"):
        qemu.monitor.wait(lambda event: event.name == "NEVER")


@pytest.mark.needs("blockdev_backup_x_perf")
def test_a_stream_of_other_events_does_not_prolong_a_wait(qemu: QemuProcess) -> None:
    """The bound is for the wait as a whole: here some event comes every few milliseconds."""
    monitor = qemu.monitor
    for name in ("source", "target"):
        node = {"driver": "null-co", "node-name": name, "size": 1 << 30, "read-zeroes": True}
        assert monitor.execute(Command("blockdev-add", node)) == {}
    backup = {"job-id": "job", "device": "source", "target": "target", "sync": "full", "speed": 1}
    assert monitor.execute(Command("blockdev-backup", backup)) == {}

    def jostle(_: Event) -> bool:
        monitor._client.send([_message(Command("job-pause", {"id": "job"}))])
        monitor._client.send([_message(Command("job-resume", {"id": "job"}))])
        return False

    monitor.timeout = 0.3
    with quicker_than(1.5), pytest.raises(QemuSilent, match="event did not come"):
        monitor.wait(jostle)
    assert len(monitor.events()) > 10


def test_too_many_events_are_a_flood_and_are_not_kept(qemu: QemuProcess) -> None:
    monitor = qemu.monitor
    monitor._client._event_limit = 4
    toggles = [Command("cont"), Command("stop")] * 20
    with pytest.raises(EventFlood, match="more than 4 events"):
        monitor.execute_all(toggles)
    assert [event.name for event in monitor.events()] == ["RESUME", "STOP"] * 2
    with pytest.raises(EventFlood):
        monitor.execute(VERSION)


def test_as_many_events_as_the_limit_are_no_flood(qemu: QemuProcess) -> None:
    qemu.monitor._client._event_limit = 4
    for _ in range(3):
        assert len(events_of(qemu, "cont", "stop", "cont", "stop")) == 4


def test_a_stopped_qemu_is_silent_and_stays_so(qemu: QemuProcess) -> None:
    """A late reply must not be taken for that of the next command."""
    os.kill(qemu.pid, signal.SIGSTOP)
    qemu.monitor.timeout = 0.2
    with quicker_than(1), pytest.raises(QemuSilent, match=r"0\.2 s: no reply to query-version"):
        qemu.monitor.execute(VERSION)
    os.kill(qemu.pid, signal.SIGCONT)
    with pytest.raises(QemuSilent):
        qemu.monitor.execute(Command("query-status"))
    with pytest.raises(QemuSilent):
        qemu.monitor.wait(lambda _: True)


def test_silence_names_the_command_without_a_reply(qemu: QemuProcess) -> None:
    """A synchronous read of a node that never answers holds up the monitor."""
    monitor = qemu.monitor
    slow = {"driver": "null-co", "node-name": "n", "latency-ns": 10**12, "read-zeroes": True}
    assert monitor.execute(Command("blockdev-add", slow)) == {}
    monitor.timeout = 0.2
    read = Command("human-monitor-command", {"command-line": 'qemu-io n "read 0 512"'})
    with quicker_than(1), pytest.raises(QemuSilent, match="no reply to human-monitor-command"):
        monitor.execute_all([VERSION, read, VERSION])


def test_a_stopped_qemu_does_not_hold_up_a_large_command(qemu: QemuProcess) -> None:
    os.kill(qemu.pid, signal.SIGSTOP)
    qemu.monitor.timeout = 0.2
    large = Command("query-nonsense", {"text": "x" * (8 << 20)})
    with quicker_than(2), pytest.raises(QemuSilent):
        qemu.monitor.execute(large)
    with quicker_than(1):
        qemu.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_death_between_commands_is_told_with_its_signal(
    number: signal.Signals, qemu: QemuProcess
) -> None:
    os.kill(qemu.pid, number)
    with quicker_than(1.5), pytest.raises(QemuDied, match=f"signal {number.value}") as caught:
        keep_asking(qemu)
    assert caught.value.returncode == -number


def test_death_during_a_command_is_told_at_once(qemu: QemuProcess) -> None:
    os.kill(qemu.pid, signal.SIGSTOP)
    killer = threading.Timer(0.1, os.kill, (qemu.pid, signal.SIGKILL))
    killer.start()
    with quicker_than(2), pytest.raises(QemuDied) as caught:
        qemu.monitor.execute(VERSION)
    killer.join()
    assert caught.value.returncode == -signal.SIGKILL


def test_death_while_waiting_for_an_event_is_told_at_once(qemu: QemuProcess) -> None:
    killer = threading.Timer(0.1, os.kill, (qemu.pid, signal.SIGKILL))
    killer.start()
    with quicker_than(2), pytest.raises(QemuDied):
        qemu.monitor.wait(lambda event: event.name == "NEVER")
    killer.join()


def test_death_carries_what_was_said_last(qemu: QemuProcess) -> None:
    os.kill(qemu.pid, signal.SIGTERM)
    with pytest.raises(QemuDied) as caught:
        keep_asking(qemu)
    assert caught.value.returncode == 0
    assert "terminating on signal 15" in caught.value.stderr
    assert "exit code 0: " in str(caught.value)
    assert "terminating on signal 15" in str(caught.value)


def test_an_unserialisable_argument_leaves_the_monitor_usable(qemu: QemuProcess) -> None:
    with pytest.raises(TypeError):
        qemu.monitor.execute(Command("query-version", {"path": Path()}))
    assert "qemu" in value(qemu.monitor.execute(VERSION))


def test_a_closed_monitor_says_so(qemu: QemuProcess) -> None:
    qemu.monitor.close()
    qemu.monitor.close()
    with pytest.raises(QemuSilent, match="closed"):
        qemu.monitor.execute(VERSION)
