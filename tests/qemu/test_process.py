"""The life and death of a real QEMU process."""

import gc
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qbprop.errors import EnvironmentProblem
from qbprop.qemu import process as module
from qbprop.qemu.binaries import Binaries
from qbprop.qemu.monitor import Command
from qbprop.qemu.process import QemuProcess


def ends(pid: int, seconds: float = 5) -> bool:
    """Whether a process, no child of this one, ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def child(code: str, folder: Path) -> subprocess.Popen[str]:
    """Another Python that finds QEMU, and has ``binaries`` and ``folder``."""
    preamble = f"""
        import os, signal, sys
        from pathlib import Path
        from qbprop.qemu.binaries import find_binaries
        from qbprop.qemu.monitor import Command
        from qbprop.qemu.process import QemuProcess
        binaries, folder = find_binaries(None), Path({str(folder)!r})
    """
    program = textwrap.dedent(preamble) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def fake(path: Path, text: str, binaries: Binaries) -> Binaries:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Binaries(path, binaries.img, binaries.io)


def launch_problem(binaries: Binaries, folder: Path) -> str:
    with pytest.raises(EnvironmentProblem) as caught:
        QemuProcess(binaries, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def hmp(qemu: QemuProcess, line: str) -> None:
    reply = qemu.monitor.execute(Command("human-monitor-command", {"command-line": line}))
    assert reply == ""


def add_null(qemu: QemuProcess) -> None:
    node = {"driver": "null-co", "node-name": "n", "read-zeroes": True}
    assert qemu.monitor.execute(Command("blockdev-add", node)) == {}


def test_the_process_is_qemu_itself_in_its_folder_and_group(
    qemu: QemuProcess, tmp_path: Path
) -> None:
    about = Path(f"/proc/{qemu.pid}")
    command = (about / "cmdline").read_bytes()
    assert b"qemu-system" in command
    assert b"--pdeathsig" not in command
    assert (about / "cwd").resolve() == tmp_path.resolve()
    assert os.getpgid(qemu.pid) == qemu.pid
    assert qemu.alive
    assert qemu.returncode is None


def test_a_crash_is_not_held_up_by_a_core_dump(qemu: QemuProcess) -> None:
    soft, hard = resource.prlimit(qemu.pid, resource.RLIMIT_CORE)
    assert soft == (1 if hard else 0)


def test_nothing_is_in_a_fresh_qemu(qemu: QemuProcess) -> None:
    queries = ["query-named-block-nodes", "query-jobs", "query-block-exports", "query-block"]
    assert qemu.monitor.execute_all([Command(name) for name in queries]) == [[]] * 4
    assert qemu.monitor.events() == []
    assert qemu.all_stderr() == ""


def test_the_path_of_the_folder_may_be_long_and_odd(binaries: Binaries, tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 40) / "ä,=%s" / ("x" * 200)
    folder.mkdir(parents=True)
    with QemuProcess(binaries, folder) as qemu:
        assert qemu.alive


def test_what_hmp_prints_can_be_read_at_once_and_once(qemu: QemuProcess) -> None:
    add_null(qemu)
    hmp(qemu, 'qemu-io n "read 0 512"')
    assert "read 512/512 bytes at offset 0" in qemu.stdout_text()
    assert qemu.stdout_text() == ""
    hmp(qemu, 'qemu-io n "read 512 512"')
    hmp(qemu, 'qemu-io n "read 1024 512"')
    text = qemu.stdout_text()
    assert "offset 512" in text
    assert "offset 1024" in text
    assert "offset 0" not in text


def test_outputs_can_be_read_after_the_end(qemu: QemuProcess) -> None:
    add_null(qemu)
    hmp(qemu, 'qemu-io n "read 0 512"')
    os.kill(qemu.pid, signal.SIGTERM)
    qemu.quit()
    assert "bytes at offset 0" in qemu.stdout_text()
    assert "terminating on signal 15" in qemu.all_stderr()
    assert "terminating on signal 15" in qemu.stderr_text()
    assert qemu.stderr_text() == ""
    assert "terminating on signal 15" in qemu.all_stderr()


@pytest.mark.needs("trace_events")
def test_what_qemu_does_inside_is_traced_while_it_is_told_to(
    qemu: QemuProcess, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(bytes(65536))
    image = {"node-name": "file0", "driver": "file", "filename": "image"}
    create = {"job-id": "job0", "options": {"driver": "qcow2", "file": "file0", "size": 65536}}
    assert {"bdrv_open_common", "job_completed"} < set(qemu.trace_events())
    assert not {event for event in qemu.trace_events() if event.startswith("dma_")}
    qemu.trace(on=True)
    assert qemu.traced() == set()
    qemu.monitor.execute(Command("blockdev-add", image))
    assert qemu.traced() == {"bdrv_open_common"}
    qemu.monitor.execute(Command("blockdev-create", create))
    qemu.monitor.wait(lambda event: event.data.get("status") == "concluded")
    moves = {each for each in qemu.traced() if each.startswith("job_state_transition")}
    assert "job_state_transition.created.running" in moves
    assert all(each.count(".") == 2 for each in moves)
    qemu.trace(on=False)
    qemu.monitor.execute(Command("job-dismiss", {"id": "job0"}))
    assert qemu.traced() == set()


def test_a_long_output_is_read_to_its_end(
    qemu: QemuProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 100)
    add_null(qemu)
    for _ in range(10):
        hmp(qemu, 'qemu-io n "read 4096 512"')
    hmp(qemu, 'qemu-io n "read 512 512"')
    text = qemu.stdout_text()
    assert len(text) == 100
    assert "at offset 512" in text or "ops/sec" in text
    qemu.kill()
    assert qemu.stdout_text() == ""


def test_a_relaunch_in_the_same_folder_starts_with_empty_outputs(
    binaries: Binaries, tmp_path: Path
) -> None:
    with QemuProcess(binaries, tmp_path) as first:
        os.kill(first.pid, signal.SIGTERM)
        first.quit()
        assert first.all_stderr()
    with QemuProcess(binaries, tmp_path) as second:
        assert second.all_stderr() == ""


@pytest.mark.parametrize("stopped", [False, True])
def test_kill_ends_and_reaps(stopped: bool, qemu: QemuProcess) -> None:  # noqa: FBT001
    if stopped:
        os.kill(qemu.pid, signal.SIGSTOP)
    qemu.kill()
    assert qemu.returncode == -signal.SIGKILL
    assert not qemu.alive
    with pytest.raises(ChildProcessError):
        os.waitpid(qemu.pid, os.WNOHANG)
    qemu.kill()
    assert qemu.quit() == -signal.SIGKILL


def test_quit_is_orderly(qemu: QemuProcess) -> None:
    assert qemu.quit() == 0
    assert qemu.returncode == 0
    assert qemu.quit() == 0


def test_quit_kills_what_does_not_answer(qemu: QemuProcess) -> None:
    qemu.monitor.timeout = 0.2
    os.kill(qemu.pid, signal.SIGSTOP)
    assert qemu.quit() == -signal.SIGKILL


def test_quit_tells_how_a_dead_one_died(qemu: QemuProcess) -> None:
    os.kill(qemu.pid, signal.SIGABRT)
    assert qemu.quit() == -signal.SIGABRT


def test_leaving_the_context_kills_also_a_stopped_one(binaries: Binaries, tmp_path: Path) -> None:
    with QemuProcess(binaries, tmp_path) as qemu:
        os.kill(qemu.pid, signal.SIGSTOP)
    assert not qemu.alive


def opened() -> Counter[str]:
    """What the descriptors of this process lead to."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 (the folder changes while read)
        with suppress(FileNotFoundError):
            found[os.readlink(f"/proc/self/fd/{descriptor}")] += 1  # noqa: PTH115
    return found


def test_nothing_is_left_open(binaries: Binaries, tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left may be closed at any time, and is none of this one's
    before = opened()
    for end in (QemuProcess.kill, QemuProcess.quit):
        end(QemuProcess(binaries, tmp_path))
    with pytest.raises(EnvironmentProblem):
        QemuProcess(fake(tmp_path / "no-qemu", "exit 1", binaries), tmp_path)
    assert opened() <= before


@pytest.mark.parametrize("stopped", [False, True])
def test_qemu_dies_with_a_parent_killed_without_mercy(
    stopped: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    code = f"""
        qemu = QemuProcess(binaries, folder)
        if {stopped}:
            os.kill(qemu.pid, signal.SIGSTOP)
        print(qemu.pid, flush=True)
        sys.stdin.read()
        signal.pause()
    """
    with child(code, tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            assert not ends(pid, 0)
            parent.kill()
            assert ends(pid)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_thread_may_not_launch(binaries: Binaries, tmp_path: Path) -> None:
    """Linux would kill QEMU at the end of the thread."""
    caught = []

    def launch() -> None:
        try:
            QemuProcess(binaries, tmp_path)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_ctrl_c_in_a_wait_leaves_no_mess(tmp_path: Path) -> None:
    code = """
        qemu = QemuProcess(binaries, folder)
        os.kill(qemu.pid, signal.SIGSTOP)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            qemu.monitor.execute(Command("query-version"))
        except KeyboardInterrupt:
            qemu.quit()
            print(qemu.returncode)
    """
    with child(code, tmp_path) as process:
        stdout, stderr = process.communicate(timeout=10)
    assert (stdout, stderr, process.returncode) == ("-9\n", "", 0)


def test_ctrl_c_at_any_moment_leaves_a_qemu_that_can_be_killed(tmp_path: Path) -> None:
    """The moments are spread over the work of sending, waiting and receiving."""
    code = """
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for round in range(12):
            with QemuProcess(binaries, folder) as qemu:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.001 + round * 0.00015, 0.5)
                    while True:
                        qemu.monitor.execute(Command("query-version"))
                except KeyboardInterrupt:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert qemu.returncode == -9
        print("done")
    """
    with child(code, tmp_path) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (stdout, process.returncode) == ("done\n", 0), stderr


def test_a_program_that_ends_at_once_is_quoted(binaries: Binaries, tmp_path: Path) -> None:
    wrong = fake(tmp_path / "wrong", "echo first >&2; echo second >&2; exit 3", binaries)
    assert launch_problem(wrong, tmp_path) == f"{wrong.system} does not run as QEMU: first"


def test_a_program_that_ends_without_a_word(binaries: Binaries, tmp_path: Path) -> None:
    wrong = fake(tmp_path / "wrong", "exit 3", binaries)
    assert "exit code 3" in launch_problem(wrong, tmp_path)


def test_a_program_that_says_nothing_is_ended(
    binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAUNCH_SECONDS", 0.3)
    wrong = fake(tmp_path / "wrong", "echo $$ > pid; exec sleep 60", binaries)
    with pytest.raises(EnvironmentProblem, match=r"silent for 0\.3 s: no greeting"):
        QemuProcess(wrong, tmp_path, 0.1)
    assert ends(int((tmp_path / "pid").read_text()), 0)


def test_a_missing_setpriv_is_named(
    binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch_problem(binaries, tmp_path) == "setpriv is not in PATH: install util-linux"


@pytest.mark.parametrize(
    "folder",
    [lambda path: path / "missing", lambda _: Path("/proc"), lambda path: path / "wrong"],
    ids=["missing", "read-only", "file"],
)
def test_an_unfit_folder_is_named(
    folder: Callable[[Path], Path], binaries: Binaries, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("")
    place = folder(tmp_path)
    assert launch_problem(binaries, place).startswith(f"cannot run QEMU in {place}: ")


def test_a_folder_without_room_is_named(binaries: Binaries, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        text = launch_problem(binaries, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert text.startswith(f"cannot run QEMU in {tmp_path}: ")
    assert "make room" in text
