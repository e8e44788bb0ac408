"""What the user asks of a campaign: kept with it, so that it can go on."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from qbprop.campaign.cluster import ClusterWorkers
from qbprop.campaign.known import KnownFinding, read_known, shipped_known
from qbprop.campaign.ledger import SHARES
from qbprop.campaign.runner import Campaign, Options
from qbprop.campaign.shares import SharedCampaign
from qbprop.campaign.summary import Summary
from qbprop.campaign.workers import LocalWorkers
from qbprop.errors import EnvironmentProblem
from qbprop.lab import Lab
from qbprop.profiles import OVERNIGHT
from qbprop.qemu.binaries import find_binaries
from qbprop.records import RecordError, structure

CANARY_FROM_SECONDS = 3600.0
"""Campaigns of this length look for a canary unless they are told not to."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``qbprop fuzz`` that tell what a campaign does; ``max_time`` in seconds."""

    qemu: str | None
    max_time: float
    max_examples: int | None
    seed: int | None
    jobs: int
    stop_on_finding: bool
    profile: str
    focus: tuple[str, ...]
    known: str | None
    canary: bool | None = None
    database: tuple[str, ...] = ()
    cluster: str | None = None
    exhaustive: bool = False
    cross: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def wants_canary(self) -> bool:
        """Whether a mistake is planted first; if not said, in the campaigns of a night."""
        if self.canary is not None:
            return self.canary
        return self.profile == OVERNIGHT or self.max_time >= CANARY_FROM_SECONDS

    @classmethod
    def of(cls, out: Path) -> "Request":
        """What was asked of the campaign in a folder.

        :raises EnvironmentProblem: there is none.
        """
        summary = Summary.read(out)
        if summary is None:
            raise EnvironmentProblem(
                f"{out} has no campaign.json; give --resume the folder of a campaign (its --out)"
            )
        try:
            return structure(summary.request, cls)
        except RecordError as error:
            raise EnvironmentProblem(f"{out / 'campaign.json'}: {error}") from error

    def known_findings(self) -> tuple[KnownFinding, ...]:
        """The shipped list, and the user's own.

        :raises EnvironmentProblem: that one cannot be read, or is not such a list.
        """
        return shipped_known() + (read_known(Path(self.known)) if self.known else ())

    def campaign(self, lab: Lab, out: Path, console: Console) -> Campaign | SharedCampaign:
        """The campaign in a folder, new or to go on; it needs only be run.

        :raises EnvironmentProblem: as :meth:`known_findings`; or there is no such cluster.
        """
        options = Options(
            out=out,
            max_seconds=self.max_time,
            max_examples=self.max_examples,
            seed=self.seed,
            profile=self.profile,
            stop_on_finding=self.stop_on_finding,
            known=self.known_findings(),
            focus=self.focus,
            database=self.database,
            exhaustive=self.exhaustive,
            beside=tuple(replace(lab, binaries=find_binaries(path)) for path in self.beside),
            request=asdict(self),
        )
        if self.jobs == 1 and self.cluster is None and not (out / SHARES).exists():
            return Campaign(lab, options, console)
        return SharedCampaign(
            lab,
            options,
            console,
            workers=ClusterWorkers(self.cluster) if self.cluster else LocalWorkers(self.jobs),
            qemu=self.qemu,
            cross=self.cross,
            known=Path(self.known) if self.known else None,
        )
