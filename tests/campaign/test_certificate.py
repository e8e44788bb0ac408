"""What a certificate claims, with a QEMU that is made up."""

from itertools import cycle

import pytest
from tests.campaign.findings import count_finding, flushes, reply_finding

from qbprop.campaign.certificate import PASSES, REPLAYS, SENSELESS, Certificate, Examples, certify
from qbprop.findings import Finding
from qbprop_model.operations import InvalidOperationError

ID = count_finding().id
FIRST, SECOND, THIRD = flushes(3)


def needs(*operations: object) -> object:
    return lambda examples: (
        count_finding(examples[-1]) if set(operations) <= set(sum(examples, ())) else None
    )


def certified(examples: Examples, play: object) -> Certificate:
    certificate, _ = certify(examples, ID, play, lambda: False)  # type: ignore[arg-type]
    return certificate


def test_each_operation_is_left_out_in_turn() -> None:
    tried: list[Examples] = []

    def play(examples: Examples) -> Finding | None:
        tried.append(examples)
        return needs(FIRST, SECOND)(examples)  # type: ignore[operator, no-any-return]

    certificate = certified(((FIRST, SECOND),), play)
    assert certificate == Certificate(REPLAYS, REPLAYS, 2, (PASSES, PASSES))
    assert certificate.minimal(ID)
    assert not certificate.racy
    assert tried[-2:] == [((SECOND,),), ((FIRST,),)]


def test_a_trace_with_a_spare_operation_is_not_minimal() -> None:
    certificate = certified(((FIRST, SECOND, THIRD),), needs(FIRST, THIRD))
    assert certificate.without == (PASSES, ID, PASSES)
    assert not certificate.minimal(ID)


def test_another_finding_and_nonsense_are_named() -> None:
    def play(examples: Examples) -> Finding | None:
        if FIRST not in examples[0]:
            raise InvalidOperationError("what would that be")
        return count_finding() if SECOND in examples[0] else reply_finding()

    certificate = certified(((FIRST, SECOND),), play)
    assert certificate.without == (SENSELESS, reply_finding().id)
    assert certificate.minimal(ID)


def test_a_racy_finding_states_its_rate_and_gets_more_tries_without_an_operation() -> None:
    turns = cycle([True, False, False, False])
    certificate = certified(((FIRST,),), lambda _: count_finding() if next(turns) else None)
    assert certificate.racy
    assert certificate.rate == pytest.approx(0.25)
    spare = certified(
        ((FIRST, SECOND),),
        lambda examples: count_finding() if next(turns) and FIRST in examples[0] else None,
    )
    assert spare.without == (PASSES, ID)


def test_out_of_time_it_claims_no_more_than_was_tried() -> None:
    certificate, finding = certify(((FIRST,),), ID, lambda _: count_finding(), lambda: True)
    assert (certificate.replays, certificate.disagreed) == (1, 1)
    assert finding is not None
    assert not certificate.minimal(ID)
