"""What can be learnt from the command line itself."""

import json

import pytest
from jsonschema import Draft202012Validator
from tests.cli.run import qbprop

from qbprop.trace_schema import schema


def test_help_names_the_commands() -> None:
    done = qbprop("--help")
    assert done.returncode == 0
    for command in ("doctor", "fuzz", "replay", "trace"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (
            "fuzz",
            ["--max-time", "60s", "Exit codes: 0 nothing new", "130 interrupted", "Examples:"],
        ),
        ("replay", ["git bisect run", "125 it could not be tried", "--any"]),
        ("doctor", ["Exit codes: 0 a campaign can run"]),
    ],
)
def test_help_teaches(command: str, texts: list[str]) -> None:
    done = qbprop(command, "--help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    for text in texts:
        assert text in shown


def test_the_schema_is_printed() -> None:
    done = qbprop("trace", "--schema")
    assert done.returncode == 0
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    Draft202012Validator.check_schema(printed)
    assert printed == schema()
