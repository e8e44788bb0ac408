"""Checks as lines of a test for QEMU's suite: one function for each type."""

from dataclasses import asdict
from functools import singledispatch

from qbprop.export.checks import (
    Alive,
    Allocated,
    Bytes,
    Digest,
    Jobs,
    JobsNow,
    Nodes,
    ReadData,
    Silent,
    Sound,
)
from qbprop.export.iotest_steps import SUCCEEDED, Test, qmp, run
from qbprop.export.story import ExportError
from qbprop.qemu.monitor import Command
from qbprop.qemu.plan import disk_file, target_file
from qbprop.qemu.primitives import Program
from qbprop.qemu.query import JOBS_QUERY, NODES_QUERY, digest_query

EXPECTED = "expected.img"
"""The raw image with the bytes that a disk or target must have."""


@singledispatch
def verify(check: object, test: Test) -> None:
    """Append a check.

    :raises ExportError: it has no rendering.
    """
    raise ExportError(f"{type(check).__name__} cannot be exported as a test for QEMU's suite")


@verify.register
def _(check: Nodes, test: Test) -> None:
    test.add(qmp(NODES_QUERY), "nodes = {node['node-name']: node for node in result['return']}")
    for name, size in check.sizes.items():
        test.add(f"self.assertEqual(nodes[{name!r}]['image']['virtual-size'], {size})")
        test.add("bitmaps = {bitmap['name']: bitmap")
        test.add(f"           for bitmap in nodes[{name!r}].get('dirty-bitmaps', [])}}")
        test.add(f"self.assertEqual(set(bitmaps), set({sorted(check.bitmaps[name])!r}))")
        for bitmap, state in check.bitmaps[name].items():
            for key, value in asdict(state).items():
                if key != "inconsistent" or value:
                    test.add(f"self.assertEqual(bitmaps[{bitmap!r}][{key!r}], {value!r})")


@verify.register
def _(check: Digest, test: Test) -> None:
    test.add(qmp(digest_query(check.node, check.bitmap)))
    test.add(f"self.assert_qmp(result, 'return/sha256', '{check.sha256}')")


@verify.register
def _(check: Jobs, test: Test) -> None:
    for name, end in check.ends.items():
        if end.aborted:
            continue
        match = {"data": {"device": name}}
        test.add(f"event = self.vm.event_wait('BLOCK_JOB_COMPLETED', match={match!r})")
        test.add(f"self.assert{'In' if end.error else 'NotIn'}('error', event['data'])")
        for key, due in (("len", end.length), ("offset", end.offset)):
            if due is not None:
                test.add(f"self.assert_qmp(event, 'data/{key}', {due})")


@verify.register
def _(check: JobsNow, test: Test) -> None:
    test.add(qmp(JOBS_QUERY), "self.assert_qmp(result, 'return', [])")


@verify.register
def _(check: ReadData, test: Test) -> None:
    test.close()
    file = disk_file(check.node)
    for start, end, byte in check.parts:
        line = f"read -P {byte} {start} {end - start}"
        test.add(f"self.assertEqual({run(Program('qemu-io', ('-c', line, file)))}, 0)")


@verify.register
def _(check: Bytes, test: Test) -> None:
    test.add(f"with open({EXPECTED!r}, 'wb') as image:", f"    image.truncate({check.size})")
    for start, end, data in check.parts:
        source = test.source(data, start, end - start)
        line = f"write{source} {start} {end - start}"
        writer = Program("qemu-io", ("-f", "raw", "-c", line, EXPECTED))
        test.add(f"self.assertEqual({run(writer)}, 0)")
    file, form = target_file(check.name), check.format
    if check.is_disk:
        test.close()
        file = disk_file(check.name)
    test.add(f"same = iotests.compare_images({EXPECTED!r}, {file!r}, 'raw', {form!r})")
    test.add("self.assertTrue(same)")


@verify.register
def _(check: Sound, test: Test) -> None:
    checker = Program("qemu-img", ("check", "-f", "qcow2", check.file))
    test.add(f"self.assertEqual({run(checker)}, 0)")


@verify.register
def _(check: Allocated, test: Test) -> None:
    test.add("own = []", f"for extent in iotests.qemu_img_map({check.file!r}):")
    test.add("    start, end = extent['start'], extent['start'] + extent['length']")
    test.add("    if extent['depth'] == 0 and extent['present']:")
    test.add("        own.append([own.pop()[0] if own and own[-1][1] == start else start, end])")
    test.add(f"self.assertEqual(own, {[list(each) for each in check.ranges]!r})")


@verify.register
def _(check: Silent, test: Test) -> None:
    """Nothing: the suite keeps QEMU's standard error to itself."""


@verify.register
def _(check: Alive, test: Test) -> None:
    test.add(qmp(Command("query-version")), SUCCEEDED)
