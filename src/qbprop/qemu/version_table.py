"""The table of docs/versions.md: what each of several QEMUs can do and is like."""

from collections.abc import Iterable, Iterator

from qbprop.qemu.features import TABLE, Features

MARK = "<!-- the table: make version-table -->"
"""What stands above the table on its page."""


def release(version: str) -> str:
    """The first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def rows(qemus: Iterable[Features]) -> Iterator[str]:
    """The lines of the table in Markdown, a column for each QEMU."""
    columns = list(qemus)
    versions = [release(each.version) for each in columns]
    yield f"| feature | {' | '.join(versions)} | recognised by | without it |"
    yield f"|---|{'---|' * len(columns)}---|---|"
    for feature in TABLE:
        marks = ["yes" if getattr(each, feature.name) else "–" for each in columns]
        yield (
            f"| {feature.what} | {' | '.join(marks)} | {feature.sign.words} | {feature.without} |"
        )


def column(lines: Iterable[str], version: str) -> list[str] | None:
    """The cells of one QEMU in a table, its head left out; None if it has no column."""
    head, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    wanted = release(version)
    return [row[head.index(wanted)] for row in body] if wanted in head else None
