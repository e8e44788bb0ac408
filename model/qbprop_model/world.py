"""The World: everything qbprop believes about QEMU; one operation moves it one step."""

from collections.abc import Mapping

from qbprop_model.bitmap import Bitmap
from qbprop_model.effects import effect
from qbprop_model.expectation import BitmapState, Expectation, JobEnd
from qbprop_model.image import Refused
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.state import Outcome, State


class World(State):
    """The state, and the step: what must happen is derived from the operation alone."""

    def apply(self, operation: Operation) -> Expectation:
        """Move one step and say what must hold then.

        Raises :class:`InvalidOperationError` (the World stays as it was) for an operation
        that makes no sense here, or whose outcome is open.
        """
        if operation.engine not in self.engines:
            raise InvalidOperationError(f"there is no engine {operation.engine}")
        before = self.named_bitmaps()
        trial = self.copy()
        trial.step += 1
        try:
            outcome = effect(operation, trial)
        except Refused as refused:
            aborted = {job: JobEnd(None, None, aborted=True) for job in trial.jobs}
            outcome = Outcome(refusal=refused.refusal, jobs=aborted)
            self.step += 1
            self.images, self.vague = trial.images, trial.vague
        else:
            self.__dict__.update(trial.__dict__)
        after = self.named_bitmaps()
        changed = {
            key: bitmap for key, bitmap in after.items() if bitmap.differs_from(before.get(key))
        }
        return self._expect(outcome, changed)

    def final(self) -> Expectation:
        """What must hold at the end of an example: every digest, every byte."""
        targets = tuple(name for name in self.images if "." not in name)
        everything = Outcome(contents=(*self.nodes, *targets))
        return self._expect(everything, self.named_bitmaps())

    def _expect(self, outcome: Outcome, digested: Mapping[tuple[str, str], Bitmap]) -> Expectation:
        bitmaps: dict[str, dict[str, BitmapState]] = {
            name: {key: bitmap.state for key, bitmap in node.bitmaps.items()}
            for name, node in self.nodes.items()
        }
        digests = {key: bitmap.digest for key, bitmap in digested.items()}
        contents = {
            name: view for name in outcome.contents if (view := self.contents(name)) is not None
        }
        return Expectation(
            refusal=outcome.refusal,
            data=outcome.data,
            bitmaps=bitmaps,
            sizes={name: self.chain(node.image)[0].size for name, node in self.nodes.items()},
            digests=digests,
            jobs=outcome.jobs,
            contents=contents,
        )
