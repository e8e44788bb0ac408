"""A trace performed again, with all checks, outside Hypothesis."""

from collections.abc import Callable, Sequence

from qbprop.findings import Finding
from qbprop.session import Session, Step
from qbprop_model.operations import Operation


def play(
    session: Session,
    examples: Sequence[Sequence[Operation]],
    shows: Callable[[Step], None] = lambda _: None,
    *,
    to_the_end: bool = True,
) -> Finding | None:
    """Perform examples one after the other; the disagreement that ended it, if one did.

    ``shows`` is told of every step that agreed. Unless ``to_the_end`` the checks at the end of
    the last example are left out.

    :raises InvalidOperationError: the model cannot judge an operation.
    """
    try:
        for number, example in enumerate(examples, 1):
            session.begin()
            for operation in example:
                shows(session.step(operation))
            if to_the_end or number < len(examples):
                session.finish()
    except Finding as finding:
        return finding
    return None
