"""``qbprop status``: how far a campaign is, from another shell."""

from pathlib import Path

import click

from qbprop.cli_base import Exit, reporting
from qbprop.errors import EnvironmentProblem


@click.command(epilog="Exit codes: 0 told, 2 there is no campaign in that folder.")
@click.argument("folder", type=click.Path(path_type=Path))
def status(*, folder: Path) -> None:
    """Tell in a few lines how far the campaign in FOLDER is, and what it has found."""
    from qbprop.campaign.progress import describe
    from qbprop.campaign.summary import Summary

    with reporting(Exit.UNUSABLE):
        summary = Summary.read(folder)
        if summary is None:
            raise EnvironmentProblem(
                f"{folder} has no campaign.json; give the folder of a campaign (its --out)"
            )
    whole, *workers = describe(summary, None)
    click.echo(f"{summary.status}: {whole}")
    for worker in workers:
        click.echo(worker)
    for finding in summary.findings:
        word = "known" if finding.known else "NEW"
        click.echo(f"  {word} {finding.id}  {finding.title}, met {finding.count} times")
