"""A campaign: rounds of the machine on one QEMU, until time or examples are used up."""

import secrets
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis.database import ExampleDatabase
from rich.console import Console

from qbprop.atomic import write_atomically
from qbprop.autopsy import Autopsy, as_before
from qbprop.campaign.beside import Beside
from qbprop.campaign.book import Book, Entry
from qbprop.campaign.certificate import Examples
from qbprop.campaign.confirmation import CONFIRM_SECONDS, confirm, confirm_patiently
from qbprop.campaign.corpus import Corpus
from qbprop.campaign.database import open_database
from qbprop.campaign.exhaustive import Exhaustive
from qbprop.campaign.folder import Recorder, concluding, unwritable
from qbprop.campaign.known import KnownFinding, harmless_to, known_to
from qbprop.campaign.machine import describe_machine
from qbprop.campaign.memory import resident
from qbprop.campaign.progress import Progress, SilentProgress, describe, open_progress
from qbprop.campaign.rounds import RandomSearch, Rounds
from qbprop.campaign.signals import stopped_by_signals
from qbprop.campaign.skipped import skipped
from qbprop.campaign.summary import QemuRecord, Summary
from qbprop.campaign.watch import Watch, WatchedSession
from qbprop.errors import QbpropError
from qbprop.export.folder import export_finding
from qbprop.export.story import ExportError
from qbprop.findings import Finding, HangFinding
from qbprop.hazards import known_hazards
from qbprop.lab import Lab
from qbprop.machine import BlockMachine
from qbprop.machine.core import MachineBase
from qbprop.profiles import DEFAULT_PROFILE, SIZES
from qbprop.qemu.driver import Driver
from qbprop.replay import play
from qbprop.report.page import draw
from qbprop.session import Locate, Session
from qbprop.trace import Header, Trace, write_trace
from qbprop.version import VERSION
from qbprop_model.operations import InvalidOperationError
from qbprop_model.rules import Rules

WRITE_SECONDS = 2.0
"""Time between two writes of ``campaign.json``."""

SEED_LIMIT = 2**63
"""Seeds are smaller."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a campaign is to do.

    ``out`` is an empty folder, or that of a campaign that goes on; ``seed`` None picks one;
    ``rules`` None means the model as it is; ``machine`` is what chooses the operations; ``focus``
    are the subjects that examples keep to, none for the usual mixture; ``database`` are the places
    where examples are kept, ``out`` unless told or there is a seed; with ``exhaustive`` all short
    sequences are performed instead; ``beside`` are other QEMUs that perform the same examples;
    ``request`` is what the user asked for, for the record.
    """

    out: Path
    max_seconds: float = 60.0
    max_examples: int | None = None
    seed: int | None = None
    profile: str = DEFAULT_PROFILE
    stop_on_finding: bool = False
    known: tuple[KnownFinding, ...] = ()
    rules: Rules | None = None
    machine: type[MachineBase] = BlockMachine
    focus: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    exhaustive: bool = False
    beside: tuple[Lab, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)


def open_summary(options: Options, *, jobs: int = 1) -> Summary:
    """The summary of a campaign that is to begin, with its seed, or of the one that goes on."""
    summary = Summary.read(options.out)
    if summary is None:
        seed = secrets.randbelow(SEED_LIMIT) if options.seed is None else options.seed
        summary = Summary(qbprop=VERSION, qemus=[], guest_io="", profile=options.profile, seed=seed)
    summary.status, summary.jobs, summary.request = "running", jobs, options.request
    summary.machine = describe_machine()
    return summary


def tell_qemu(summary: Summary, lab: Lab, driver: Driver, options: Options) -> dict[str, str]:
    """Note in a summary which QEMU is tested, how, and what is not; what is known of it, by id."""
    known = known_to(driver.every_features, options.known)
    summary.skipped = list(skipped(driver, known_hazards(known), options.focus))
    tested = zip((lab.binaries, *lab.others), driver.every_features, strict=True)
    summary.qemus = [
        QemuRecord(version=features.version, path=str(binaries.system))
        for binaries, features in tested
    ]
    summary.guest_io = driver.transport
    summary.trace_events = list(driver.process.trace_events())
    return known


class Campaign:
    """One campaign on one QEMU; ``console`` shows its progress."""

    def __init__(self, lab: Lab, options: Options, console: Console) -> None:
        self._lab = lab
        self.options = options
        self._console = console
        self._next_write = 0.0
        self.summary = open_summary(options)
        self._watch = Watch(
            self.summary.statistics,
            max_seconds=options.max_seconds,
            max_examples=options.max_examples,
            tick=self._tick,
            note=self._note,
            seconds=self.summary.seconds,
        )
        self._commands = self.summary.commands
        self._recorder = Recorder(self.summary, options.out, options.max_seconds)
        self._progress: Progress = SilentProgress()
        self._autopsy = Autopsy(lab, options.rules)
        self._session: WatchedSession | None = None
        self._book: Book | None = None

    def run(self) -> Summary:
        """Run it to its end; ``campaign.json`` then holds what is returned.

        :raises EnvironmentProblem: QEMU cannot be run, or there is no room for images.
        :raises QbpropError: qbprop itself failed; its text says where the details are.
        """
        summary = self.summary
        with concluding(summary, self.options.out, self._write):
            try:
                with ExitStack() as stack:
                    self._rounds(*self._open(stack))
                summary.status = "finished"
            except KeyboardInterrupt:
                summary.status = "interrupted"
            finally:
                self._watch.example_ends()
        return summary

    def _open(self, stack: ExitStack) -> tuple[WatchedSession, Book]:
        """Launch QEMU and prepare everything; ``stack`` takes it down."""
        stack.enter_context(stopped_by_signals(self._watch.interrupt))
        self._write()
        driver = stack.enter_context(self._lab.driver())
        self._session = WatchedSession(driver, self.options.rules, self._watch, self._autopsy)
        self._book = self._make_book(self._session)
        if self.options.beside:
            self._session.beside = self._beside(self._session, stack)
        self._progress = open_progress(self._console, self._describe, stack)
        return self._session, self._book

    def _beside(self, session: WatchedSession, stack: ExitStack) -> Beside:
        """Launch the QEMUs that perform the same examples."""
        options, summary = self.options, self.summary
        drivers = [stack.enter_context(lab.driver()) for lab in options.beside]
        summary.qemus += [
            QemuRecord(version=driver.version, path=str(lab.binaries.system))
            for lab, driver in zip(options.beside, drivers, strict=True)
        ]
        return Beside(
            session,
            tuple(Session(driver, options.rules) for driver in drivers),
            tuple(frozenset(known_to(driver.every_features, options.known)) for driver in drivers),
            summary.differences,
            options.out,
            self._header(session.driver),
        )

    def _header(self, driver: Driver) -> Header:
        """The header of the traces."""
        return Header(
            qemu_version=driver.version,
            engine=self._lab.binaries.engine,
            transport=driver.transport,
            seed=self.summary.seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _make_book(self, session: WatchedSession) -> Book:
        summary, driver = self.summary, session.driver
        known = tell_qemu(summary, self._lab, driver, self.options)
        session.know(known, harmless_to(driver.every_features, self.options.known))
        self._watch.known_ids = frozenset(known)
        self._watch.hidden |= known.keys()
        header = self._header(driver)
        self._watch.corpus = Corpus(self.options.out, header)
        book = Book(self.options.out, header)
        book.resume(summary.findings)
        self._watch.hidden |= book.entries.keys()
        return book

    def _machine(self, session: WatchedSession, book: Book) -> type[MachineBase]:
        watch = self._watch
        body: dict[str, object] = {
            "session": session,
            "thorough": False,
            "watch": staticmethod(watch.before_step),
            "broken": staticmethod(watch.breaks),
            "known": staticmethod(lambda finding: watch.disagreed(finding, session, book)),
        }
        machine: type[MachineBase] = type("Campaign", (self.options.machine,), body)
        return machine

    def _rounds(self, session: WatchedSession, book: Book) -> None:
        watch = self._watch
        search = self._search(session, book)
        self._confirm_all(book)
        while not watch.exhausted and not search.over:
            search.run(watch)
            self._stop_if_broken(session)
            found = watch.target
            watch.next_round(session.driver, self._lab.timeout)
            if found is not None:
                self._confirm(book, book.entries[found])
                if self.options.stop_on_finding:
                    break
        self._confirm_all(book)

    def _search(self, session: WatchedSession, book: Book) -> RandomSearch | Exhaustive:
        options, summary = self.options, self.summary
        if options.exhaustive:
            return Exhaustive(session, book, summary)
        database: ExampleDatabase | None = None
        if options.database or options.seed is None:
            database = open_database(options.database, options.out, self._warn)
        steps = SIZES[options.profile].steps
        rounds = Rounds(self._machine(session, book), steps, summary.seed, database)
        return RandomSearch(rounds, summary, options.focus)

    def _confirm_all(self, book: Book) -> None:
        """Confirm what was met beside another finding, or before the campaign was killed."""
        for entry in book.entries.values():
            if entry.record.rate is None and not entry.record.known:
                self._confirm(book, entry)

    def _confirm(self, book: Book, entry: Entry) -> None:
        watch = self._watch

        def told(what: str) -> None:
            watch.activity = f"{entry.record.title}: {what}"
            self._tick()

        hangs = entry.record.kind == HangFinding.kind
        timeout = watch.quick_timeout(self._lab.timeout) if hangs else self._lab.timeout
        locate = as_before(entry.finding, self._autopsy)
        at_end = entry.finding.operation == "end" or bool(entry.finding.symptom)
        with self._lab.session(self.options.rules) as reused:
            reused.driver.timeout, reused.locate = timeout, locate
            seconds = min(CONFIRM_SECONDS, watch.grace)
            confirmed = confirm(
                entry,
                partial(self._play_fresh, timeout, locate),
                lambda examples: self._play(reused, examples, to_the_end=at_end),
                seconds,
                exact=partial(self._play_fresh, timeout, self._autopsy),
                sensible=self._sensible,
                told=told,
            )
        patient = partial(self._play_fresh, self._lab.timeout, locate)
        if hangs:
            confirmed = confirm_patiently(entry, confirmed, patient, told)
        certificate = confirmed.certificate

        def accompany(entry: Entry, folder: Path) -> None:
            if certificate.disagreed:
                told("writing the reproducers")
                self._export(entry, folder, certificate.rate)

        book.confirm(confirmed.finding, confirmed.examples, certificate, accompany)
        watch.activity = ""
        rate = f", shown by {certificate.disagreed} of {certificate.replays} replays"
        rate += ", racy" if certificate.racy else ""
        rate += ", minimal" if certificate.minimal(entry.record.id) else ""
        where = book.folder(entry.record.id) / "trace.jsonl"
        self._note(f"    {entry.record.operations} operations{rate}: {where}")

    def _export(self, entry: Entry, folder: Path, rate: float) -> None:
        """Write the reproducers and the page beside the trace; what cannot be made is said so."""
        try:
            rules = self.options.rules
            for line in export_finding(self._lab, entry.trace, folder, rules, rate):
                self._note(f"    {line}")
        except (ExportError, InvalidOperationError) as error:
            self._note(f"    no reproducer: {error}")
        page = draw(self._lab, entry.trace, self.options.rules)
        write_atomically(folder / "report.html", page)

    def _sensible(self, examples: Examples) -> bool:
        """Whether the model alone can judge all of the examples."""
        session = self._session
        assert session is not None
        try:
            for example in examples:
                world = session.new_world()
                for operation in example:
                    world.apply(operation)
        except InvalidOperationError:
            return False
        return True

    def _play_fresh(self, timeout: float, locate: Locate, examples: Examples) -> Finding | None:
        with self._lab.session(self.options.rules) as session:
            session.driver.timeout, session.locate = timeout, locate
            session.explain = True
            return self._play(session, examples)

    def _play(
        self, session: Session, examples: Examples, *, to_the_end: bool = True
    ) -> Finding | None:
        self._tick()
        return play(session, examples, to_the_end=to_the_end)

    def _stop_if_broken(self, session: WatchedSession) -> None:
        error = self._watch.broken
        if error is None:
            return
        if isinstance(error, QbpropError):
            raise error
        if isinstance(error, OSError):
            raise unwritable(self.options.out, error) from error
        details = self.options.out / "error.txt"
        details.write_text("".join(traceback.format_exception(error)), "utf-8")
        trace = Trace((*session.history, session.attempted))
        write_trace(self.options.out / "error.jsonl", trace)
        raise QbpropError(
            f"qbprop itself failed ({type(error).__name__}); please report it with {details} "
            "and the trace beside it"
        ) from error

    def _note(self, text: str) -> None:
        self._progress.note(text)
        self._next_write = 0.0

    def _warn(self, text: str) -> None:
        self.summary.warnings.append(text)
        self._note(text)

    def _refresh(self) -> None:
        self.summary.look(self._watch.seconds)
        self.summary.activity = self._watch.activity
        if self._session is not None and self._book is not None:
            self.summary.commands = self._commands + self._session.driver.round_trips
            self.summary.findings = self._book.records

    def _describe(self) -> list[str]:
        self._refresh()
        return describe(self.summary, self.options.max_seconds)

    def _tick(self) -> None:
        self._progress.tick()
        if time.monotonic() >= self._next_write:
            self._write()

    def _write(self) -> None:
        self._next_write = time.monotonic() + WRITE_SECONDS
        self._refresh()
        self.summary.memory = resident()
        self._recorder.write()
