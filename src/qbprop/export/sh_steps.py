"""Primitive steps as calls of functions of ``reproduce.bash``: one function for each type."""

import json
from collections.abc import Iterator
from functools import singledispatch
from shlex import quote

from qbprop.export.sh_script import Script, program, qmp
from qbprop.export.story import ExportError
from qbprop.qemu.explain import map_arguments
from qbprop.qemu.guest_hmp import report, words
from qbprop.qemu.images import create_program, data_files, fill_program
from qbprop.qemu.monitor import Command
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
from qbprop_model.data import Stamp

SIGNALS = {"quit": "quit", "terminate": "TERM", "kill": "KILL"}
"""How QEMU is ended, as the function ``restart`` is told."""


@singledispatch
def calls(step: object, script: Script) -> Iterator[str]:
    """The calls of a primitive step, each of which succeeds or is refused.

    :raises ExportError: the step has no rendering.
    """
    raise ExportError(f"{type(step).__name__} cannot be exported as shell commands")


@calls.register
def _(step: Command, script: Script) -> Iterator[str]:
    yield qmp(step)


@calls.register
def _(step: HumanCommand, script: Script) -> Iterator[str]:
    answer = step.success and f"{step.success}\\r\\n"
    yield f"hmp {quote(json.dumps(step.line)[1:-1])} {quote(answer)}"


@calls.register
def _(step: GuestRequest, script: Script) -> Iterator[str]:
    if step.node not in script.disks and script.transport == "nbd":
        return
    source = ""
    if step.data is not None:
        source = script.data(step.data, step.offset, step.length)
    what = words(step, step.offset, step.length, source).replace("read -v", "read")
    if script.transport == "hmp" or step.kind == "write_compressed":
        due = report(step, step.offset, step.length)
        yield f"guest_by_monitor {step.node} {quote(what)} {quote(due)}"
    else:
        yield f"guest {script.export(step.node)} {quote(what)}"


@calls.register
def _(step: Program, script: Script) -> Iterator[str]:
    yield program(step)


@calls.register
def _(step: MakeImage, script: Script) -> Iterator[str]:
    yield program(create_program(step))
    if step.layer.data:
        for name, pattern in data_files(step).items():
            data = pattern.data
            assert isinstance(data, Stamp)
            script.add(f"stamp {data.number} {pattern.offset} {pattern.length} {name}")
        yield program(fill_program(step))


@calls.register
def _(step: AttachGuest, script: Script) -> Iterator[str]:
    script.disks[step.node] = step.node
    if step.writable:
        script.read_only.discard(step.node)
    else:
        script.read_only.add(step.node)
    if step.drive is not None:
        script.disks[step.drive] = step.node
        script.drives[step.node] = step.drive
    yield from ()


@calls.register
def _(step: DetachGuest, script: Script) -> Iterator[str]:
    script.unexport(step.name)
    yield from ()


@calls.register
def _(step: ReattachGuest, script: Script) -> Iterator[str]:
    yield from ()


@calls.register
def _(step: ReleaseGuest, script: Script) -> Iterator[str]:
    script.unexport(step.name)
    node = script.disks.get(step.name)
    script.disks = {name: each for name, each in script.disks.items() if each != node}
    script.drives.pop(node or "", None)
    script.read_only.discard(node or "")
    yield from ()


@calls.register
def _(step: UntilConcluded, script: Script) -> Iterator[str]:
    script.postponed.append(step)
    yield from ()


@calls.register
def _(step: AwaitCopy, script: Script) -> Iterator[str]:
    if step.job in script.rests:
        yield f"job_copies {quote(step.job)}"


@calls.register
def _(step: CompleteJob, script: Script) -> Iterator[str]:
    if step.job in script.rests:
        yield f"job_rests {quote(step.job)} ready"
        yield qmp(Command("job-complete", {"id": step.job}))


@calls.register
def _(step: ServeExports, script: Script) -> Iterator[str]:
    script.serve()
    yield from ()


@calls.register
def _(step: DirtyExtents, script: Script) -> Iterator[str]:
    yield program(Program("qemu-img", map_arguments(step.export, step.bitmap)))


@calls.register
def _(step: EndQemu, script: Script) -> Iterator[str]:
    script.relaunched()
    yield f"restart {SIGNALS[step.how]}"


@calls.register
def _(step: AwaitExportGone, script: Script) -> Iterator[str]:
    yield f"export_gone {step.export}"


@calls.register(AwaitJobs)
@calls.register(AwaitRest)
def _(step: object, script: Script) -> Iterator[str]:
    for job, status in script.rests.items():
        if (length := synced_length(status)) is not None:
            yield f"job_follows {quote(job)} {length}"
            continue
        rest = "paused ERROR" if status == ERROR_STOPPED else status
        yield f"job_rests {quote(job)} {rest}"
