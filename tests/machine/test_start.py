"""How examples begin."""

from tests.sensitivity.dry import draw_examples

BEGINNING = 6
"""Operations."""


def test_examples_begin_unlike_each_other() -> None:
    beginnings = [trace[:BEGINNING] for trace in draw_examples(40, 30, 1)]
    long = [each for each in beginnings if len(each) == BEGINNING]
    assert len(long) >= 30
    assert len(set(map(repr, long))) >= 0.9 * len(long)
