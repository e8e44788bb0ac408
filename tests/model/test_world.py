"""Whole sequences of operations: the model against the naive World, step by step."""

from hypothesis import HealthCheck, given, settings

from qbprop_model.operations import Operation
from tests.model.compare import compare
from tests.model.strategies import sequences

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(deadline=None, max_examples=400, derandomize=True, suppress_health_check=SLOW)
@given(sequences())
def test_any_sequence_of_operations_goes_as_in_the_naive_world(
    operations: list[Operation],
) -> None:
    compare(operations)
