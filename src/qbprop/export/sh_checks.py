"""Checks as calls of functions of ``reproduce.bash``: one function for each type."""

import json
from collections.abc import Iterator
from functools import singledispatch
from shlex import quote

from qbprop.export.checks import (
    Alive,
    Allocated,
    Bytes,
    Digest,
    Extents,
    Jobs,
    JobsNow,
    Nodes,
    ReadData,
    Silent,
    Sound,
)
from qbprop.export.patterns import extended, json_text
from qbprop.export.sh_script import Script, comment, program, qmp
from qbprop.export.story import ExportError
from qbprop.qemu.explain import map_arguments
from qbprop.qemu.plan import target_file
from qbprop.qemu.primitives import Program
from qbprop.qemu.query import JOBS_QUERY, NODES_QUERY, digest_query
from qbprop_model.expectation import BitmapState

EXPECTED = "expected.img"
"""The raw image with the bytes that a disk or target must have."""


@singledispatch
def verify(check: object, script: Script) -> None:
    """Append a check.

    :raises ExportError: it has no rendering.
    """
    raise ExportError(f"{type(check).__name__} cannot be exported as shell commands")


@verify.register
def _(check: Nodes, script: Script) -> None:
    script.ok(qmp(NODES_QUERY))
    for name, size in check.sizes.items():
        bitmaps = check.bitmaps[name]
        anonymous = check.anonymous.get(name, 0)
        script.add(f"check_node {name} {size} {len(bitmaps)} {anonymous}")
        for bitmap, state in bitmaps.items():
            fields = " ".join(quote(each) for each in _fields(state))
            script.add(f"check_bitmap {name} {quote(json_text(bitmap))} {fields}")


def _fields(state: BitmapState) -> Iterator[str]:
    for name in ("count", "granularity", "recording", "busy", "persistent"):
        yield f'"{name}": {json.dumps(getattr(state, name))}'
    if state.inconsistent:
        yield '"inconsistent": true'


@verify.register
def _(check: Digest, script: Script) -> None:
    script.ok(qmp(digest_query(check.node, check.bitmap)))
    script.add(f"has {check.sha256}")


@verify.register
def _(check: Jobs, script: Script) -> None:
    for name in check.words:
        end = check.ends.get(name)
        due = {"len": end.length, "offset": end.offset, "speed": end.speed} if end else {}
        numbers = [quote(f'"{key}": {value}') for key, value in due.items() if value is not None]
        pattern = quote(extended(check.pattern(name)))
        aborted = end is not None and end.aborted
        script.add(" ".join(["check_job", quote(name), pattern, *([] if aborted else numbers)]))
    script.add("no_other_events")


@verify.register
def _(check: JobsNow, script: Script) -> None:
    script.ok(qmp(JOBS_QUERY))
    script.add(f"check_jobs {len(check.alive)}")
    for name, state in check.alive.items():
        due = {
            "status": json.dumps(state.status),
            "total-progress": state.length,
            "current-progress": state.offset,
        }
        fields = [quote(f'"{key}": {value}') for key, value in due.items() if value is not None]
        script.add(" ".join(["check_job_now", quote(name), *fields]))


@verify.register
def _(check: ReadData, script: Script) -> None:
    for start, end, byte in check.parts:
        what = f"read -P {byte} {start} {end - start}"
        if script.transport == "nbd":
            script.ok(f"guest {script.export(check.node)} {quote(what)}")
            continue
        due = f"read {end - start}/{end - start} bytes at offset {start}"
        script.ok(f"guest_by_monitor {check.node} {quote(what)} {quote(due)}")


@verify.register
def _(check: Bytes, script: Script) -> None:
    script.lines += comment(f"Every byte of {check.name}:")
    script.ok(f"img create -q -f raw {EXPECTED} {check.size}")
    for start, end, data in check.parts:
        source = script.data(data, start, end - start)
        script.ok(f"io -f raw -c {quote(f'write{source} {start} {end - start}')} {EXPECTED}")
    if check.is_disk:
        url = f"nbd+unix:///{script.export(check.name)}?socket=nbd.sock"
        script.ok(f"img compare -f raw -F raw {EXPECTED} {quote(url)}")
    else:
        script.ok(f"img compare -f raw -F {check.format} {EXPECTED} {target_file(check.name)}")


@verify.register
def _(check: Extents, script: Script) -> None:
    script.ok(program(Program("qemu-img", map_arguments(check.export, check.bitmap))))
    ranges = (f"{start}-{end}" for start, end in check.ranges)
    script.add(" ".join(["check_dirty", str(check.offset), str(check.end), *ranges]))


@verify.register
def _(check: Sound, script: Script) -> None:
    script.ok(f"img check -q -f qcow2 {check.file}")


@verify.register
def _(check: Allocated, script: Script) -> None:
    ranges = " ".join(f"{start}-{end}" for start, end in check.ranges)
    script.add(f"check_allocated {check.file} {quote(ranges)}")


@verify.register
def _(check: Silent, script: Script) -> None:
    script.add("check_silent")


@verify.register
def _(check: Alive, script: Script) -> None:
    script.ok(qmp(NODES_QUERY))
