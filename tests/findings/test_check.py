"""What QEMU may say on its standard error."""

import pytest

from qbprop.check import check
from qbprop.findings import ReplyFinding
from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop.qemu.observation import Observation
from qbprop_model.expectation import Expectation, Reason

FAILED = "qemu-system-x86_64: Failed flush for '#block235' during close: Input/output error\n"
FULL = FAILED.replace("Input/output error", "No space left on device")


@pytest.mark.parametrize(
    ("complaints", "stderr", "left"),
    [
        ((), "", ""),
        ((Reason.IO_ERROR,), "", ""),
        ((Reason.IO_ERROR,), FAILED, ""),
        ((Reason.NO_SPACE, Reason.IO_ERROR), FAILED + FULL, ""),
        ((), FAILED, FAILED),
        ((Reason.IO_ERROR,), FULL, FULL),
        ((Reason.IO_ERROR,), FAILED * 2, FAILED),
        ((Reason.IO_ERROR,), "qemu: all is lost\n" + FAILED, "qemu: all is lost\n"),
    ],
)
def test_qemu_complains_of_no_more_flushes_than_failed(
    complaints: tuple[Reason, ...], stderr: str, left: str
) -> None:
    with Lab(find_binaries(None)).driver() as driver:
        features = driver.features
    expected = Expectation(complaints=complaints)
    observed = Observation(stderr=stderr)
    if not left:
        check("end", expected, observed, features)
        return
    with pytest.raises(ReplyFinding) as raised:
        check("end", expected, observed, features)
    assert raised.value.observed == left
