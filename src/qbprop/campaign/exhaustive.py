"""Every short sequence of operations over a small world, one after the other.

The world has a disk of four clusters, two bitmaps of different granularity, two dirty clusters, and
an image to back up into. What is shorter than the longest sequences is how these begin: each step
is checked.
"""

from collections.abc import Iterator

from qbprop.campaign.book import Book
from qbprop.campaign.summary import SequencesRecord, Summary
from qbprop.campaign.watch import Halt, Watch
from qbprop.findings import Finding
from qbprop.session import Session
from qbprop_model.operations import (
    Abort,
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    BlockdevBackup,
    CreateImage,
    InvalidOperationError,
    JobCancel,
    JobSetSpeed,
    Layer,
    MergeSource,
    Operation,
    Transaction,
    Write,
    WriteZeroes,
)

CLUSTER = 65536
DISK, FINE, COARSE, TARGET, JOB = "drive0", "bitmap0", "bitmap1", "target0", "job0"

WORLD: tuple[Operation, ...] = (
    AddDisk(node=DISK, layers=(Layer(size=4 * CLUSTER, format="raw"),)),
    BitmapAdd(node=DISK, name=FINE, granularity=CLUSTER),
    BitmapAdd(node=DISK, name=COARSE, granularity=2 * CLUSTER),
    CreateImage(image=TARGET, layer=Layer(size=4 * CLUSTER)),
    Write(node=DISK, offset=CLUSTER, length=2 * CLUSTER, stamp=9),
)
"""What each sequence starts from."""

OPERATIONS: tuple[Operation, ...] = (
    Write(node=DISK, offset=0, length=CLUSTER, stamp=1),
    Write(node=DISK, offset=3 * CLUSTER + 512, length=512, stamp=2),
    WriteZeroes(node=DISK, offset=2 * CLUSTER, length=CLUSTER + 512),
    BitmapClear(node=DISK, name=FINE),
    BitmapDisable(node=DISK, name=FINE),
    BitmapEnable(node=DISK, name=FINE),
    BitmapRemove(node=DISK, name=COARSE),
    BitmapAdd(node=DISK, name=COARSE, granularity=2 * CLUSTER, disabled=True),
    BitmapMerge(node=DISK, target=FINE, sources=(MergeSource(name=COARSE),)),
    BitmapMerge(node=DISK, target=COARSE, sources=(MergeSource(name=FINE),)),
    BlockdevBackup(
        node=DISK,
        target=TARGET,
        sync="bitmap",
        bitmap=FINE,
        bitmap_mode="on-success",
        job=JOB,
        speed=1,
        max_workers=1,
        max_chunk=CLUSTER,
    ),
    JobCancel(job=JOB),
    JobSetSpeed(job=JOB, speed=0),
    Transaction(actions=(BitmapClear(node=DISK, name=FINE), Abort())),
)
"""What sequences are made of; the backup is held as long as its speed is limited."""

LENGTH = 4
"""Operations of the longest sequences."""


def sequences() -> int:
    """How many sequences there are, of one operation to the most."""
    return sum(map(_of_length, range(1, LENGTH + 1)))


def _of_length(length: int) -> int:
    return int(len(OPERATIONS) ** length)


def sequence(number: int) -> Iterator[Operation]:
    """One of the longest sequences; those that begin alike follow each other."""
    for place in reversed(range(LENGTH)):
        yield OPERATIONS[number // _of_length(place) % len(OPERATIONS)]


class Exhaustive:
    """Performs them all; ``summary`` tells how far it is, and where to go on."""

    def __init__(self, session: Session, book: Book, summary: Summary) -> None:
        self._session = session
        self._book = book
        self._longest = _of_length(LENGTH)
        if summary.sequences is None:
            summary.sequences = SequencesRecord(
                length=LENGTH, all=sequences(), longest=self._longest
            )
        self._record = summary.sequences

    @property
    def over(self) -> bool:
        """Whether all were performed."""
        return self._record.done == self._longest

    def run(self, watch: Watch) -> None:
        """Go on until something new is found, all is done, or the time is over."""
        while not self.over:
            number = self._record.done
            try:
                following = self._perform(number)
            except Halt:
                return
            except Finding as finding:
                found = not watch.disagreed(finding, self._session, self._book)
                self._record.done = number + 1
                if found:
                    return
            else:
                self._record.done = following

    def _perform(self, number: int) -> int:
        """Perform a sequence; the next one that does not begin with what cannot be judged."""
        self._session.begin()
        for operation in WORLD:
            self._session.start(operation)
        for place, operation in enumerate(sequence(number), 1):
            try:
                self._session.start(operation)
            except InvalidOperationError:
                alike = _of_length(LENGTH - place)
                following = (number // alike + 1) * alike
                self._session.settle()
                self._record.unjudged += following - number
                return following
        self._session.finish(thorough=False)
        return number + 1
