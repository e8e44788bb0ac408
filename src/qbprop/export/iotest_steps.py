"""Primitive steps as lines of a test for QEMU's suite: one function for each type."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from signal import SIGTERM

from qbprop.export.patterns import python_pattern
from qbprop.export.story import ExportError
from qbprop.qemu.guest_hmp import words
from qbprop.qemu.images import create_program, data_files, fill_program
from qbprop.qemu.monitor import Command
from qbprop.qemu.nbd_server import START
from qbprop.qemu.performer import ERROR_STOPPED
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitCopy,
    AwaitExportGone,
    AwaitJobs,
    AwaitRest,
    CompleteJob,
    DetachGuest,
    DirtyExtents,
    EndQemu,
    GuestRequest,
    HumanCommand,
    MakeImage,
    Program,
    ReattachGuest,
    ReleaseGuest,
    ServeExports,
    UntilConcluded,
    synced_length,
)
from qbprop_model.data import Data, Fill, Stamp
from qbprop_model.expectation import Refusal

DATA = "data.bin"
"""The file that holds stamped data for one write."""


@dataclass
class Test:
    """Lines under construction, and what is open at this point of the story.

    ``disks`` maps the nodes of open disks to their drives' names; ``exports`` are those that
    operations have left. ``rests`` are those of the scene; ``postponed`` waits for the end of
    jobs.
    """

    lines: list[str] = field(default_factory=list)
    disks: dict[str, str | None] = field(default_factory=dict)
    exports: tuple[str, ...] = ()
    serving: bool = False
    rests: Mapping[str, str] = field(default_factory=dict)
    alive: tuple[str, ...] = ()
    postponed: list[UntilConcluded] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        """Append lines."""
        self.lines += lines

    def source(self, data: Data, offset: int, length: int, file: str = DATA) -> str:
        """The option of qemu-io that names the data of a write."""
        match data:
            case Fill(byte):
                return f" -P {byte}"
            case Stamp(number) if length:
                self.add(f"stamp({number}, {offset}, {length}, {file!r})")
                return f" -s {file}"
        return ""

    def relaunched(self) -> None:
        """Another QEMU is there, in which nothing is open."""
        self.disks.clear()
        self.postponed.clear()
        self.alive = self.exports = ()
        self.serving = False

    def settle(self, concluded: Collection[str] = ()) -> None:
        """Do what waits for the end of jobs that have ``concluded``, or are no more."""
        due = [e for e in self.postponed if e.job in concluded or e.job not in self.alive]
        self.postponed = [each for each in self.postponed if each not in due]
        for each in due:
            perform(each.undo, self, None)

    def close(self) -> None:
        """End all jobs, delete all exports and close all disks."""
        if self.alive:
            self.add("self.end_jobs()")
        self.alive = ()
        self.settle()
        for export in self.exports:
            deletion = Command("block-export-del", {"id": export, "mode": "hard"})
            self.add(qmp(deletion), SUCCEEDED, *gone(export))
        self.exports = ()
        for node, drive in self.disks.items():
            if drive is None:
                self.add(qmp(Command("blockdev-del", {"node-name": node})), SUCCEEDED)
            else:
                self.add(f"self.vm.hmp({f'drive_del {drive}'!r})")
        self.disks.clear()


def gone(export: str) -> Iterator[str]:
    """Wait until an export is deleted."""
    match = {"data": {"id": export}}
    yield f"event = self.vm.event_wait('BLOCK_EXPORT_DELETED', match={match!r})"
    yield "self.assertIsNotNone(event)"


SUCCEEDED = "self.assertIn('return', result)"


def qmp(command: Command) -> str:
    """A QMP command; its reply is called ``result``."""
    arguments = f", **{dict(command.arguments)!r}" if command.arguments else ""
    return f"result = self.vm.qmp({command.name!r}{arguments})"


def refused(refusal: Refusal) -> str:
    """The assertion that the last command was refused for a reason."""
    return f"self.assertRegex(result['error']['desc'], {python_pattern(refusal)!r})"


def run(step: Program) -> str:
    """The call that runs a program, with its exit status as the value."""
    program = {"qemu-img": "iotests.qemu_img_args[0]", "qemu-io": "iotests.qemu_io_args[0]"}
    return f"run({', '.join([program[step.tool], *(repr(str(a)) for a in step.arguments)])})"


@singledispatch
def perform(step: object, test: Test, refusal: Refusal | None) -> None:
    """Append the lines that perform a step, which succeeds or is refused.

    :raises ExportError: the step has no rendering.
    """
    raise ExportError(f"{type(step).__name__} cannot be exported as a test for QEMU's suite")


@perform.register
def _(step: Command, test: Test, refusal: Refusal | None) -> None:
    test.add(qmp(step), SUCCEEDED if refusal is None else refused(refusal))


@perform.register
def _(step: HumanCommand, test: Test, refusal: Refusal | None) -> None:
    check = "assertEqual" if refusal is None else "assertNotEqual"
    test.add(
        f"result = self.vm.hmp({step.line!r})",
        f"self.{check}(result['return'].strip(), {step.success!r})",
    )


@perform.register
def _(step: GuestRequest, test: Test, refusal: Refusal | None) -> None:
    source = ""
    if step.data is not None:
        source = test.source(step.data, step.offset, step.length)
    line = words(step, step.offset, step.length, source).replace("read -v", "read")
    filtered = test.alive and step.kind != "write_compressed"
    node = f"self.top({step.node!r})" if filtered else repr(step.node)
    test.add(f"self.vm.hmp_qemu_io({node}, {line!r})")


@perform.register
def _(step: Program, test: Test, refusal: Refusal | None) -> None:
    check = "assertEqual" if refusal is None else "assertNotEqual"
    test.add(f"self.{check}({run(step)}, 0)")


@perform.register
def _(step: MakeImage, test: Test, refusal: Refusal | None) -> None:
    perform(create_program(step), test, refusal)
    if step.layer.data and refusal is None:
        for name, pattern in data_files(step).items():
            test.source(pattern.data, pattern.offset, pattern.length, name)
        perform(fill_program(step), test, None)


@perform.register
def _(step: AttachGuest, test: Test, refusal: Refusal | None) -> None:
    test.disks[step.node] = step.drive


@perform.register
def _(step: ReleaseGuest, test: Test, refusal: Refusal | None) -> None:
    test.disks = {k: v for k, v in test.disks.items() if step.name not in (k, v)}


@perform.register
def _(step: ServeExports, test: Test, refusal: Refusal | None) -> None:
    if not test.serving:
        test.add(qmp(START), SUCCEEDED)
        test.serving = True


@perform.register
def _(step: DirtyExtents, test: Test, refusal: Refusal | None) -> None:
    raise ExportError(
        "a client reads dirty extents, which a test for QEMU's suite cannot show yet; "
        "export it with --format sh"
    )


@perform.register
def _(step: EndQemu, test: Test, refusal: Refusal | None) -> None:
    ended = {
        "quit": ("self.vm.shutdown()",),
        "terminate": (f"os.kill(self.vm.get_pid(), {int(SIGTERM)})", "self.vm.wait()"),
        "kill": ("self.vm.kill()",),
    }
    test.add(*ended[step.how], "self.vm.launch()")
    test.relaunched()


@perform.register
def _(step: AwaitExportGone, test: Test, refusal: Refusal | None) -> None:
    test.add(*gone(step.export))


@perform.register
def _(step: UntilConcluded, test: Test, refusal: Refusal | None) -> None:
    test.postponed.append(step)


@perform.register
def _(step: CompleteJob, test: Test, refusal: Refusal | None) -> None:
    if step.job in test.rests:
        test.add(f"self.job_rests({step.job!r}, 'ready')")
        perform(Command("job-complete", {"id": step.job}), test, None)


@perform.register(DetachGuest)
@perform.register(ReattachGuest)
def _(step: object, test: Test, refusal: Refusal | None) -> None:
    """Nothing: the monitor's qemu-io holds a disk for a request only."""


@perform.register(AwaitCopy)
@perform.register(AwaitJobs)
@perform.register(AwaitRest)
def _(step: object, test: Test, refusal: Refusal | None) -> None:
    for job, status in test.rests.items():
        if (length := synced_length(status)) is not None:
            test.add(f"self.job_follows({job!r}, {length})")
            continue
        rest = "ERROR .*paused" if status == ERROR_STOPPED else status
        over = [each for each in ("concluded", "null") if each != rest]
        test.add(f"self.job_rests({job!r}, {'|'.join([rest, *over])!r})")
