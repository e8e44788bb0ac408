"""The World: everything qbprop believes about QEMU; one operation moves it one step."""

from qbprop_model.effects import effect, references
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
        return self._expect(outcome, self.addressed(operation))

    def final(self) -> Expectation:
        """What must hold at the end of an example: every digest, every byte."""
        targets = tuple(name for name in self.images if "." not in name)
        everything = Outcome(contents=(*self.nodes, *targets))
        return self._expect(everything, tuple(self.nodes))

    def addressed(self, operation: Operation) -> tuple[str, ...]:
        """The nodes whose bitmaps the operation could have touched."""
        found = {self.roots.get(ref, ref) for ref in references(operation)}
        return tuple(name for name in self.nodes if name in found)

    def _expect(self, outcome: Outcome, addressed: tuple[str, ...]) -> Expectation:
        bitmaps: dict[str, dict[str, BitmapState]] = {
            name: {key: bitmap.state for key, bitmap in node.bitmaps.items()}
            for name, node in self.nodes.items()
        }
        digests = {
            (name, key): bitmap.digest
            for name in addressed
            for key, bitmap in self.nodes[name].bitmaps.items()
        }
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
