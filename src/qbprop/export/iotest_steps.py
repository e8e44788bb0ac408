"""Primitive steps as lines of a test for QEMU's suite: one function for each type."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import singledispatch

from qbprop.export.patterns import python_pattern
from qbprop.export.story import ExportError
from qbprop.qemu.guest_hmp import words
from qbprop.qemu.images import create_program, data_files, fill_program
from qbprop.qemu.monitor import Command
from qbprop.qemu.nbd_server import START
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitCopy,
    AwaitExportGone,
    AwaitJobs,
    AwaitRest,
    DetachGuest,
    DirtyExtents,
    GuestRequest,
    HumanCommand,
    MakeImage,
    Program,
    ReattachGuest,
    ReleaseGuest,
    ServeExports,
    UntilConcluded,
)
from qbprop_model.data import Data, Fill, Stamp
from qbprop_model.expectation import Refusal

DATA = "data.bin"
"""The file that holds stamped data for one write."""


@dataclass
class Test:
    """Lines under construction. ``disks`` maps the nodes of open disks to their drives' names.

    ``exports`` are those that operations have left.
    """

    lines: list[str] = field(default_factory=list)
    disks: dict[str, str | None] = field(default_factory=dict)
    exports: tuple[str, ...] = ()
    serving: bool = False

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

    def close(self) -> None:
        """Delete all exports and close all disks."""
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
    test.add(qmp(step))
    if refusal is None:
        test.add(SUCCEEDED)
    else:
        pattern = python_pattern(refusal)
        test.add(f"self.assertRegex(result['error']['desc'], {pattern!r})")


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
    test.add(f"self.vm.hmp_qemu_io({step.node!r}, {line!r})")


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
    del test.disks[step.name]


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
def _(step: AwaitExportGone, test: Test, refusal: Refusal | None) -> None:
    test.add(*gone(step.export))


@perform.register
def _(step: UntilConcluded, test: Test, refusal: Refusal | None) -> None:
    """The job has concluded: a story with jobs in flight is no test for the suite."""
    perform(step.undo, test, refusal)


@perform.register(DetachGuest)
@perform.register(ReattachGuest)
def _(step: object, test: Test, refusal: Refusal | None) -> None:
    """Nothing: the monitor's qemu-io holds a disk for a request only."""


@perform.register(AwaitCopy)
@perform.register(AwaitJobs)
@perform.register(AwaitRest)
def _(step: object, test: Test, refusal: Refusal | None) -> None:
    """Nothing: what waits for a job is told from its name."""


def end_of(job: str) -> Iterator[str]:
    """Wait for the end of a job."""
    match = {"data": {"id": job, "status": "null"}}
    yield f"event = self.vm.event_wait('JOB_STATUS_CHANGE', match={match!r})"
    yield "self.assertIsNotNone(event)"
