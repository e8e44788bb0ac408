"""A story as a test for QEMU's own suite, in the idiom of its module ``iotests``."""

from textwrap import indent

from qbprop.export.iotest_checks import verify
from qbprop.export.iotest_steps import Test, end_of, perform
from qbprop.export.sh_script import comment
from qbprop.export.story import About, ExportError, Scene, Story
from qbprop.replay_view import show_operation

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
import shutil
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

    def tearDown(self):
        self.vm.kill()
        os.chdir(iotests.test_dir)
        shutil.rmtree(self.folder)

    def test_finding(self):
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


def render(story: Story, about: About) -> str:
    """The whole test.

    :raises ExportError: something in the story has no rendering.
    """
    if story.has_jobs_in_flight:
        raise ExportError(
            "a job outlives an operation, which a test for QEMU's suite cannot show yet; "
            "export it with --format sh"
        )
    test = Test()
    for example in story.examples:
        if example is not story.examples[0]:
            test.add("# Everything is closed; what follows begins anew.")
            test.close()
        for scene in example:
            _scene(test, scene)
    for checks in (story.last, story.end):
        test.add("", "# What must be true now")
        for check in checks:
            verify(check, test)
    if story.closed:
        test.close()
        for check in story.closed:
            verify(check, test)
    steps = "\n".join(test.lines).strip("\n")
    return _TEMPLATE.format(
        about="\n".join(_about(about)),
        helpers=_STAMP if "stamp(" in steps else "",
        seconds=SECONDS,
        steps=indent(steps, " " * 8),
    )


def _scene(test: Test, scene: Scene) -> None:
    plan = scene.plan
    test.add("", *comment(f"Step {scene.number}: {show_operation(scene.operation)}"))
    for step, _ in plan.prepare:
        perform(step, test, None)
    perform(plan.main, test, scene.refusal)
    test.exports = scene.exports
    for job in scene.jobs:
        test.add(*end_of(job))
    for _, reverse in reversed(plan.prepare):
        if reverse is not None:
            perform(reverse, test, None)
    if scene.refusal is None:
        for step in plan.then:
            perform(step, test, None)


def _about(about: About) -> list[str]:
    lines = [f"{about.title} (QEMU {about.qemu_version})", ""]
    lines += ["Expected:", *(f"  {line}" for line in about.expected.splitlines())]
    lines += ["Observed:", *(f"  {line}" for line in about.observed.splitlines())]
    lines += ["", f"Made by qbprop; the finding has the id {about.id}."]
    return [line for text in lines for line in comment(text) or ["#"]]
