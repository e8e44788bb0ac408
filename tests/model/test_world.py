"""Whole sequences of operations: the model against the naive World, step by step."""

from hypothesis import given
from tests.model.compare import checked, compare
from tests.model.strategies import sequences

from qbprop_model.operations import Operation


@checked(100)
@given(sequences())
def test_any_sequence_of_operations_goes_as_in_the_naive_world(
    operations: list[Operation],
) -> None:
    compare(operations)
