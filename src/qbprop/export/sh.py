"""A story as a bash script that needs bash and QEMU's own programs alone.

The functions that it calls are those of ``reproduce.bash``.
"""

import math
import re
from collections.abc import Collection
from dataclasses import replace
from importlib.resources import files
from shlex import quote

from qbprop.export.patterns import reply_pattern
from qbprop.export.sh_checks import verify
from qbprop.export.sh_script import Script, Transport, comment, qmp
from qbprop.export.sh_steps import calls
from qbprop.export.story import About, ExportError, Scene, Story
from qbprop.qemu.monitor import Command
from qbprop.qemu.primitives import DirtyExtents, GuestRequest, HumanCommand, UntilConcluded
from qbprop.qemu.query import JOBS_QUERY
from qbprop.replay_view import show_operation
from qbprop_model.expectation import Reason, Refusal

PATIENCE = 10
"""Seconds of silence that mean that QEMU hangs."""

ABSENT = frozenset({Reason.NO_SUCH_EXPORT, Reason.NO_SUCH_CONTEXT})
"""Why a client cannot ask for what is dirty at all."""


def render(story: Story, about: About, transport: Transport) -> str:
    """The whole script.

    :raises ExportError: something in the story has no rendering.
    """
    script = Script(transport)
    for example in story.examples:
        if example is not story.examples[0]:
            _start_over(script)
        for scene in example:
            _scene(script, scene, in_question=scene.number == story.length)
    story_lines = [*script.lines, *_checks(story, script)]
    body = ["story() {", *(f"    {line}" if line else "" for line in story_lines[1:]), "}"]
    run = _run(about.rate)
    parts = [_head(about), body, _library([*body, *run]), run]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _scene(script: Script, scene: Scene, *, in_question: bool) -> None:
    script.add("")
    due = f"refused: {scene.refusal.reason}" if scene.refusal else "ok"
    script.lines += comment(f"Step {scene.number}: {show_operation(scene.operation)} (due: {due})")
    if in_question:
        if script.alive:
            # Behind its reply no event of the steps before is under way.
            script.ok(qmp(JOBS_QUERY))
        script.add("in_question")
    plan = scene.plan
    script.rests, script.alive, script.exports = scene.rests, scene.alive, scene.exports
    if scene.refusal is None:
        for step, _ in plan.prepare:
            script.ok(*calls(step, script))
        script.ok(*calls(plan.main, script))
        undo = [reverse for _, reverse in reversed(plan.prepare) if reverse is not None]
        for step in (*plan.settle, *undo, *plan.then):
            script.ok(*calls(step, script))
    else:
        _refused(script, scene, scene.refusal)
    _do_postponed(script, scene.concluded)


def _refused(script: Script, scene: Scene, refusal: Refusal) -> None:
    """Which of the plan's steps must be refused the model does not say, if there are several."""
    plan = scene.plan
    guest = isinstance(plan.main, GuestRequest | DirtyExtents)
    if refusal.reason is Reason.EXPORT_IN_USE:
        raise ExportError("a client that stays connected cannot be exported as shell commands")
    if isinstance(plan.main, DirtyExtents) and refusal.reason not in ABSENT:
        raise ExportError("a client asks for a part of an export, which qemu-img cannot")
    pattern = quote("." if guest else reply_pattern(refusal))
    tried = [call for step, _ in plan.prepare for call in calls(step, script)]
    main = list(calls(plan.main, script))
    if not main and not tried:
        script.add("# Nothing is sent: there is no such disk.")
        return
    refusable = [call for call in tried if not call.startswith("unexport")]
    script.ok(*(call for call in tried if call not in refusable))
    undo = [reverse for _, reverse in reversed(plan.prepare) if reverse is not None]
    if not refusable:
        script.lines += [f"refused {pattern} {call}" for call in main]
    else:
        script.add("tried=0")
        script.lines += [f"try {call}" for call in (*refusable, *main)]
        script.add(f"one_refused {pattern}")
    for step in plan.settle:
        script.ok(*calls(step, script))
    for number, step in zip(range(len(undo), 0, -1), undo, strict=True):
        now = step.undo if isinstance(step, UntilConcluded) else step
        script.lines += [f"undo {number} {call}" for call in calls(now, script)]


def _do_postponed(script: Script, concluded: Collection[str]) -> None:
    """What waits for the end of jobs that have concluded, or are no more."""
    due = [e for e in script.postponed if e.job in concluded or e.job not in script.alive]
    script.postponed = [each for each in script.postponed if each not in due]
    for each in due:
        script.ok(*calls(each.undo, script))


def _start_over(script: Script) -> None:
    script.lines += ["", "# Everything is closed; what follows begins anew."]
    _close(script)
    script.disks.clear()
    script.drives.clear()
    script.add("job_words=()")


def _close(script: Script) -> None:
    """End all jobs and close all disks."""
    for job in script.alive:
        script.add(f"end_job {quote(job)}")
    script.alive = ()
    _do_postponed(script, ())
    for export in script.exports:
        script.delete_export(export)
    script.exports = ()
    for node in dict.fromkeys(script.disks.values()):
        script.unexport(node)
        drive = script.drives.get(node)
        if drive is None:
            script.ok(qmp(Command("blockdev-del", {"node-name": node})))
        else:
            script.ok(*calls(HumanCommand(f"drive_del {drive}"), script))


def _checks(story: Story, before: Script) -> list[str]:
    script = replace(before, lines=[])
    for checks in (story.last, story.end):
        if checks:
            script.lines += ["", "# What must be true now"]
        for check in checks:
            verify(check, script)
    if story.closed:
        script.lines += ["", "# The disks are closed, their images must be sound"]
        _close(script)
        for check in story.closed:
            verify(check, script)
    return script.lines


def _head(about: About) -> list[str]:
    version = f"QEMU {about.qemu_version}" if about.qemu_version else "QEMU"
    lines = [f"{version}: {about.title}", ""]
    lines += ["Expected:", *_indented(about.expected or "QEMU does as the comments below say")]
    if about.observed:
        lines += ["Observed:", *_indented(about.observed)]
    lines += [
        "",
        "Exit code: 0 QEMU behaves, 1 the bug is there, 125 it could not be tried.",
        "Needs bash 4.4, mktemp and rm, and QEMU's programs: QEMU_PROG, QEMU_IMG_PROG and",
        "QEMU_IO_PROG name them, else they are beside QEMU_PROG or in PATH.",
        f"Made by qbprop; the finding has the id {about.id}.",
    ]
    return ["#!/bin/bash", *(line for text in lines for line in comment(text) or ["#"])]


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _library(body: list[str]) -> list[str]:
    """The functions of ``reproduce.bash`` that the body calls, directly or not."""
    text = files("qbprop.export").joinpath("reproduce.bash").read_text("utf-8")
    blocks = {
        found["name"]: found[0]
        for found in re.finditer(
            r"^(?:#.*\n)*(?P<name>\w+)\(\) \{(?:.*\}\n|\n(?:.*\n)*?\}.*\n)", text, re.MULTILINE
        )
    }
    needed: set[str] = set()
    todo = _words(body)
    while todo:
        name = todo.pop()
        if name in blocks and name not in needed:
            needed.add(name)
            todo += _words(blocks[name].splitlines())
    kept = [block.rstrip("\n") for name, block in blocks.items() if name in needed]
    return [
        "# What the story is told with",
        "",
        f"patience={PATIENCE}  # seconds of silence that mean that QEMU hangs",
        "",
        "\n\n".join(kept),
    ]


def _words(lines: list[str]) -> list[str]:
    code = (line for line in lines if not line.lstrip().startswith("#"))
    return re.findall(r"\w+", " ".join(code))


def _run(rate: float) -> list[str]:
    if rate >= 1:
        return ["start", "story", "exit 0"]
    return [
        f"# The bug shows itself in about {rate:.0%} of the tries.",
        f"for ((attempt = 0; attempt < {attempts(rate)}; ++attempt)); do",
        "    (start && story; exit 0)",
        "    status=$?",
        '    ((status == 0)) || exit "$status"',
        "done",
        "exit 0",
    ]


def attempts(rate: float) -> int:
    """How many tries of a racy finding miss it in one of a thousand cases; at most 100."""
    return min(100, math.ceil(math.log(0.001) / math.log(1 - rate)))
