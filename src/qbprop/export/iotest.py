"""A story as a test for QEMU's own suite, in the idiom of its module ``iotests``."""

import re
from collections.abc import Sequence
from textwrap import indent

from qbprop.export.checks import Silent
from qbprop.export.iotest_checks import verify
from qbprop.export.iotest_steps import Test, perform, qmp, refused
from qbprop.export.sh_script import comment
from qbprop.export.story import About, Scene, Story
from qbprop.qemu.guest_hmp import report
from qbprop.qemu.monitor import Command
from qbprop.qemu.primitives import GuestRequest, Primitive, UntilConcluded
from qbprop.replay_view import show_operation
from qbprop_model.expectation import Refusal

EXPECTED_OUTPUT = """\
.
----------------------------------------------------------------------
Ran 1 tests

OK
"""
"""What the test prints where QEMU behaves: the content of the file beside it, ``NAME.out``."""

SECONDS = 60
"""After so long QEMU is taken to hang."""

_TEMPLATE = """\
#!/usr/bin/env python3
# group: rw quick
#
{about}

import os
{imports}import shutil
import subprocess
import tempfile

import iotests


def run(program, *arguments):
    done = subprocess.run([program, *arguments], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False)
    return done.returncode

{helpers}
class TestFinding(iotests.QMPTestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=iotests.test_dir)
        os.chdir(self.folder)
        self.vm = iotests.VM()
        self.vm.set_machine('none')
        self.vm.launch()
{state}
    def tearDown(self):
        self.vm.kill()
        os.chdir(iotests.test_dir)
        shutil.rmtree(self.folder)

{methods}    def test_finding(self):
        with iotests.Timeout({seconds}, 'QEMU hangs'):
            self.steps()

    def steps(self):
{steps}

if __name__ == '__main__':
    iotests.main(supported_fmts=['qcow2'],
                 supported_protocols=['file'])
"""

_STAMP = """
def stamp(number, offset, length, file):
    \"\"\"Write the bytes for a part of a disk: odd numbers give pseudo-random
    bytes (SplitMix64), even ones repeat eight of them in each sector.\"\"\"
    data = bytearray()
    for index in range(offset // 8, (offset + length + 7) // 8):
        x = index if number % 2 else index // 64
        x = (x + number * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        data += (x ^ x >> 31).to_bytes(8, 'little')
    with open(file, 'wb') as output:
        output.write(data[offset % 8:][:length])

"""


_STATE = """\
        self.words = {}
        self.ends = {}
"""

_METHODS = """\
    def hear(self, wait=False):
        \"\"\"Take down what events tell of jobs.\"\"\"
        for event in self.vm.get_qmp_events(wait=wait):
            name, data = event['event'], event['data']
            job = data.get('id', data.get('device'))
            if name == 'JOB_STATUS_CHANGE':
                word = data['status']
            elif name == 'BLOCK_JOB_ERROR':
                word = f"ERROR {data['operation']} {data['action']}"
            elif name in ('BLOCK_JOB_COMPLETED', 'BLOCK_JOB_CANCELLED'):
                word = 'COMPLETED!' if 'error' in data else name[10:]
                self.ends[job] = data
            elif name.startswith('BLOCK_JOB_'):
                word = name[10:]
            else:
                continue
            self.words[job] = self.words.get(job, '') + word + ' '

    def job_rests(self, job, pattern):
        \"\"\"Wait until the events of a job tell that it has come to rest.\"\"\"
        while not re.search(pattern, self.words.get(job, '')):
            self.hear(wait=60.0)

    def job_follows(self, job, length):
        \"\"\"Wait, but not for long, until a mirror has copied so many bytes.\"\"\"
        until = time.monotonic() + 3
        while time.monotonic() < until:
            jobs = self.vm.qmp('query-jobs')['return']
            if any(each['id'] == job
                   and each['current-progress'] == each['total-progress']
                   == length for each in jobs):
                return

    def next_step(self):
        \"\"\"Events from now on belong to the next step.\"\"\"
        self.vm.qmp('query-jobs')
        self.hear()
        self.words.clear()

    def end_jobs(self):
        \"\"\"Cancel and dismiss every job.\"\"\"
        jobs = self.vm.qmp('query-jobs')['return']
        while jobs:
            for job in jobs:
                over = job['status'] == 'concluded'
                self.vm.qmp('job-dismiss' if over else 'job-cancel',
                            id=job['id'])
            jobs = self.vm.qmp('query-jobs')['return']

    def top(self, node):
        \"\"\"The filter that a job has put on top of a node, or the node.\"\"\"
        graph = self.vm.qmp('x-debug-query-block-graph')['return']
        names = {each['id']: each['name'] for each in graph['nodes']
                 if each['type'] == 'block-driver'}
        above = {names[edge['child']]: names[edge['parent']]
                 for edge in graph['edges']
                 if edge['name'] == 'file' and edge['parent'] in names}
        while node in above:
            node = above[node]
        return node

"""


def render(story: Story, about: About) -> str:
    """The whole test.

    :raises ExportError: something in the story has no rendering.
    """
    test = Test()
    jobs = False
    for example in story.examples:
        if example is not story.examples[0]:
            test.add("# Everything is closed; what follows begins anew.")
            test.close()
        for scene in example:
            _scene(test, scene, jobs_before=jobs)
            jobs = jobs or bool(scene.rests)
    for checks in (story.last, story.end):
        if checks:
            test.add("", "# What must be true now")
        for check in checks:
            verify(check, test)
    if story.closed:
        test.close()
        for check in story.closed:
            verify(check, test)
    if Silent() in story.last:
        _answered(test, story)
    steps = "\n".join(test.lines).strip("\n")
    methods = _needed(steps)
    return _TEMPLATE.format(
        about="\n".join(_about(about)),
        helpers=_STAMP if "stamp(" in steps else "",
        imports="".join(
            f"import {module}\n" for module in ("re", "time") if f" {module}." in methods
        ),
        state=_STATE if "self.words" in methods else "",
        methods=methods,
        seconds=SECONDS,
        steps=indent(steps, " " * 8),
    )


def _answered(test: Test, story: Story) -> None:
    """Check whether the last request of a guest succeeded: the monitor's qemu-io only prints it."""
    requests = [
        (report(scene.plan.main, scene.plan.main.offset, scene.plan.main.length), scene.refusal)
        for example in story.examples
        for scene in example
        if isinstance(scene.plan.main, GuestRequest)
    ]
    if isinstance(story.examples[-1][-1].plan.main, GuestRequest) and requests[-1][0]:
        line = requests[-1][0]
        test.add("self.vm.shutdown()", f"printed = self.vm.get_log().count({line + chr(10)!r})")
        test.add(f"self.assertEqual(printed, {requests.count((line, None))})")


def _needed(steps: str) -> str:
    """The methods that the steps call, directly or not."""
    blocks = {block.split("(")[0]: block for block in re.split(r"(?m)^    def ", _METHODS)[1:]}
    needed: set[str] = set()
    todo = re.findall(r"self\.(\w+)\(", steps)
    while todo:
        name = todo.pop()
        if name in blocks and name not in needed:
            needed.add(name)
            todo += re.findall(r"self\.(\w+)\(", blocks[name])
    return "".join(f"    def {block}" for name, block in blocks.items() if name in needed)


def _scene(test: Test, scene: Scene, *, jobs_before: bool) -> None:
    plan = scene.plan
    test.add("", *comment(f"Step {scene.number}: {show_operation(scene.operation)}"))
    if jobs_before:
        test.add("self.next_step()")
    test.rests = scene.rests
    undo = [reverse for _, reverse in reversed(plan.prepare) if reverse is not None]
    if scene.refusal is None:
        for step, _ in plan.prepare:
            perform(step, test, None)
        perform(plan.main, test, None)
        for step in (*plan.settle, *undo, *plan.then):
            perform(step, test, None)
    else:
        _refused(test, plan.prepare, plan.main, scene.refusal)
    test.exports = scene.exports
    test.alive = scene.alive
    test.settle(scene.concluded)


def _refused(
    test: Test,
    prepare: Sequence[tuple[Primitive, Primitive | None]],
    main: Primitive,
    refusal: Refusal,
) -> None:
    """Which of the plan's commands must be refused the model does not say, if there are several."""
    commands = [(step, undo) for step, undo in prepare if isinstance(step, Command)]
    if not commands or not isinstance(main, Command):
        perform(main, test, refusal)
        return
    for depth, (step, _) in enumerate(commands):
        test.add(indent(f"{qmp(step)}\nif 'return' in result:", "    " * depth))
    test.add(indent(qmp(main), "    " * len(commands)))
    for depth, (_, undo) in reversed(list(enumerate(commands, 1))):
        now = undo.undo if isinstance(undo, UntilConcluded) else undo
        if isinstance(now, Command):
            undone = qmp(now).replace("result =", "undone =")
            test.add(indent(f"{undone}\nself.assertIn('return', undone)", "    " * depth))
    test.add(refused(refusal))


def _about(about: About) -> list[str]:
    lines = [f"{about.title} (QEMU {about.qemu_version})", ""]
    lines += ["Expected:", *(f"  {line}" for line in about.expected.splitlines())]
    lines += ["Observed:", *(f"  {line}" for line in about.observed.splitlines())]
    lines += ["", f"Made by qbprop; the finding has the id {about.id}."]
    return [line for text in lines for line in comment(text) or ["#"]]
