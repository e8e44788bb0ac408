"""How much to test: Hypothesis profiles, registered when this module is imported.

A profile fixes the number of examples and the steps of each; it has no clock. All of them
switch off what Hypothesis measures in milliseconds: QEMU's are not Python's.
"""

from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings

PREFIX = "qbprop-"

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
"""Without ``explain``, which reruns a failure to watch Python lines: QEMU has none."""


@dataclass(frozen=True)
class Size:
    """``examples`` of ``steps`` operations each; ``derandomized`` ones are always the same."""

    examples: int
    steps: int
    derandomized: bool = False


OVERNIGHT = "qbprop-overnight"
"""The profile that makes sure first that a mistake would be found."""

SIZES = {
    "qbprop-dev": Size(25, 20),
    "qbprop-ci": Size(200, 30, derandomized=True),
    "qbprop-nightly": Size(7_000, 30),
    OVERNIGHT: Size(55_000, 30),
}
"""Seconds; about two minutes; about an hour; about eight hours."""

DEFAULT_PROFILE = "qbprop-nightly"
"""The one that tells ``qbprop fuzz`` the steps of an example."""


def register_profiles() -> None:
    """Register all profiles with Hypothesis, which loads none of them by itself."""
    for name, size in SIZES.items():
        settings.register_profile(
            name,
            max_examples=size.examples,
            stateful_step_count=size.steps,
            derandomize=size.derandomized,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
            print_blob=False,
            report_multiple_bugs=False,
        )


register_profiles()


def chosen_settings() -> settings:
    """The profile that is loaded, made fit for QEMU; ``qbprop-dev`` if none was chosen.

    Hypothesis loads "default", or on a CI server "ci", by itself.
    """
    name = settings.get_current_profile_name()
    current = settings.default
    assert current is not None
    own = name.partition("-with-")[0] in ("default", "ci")
    return settings(
        settings.get_profile("qbprop-dev") if own else current,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=current.verbosity,
    )
