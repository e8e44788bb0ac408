"""Findings: where QEMU and the model disagree, one exception class for each kind.

``Finding`` ─┬─ ReplyFinding, EventsFinding, CountFinding, FieldsFinding, DirtySetFinding,
             └─ JobsFinding, ContentsFinding, ImageCheckFinding, CrashFinding, HangFinding
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from qbprop_model.operations import Operation

_IN = " in "


@dataclass(eq=False)
class Finding(Exception):  # noqa: N818 - the field's word for it
    """A disagreement between QEMU and the model.

    ``operation`` is the snake_case name of the step that showed it ("end" for the checks at
    the end of an example), ``aspect`` the reason or field, free of sizes, names, seeds and
    versions. Behind a hazard (:mod:`qbprop.hazards`) ``operation`` is the hazard, ``aspect``
    empty, and ``symptom`` the title that the finding would have had.
    ``bitmap`` is the (node, bitmap) whose dirty clusters are wrong, ``image`` the disk or target
    whose bytes are; ``lost`` and ``spare`` are byte ranges ``(start, end)``, as far as they are
    known: clean but to be dirty, dirty but to be clean; bytes that differ are ``spare``.
    ``functions`` are those that QEMU died in, the innermost first, where they are known.
    ``expected`` and ``observed`` are texts for people. ``step`` counts from 1;
    ``trace`` is every operation up to and including that step.
    """

    kind: ClassVar[str] = ""

    operation: str
    aspect: str
    expected: str
    observed: str
    step: int = 0
    trace: tuple[Operation, ...] = ()
    symptom: str = ""
    bitmap: tuple[str, str] | None = None
    image: str = ""
    lost: tuple[tuple[int, int], ...] = ()
    spare: tuple[tuple[int, int], ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The identity of the bug: a short hash of kind, operation, and aspect or functions."""
        return short_hash(f"{self.kind}|{self.operation}|{self._what}")

    @property
    def coarse_id(self) -> str:
        """The id that it has where the functions cannot be told."""
        return short_hash(f"{self.kind}|{self.operation}|{self.aspect}")

    @property
    def ids(self) -> frozenset[str]:
        """Both ids."""
        return frozenset({self.id, self.coarse_id})

    @property
    def title(self) -> str:
        """One line for lists."""
        what = f": {self._what}" if self._what else ""
        return f"{self.kind} after {self.operation}{what}"

    @property
    def _what(self) -> str:
        """The aspect; of a crash in known functions the signal and these, whatever was due."""
        signal = self.aspect.partition(", ")[0]
        return f"{signal}{_IN}{' < '.join(self.functions)}" if self.functions else self.aspect

    def without_traceback(self) -> Self:
        """The same, to be kept: a traceback holds on to all that Hypothesis knew of the round."""
        return replace(self)

    def is_named(self, identity: str, title: str) -> bool:
        """Whether a finding of this id and title is the same, as far as both are known."""
        return identity in self.ids

    def __str__(self) -> str:
        shown = f"{self.title} ({self.symptom})" if self.symptom else self.title
        return f"{shown}\nexpected: {self.expected}\nobserved: {self.observed}"


class ReplyFinding(Finding):
    """The reply: success where a refusal was due, a refusal where none was, another reason."""

    kind = "reply"


class EventsFinding(Finding):
    """Events that the job's automaton does not allow, or events left over."""

    kind = "events"


class CountFinding(Finding):
    """A bitmap's count of dirty bytes."""

    kind = "count"


class FieldsFinding(Finding):
    """Any other field of a bitmap, a bitmap missing or too much, a node's size."""

    kind = "fields"


class DirtySetFinding(Finding):
    """The digest of a bitmap: other clusters are dirty than should be."""

    kind = "dirty-set"


class JobsFinding(Finding):
    """Which jobs exist, their status and progress."""

    kind = "jobs"


class ContentsFinding(Finding):
    """Bytes of a disk, of a backup's target, or of a read."""

    kind = "contents"


class ImageCheckFinding(Finding):
    """``qemu-img check`` found corruption or leaks."""

    kind = "image-check"


class CrashFinding(Finding):
    """QEMU died."""

    kind = "crash"

    def is_named(self, identity: str, title: str) -> bool:
        """As of any finding; where no functions are known here, they do not matter."""
        unknown = not self.functions and _IN in title
        alike = title.partition(_IN)[0] == self.title.partition(", ")[0]
        return super().is_named(identity, title) or (unknown and alike)


class HangFinding(Finding):
    """QEMU did not answer in time."""

    kind = "hang"


KINDS: dict[str, type[Finding]] = {cls.kind: cls for cls in Finding.__subclasses__()}
"""Every kind of finding, by its name."""


def short_hash(identity: str) -> str:
    """An id that is the same wherever the text is."""
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def normalise(text: str) -> str:
    """A message without what differs from run to run: numbers, addresses, quoted names."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", text.strip())
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", text)
