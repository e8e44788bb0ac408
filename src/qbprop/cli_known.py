"""``qbprop fuzz --only-known``: what is printed."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from qbprop.campaign.known import KnownFinding
    from qbprop.lab import Lab


def show_known(lab: "Lab", entries: "Iterable[KnownFinding]", *, as_json: bool) -> None:
    """Try each known finding and print what became of it.

    :raises EnvironmentProblem: QEMU cannot be launched.
    """
    from qbprop.campaign.only_known import try_known

    records = []
    for tried in try_known(lab, entries, lambda title: click.echo(f"trying {title}", err=True)):
        entry = tried.entry
        records.append(
            {
                "id": entry.id,
                "title": entry.title,
                "listed": tried.listed,
                "outcome": tried.outcome,
                "upstream": entry.upstream,
            }
        )
        if not as_json:
            click.echo(tried.line())
    if as_json:
        click.echo(json.dumps(records, indent=2))
