"""The corpus of a campaign: examples that reached something first, kept as traces.

``qbprop replay`` runs it against another QEMU, which is quick: it reaches what the campaign did,
and tries everything once.
"""

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from qbprop.trace import Header, Trace, write_trace
from qbprop_model.operations import Operation

CORPUS = "corpus"
"""The folder of the traces, in the campaign's."""


class Corpus:
    """Traces in the folder of a campaign; ``header`` is what they have in common."""

    def __init__(self, out: Path, header: Header) -> None:
        self._folder = out / CORPUS
        self._header = header
        self._reached: set[tuple[str, ...]] = set()

    def keep(self, example: tuple[Operation, ...], reached: Collection[tuple[str, ...]]) -> None:
        """Keep an example in which all agreed, if it was first to reach something.

        It is called after one of these, and stays when there is one of that name.

        :raises OSError: it cannot be written.
        """
        first = sorted(set(reached) - self._reached)
        if not first:
            return
        self._reached.update(first)
        path = self._folder / f"{'-'.join(first[0])}.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_trace(path, Trace((example,), self._header))


def add_corpus(source: Path, target: Path) -> None:
    """Add what the corpus of one campaign has to that of another.

    :raises OSError: it cannot be written.
    """
    for trace in corpus(source / CORPUS):
        place = target / CORPUS / trace.name
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            fresh = place.with_name(f".{place.name}")
            shutil.copy(trace, fresh)
            fresh.rename(place)


def corpus(folder: Path) -> Iterator[Path]:
    """The traces in a folder, or in the corpus of the campaign in it, by name."""
    place = folder / CORPUS
    yield from sorted((place if place.is_dir() else folder).glob("[!.]*.jsonl"))
