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
        test.add(f"every = nodes[{name!r}].get('dirty-bitmaps', [])")
        test.add("bitmaps = {each['name']: each for each in every if 'name' in each}")
        test.add(f"self.assertEqual(set(bitmaps), set({sorted(check.bitmaps[name])!r}))")
        anonymous = check.anonymous.get(name, 0)
        test.add(f"self.assertEqual(len(every) - len(bitmaps), {anonymous})")
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
    test.add("self.hear()")
    for name in check.words:
        pattern = f"^{check.pattern(name)}$"
        test.add(f"self.assertRegex(self.words.pop({name!r}, ''), {pattern!r})")
        end = check.ends.get(name)
        if end is None or end.aborted:
            continue
        for key, due in (("len", end.length), ("offset", end.offset), ("speed", end.speed)):
            if due is not None:
                test.add(f"self.assertEqual(self.ends[{name!r}][{key!r}], {due})")
    test.add("self.assertEqual(self.words, {})")


@verify.register
def _(check: JobsNow, test: Test) -> None:
    test.add(qmp(JOBS_QUERY), "jobs = {job['id']: job for job in result['return']}")
    test.add(f"self.assertEqual(set(jobs), set({sorted(check.alive)!r}))")
    for name, state in check.alive.items():
        due = {
            "status": state.status,
            "total-progress": state.length,
            "current-progress": state.offset,
        }
        for key, value in due.items():
            if value is not None:
                test.add(f"self.assertEqual(jobs[{name!r}][{key!r}], {value!r})")


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
    test.add(qmp(NODES_QUERY), SUCCEEDED)
