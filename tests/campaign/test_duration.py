"""Durations as people write them."""

import pytest

from qbprop.campaign.duration import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("10m", 600), ("8h", 28800), ("1.5m", 90), (" 5s ", 5), ("0.5s", 0.5)],
)
def test_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "",
        "60",
        "s",
        "-5s",
        "5 s",
        "1e9s",
        "infs",
        "nans",
        "5d",
        "5S",
        "\u0665s",
        "1" * 99,
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"60s, 10m"):
        parse_duration(text)


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_duration("0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.24, "8.2 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min")],
)
def test_shown(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text
