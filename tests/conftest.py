"""What tests share: those that need what a QEMU has not are left out, and none is timed."""

import pytest
from hypothesis import settings

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.features import Features

# A machine that is busy makes any example slow.
settings.register_profile("qbprop-tests", settings(), deadline=None)
settings.load_profile("qbprop-tests")


@pytest.fixture(scope="session")
def features(pytestconfig: pytest.Config) -> Features:
    """What the QEMU that is tested with has."""
    with Lab(find_binaries(pytestconfig.getoption("--qemu"))).driver() as driver:
        return driver.features


@pytest.fixture(autouse=True)
def _needed(request: pytest.FixtureRequest) -> None:
    """Leave out a test that is marked as one that needs what this QEMU has not."""
    for mark in request.node.iter_markers("needs"):
        features: Features = request.getfixturevalue("features")
        missing = [name for name in mark.args if not getattr(features, name)]
        if missing:
            pytest.skip(f"QEMU {features.version} has no {', '.join(missing)}")
