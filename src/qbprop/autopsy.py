"""In which functions QEMU dies of a signal: it dies once more, under gdb, where there is one.

Core dumps would tell it as well, but where they go is the system's business, and takes root to
change; so does attaching to a process that is no child of gdb.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from qbprop.errors import EnvironmentProblem
from qbprop.findings import CrashFinding, Finding
from qbprop.qemu.symbols import global_functions
from qbprop.session import Locate, Session
from qbprop_model.operations import Operation
from qbprop_model.rules import Rules

if TYPE_CHECKING:
    from qbprop.lab import Lab

FUNCTIONS = 2
"""How many functions a crash is named after, the innermost ones."""

LIMIT = 10
"""Deaths of one signal at one operation that are looked into; more are taken to be as the last."""

_COMMANDS = (
    "set startup-with-shell off",
    "set disable-randomization off",
    "set print thread-events off",
    "handle all nostop noprint pass",
    "handle SIGSEGV SIGABRT SIGBUS SIGFPE SIGILL stop",
    "run",
    r"echo \ninnermost\n",
    "info symbol $pc",
    # Behind a call the program counter may be in the next function already.
    "frame apply 40 -q -s info symbol $pc - 1",
)


class Autopsy:
    """Looks into crashes on the QEMU of ``lab``, as the model of ``rules`` meets them."""

    def __init__(self, lab: "Lab", rules: Rules | None = None) -> None:
        self._lab = lab
        self._rules = rules
        self._found: dict[str, list[tuple[str, ...]]] = {}

    def __call__(self, finding: CrashFinding) -> tuple[str, ...]:
        """The functions that QEMU dies in when the finding's trace is performed.

        None where it does not die of the same, or nothing can be told.
        """
        found = self._found.setdefault(finding.coarse_id, [])
        if () in found or len(found) >= LIMIT:
            return () if () in found else found[-1]
        found.append(self._examine(finding.trace))
        return found[-1]

    def _examine(self, trace: Sequence[Operation]) -> tuple[str, ...]:
        gdb = shutil.which("gdb")
        if gdb is None:
            return ()
        options = [word for each in _COMMANDS for word in ("-ex", each)]
        under = (gdb, "-nx", "--batch", "-iex", "set debuginfod enabled off", *options, "--args")
        program = self._lab.binaries.system.resolve()
        binaries = replace(self._lab.binaries, system=program, under=under)
        with suppress(EnvironmentProblem), replace(self._lab, binaries=binaries).driver() as driver:
            session = Session(driver, self._rules)
            with suppress(Finding):
                session.begin()
                for operation in trace:
                    session.step(operation)
                session.finish()
            driver.process.kill()
            _, _, lines = driver.process.all_stdout().partition("\ninnermost\n")
            functions = global_functions(program)
            named = _functions_of(str(program), lines)
            return tuple(each for each in named if each in functions)[:FUNCTIONS]
        return ()


def as_before(before: Finding | None, locate: Locate) -> Locate:
    """As ``locate``, but a crash that may be the one of ``before`` is taken to be it."""
    return lambda crash: (
        before.functions
        if before is not None and before.coarse_id == crash.coarse_id
        else locate(crash)
    )


def _functions_of(program: str, text: str) -> list[str]:
    """The functions of the program itself among what gdb told, the innermost first."""
    first, *others = text.splitlines() or [""]
    pattern = re.compile(r"(\w+)(?: \+ \d+)? in section \S+(?: of (.*))?")
    found = (pattern.fullmatch(line) for line in (first, *others[1:]))
    return [each[1] for each in found if each is not None and each[2] in (None, program)]
