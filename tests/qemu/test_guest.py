import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.guest import RANGE_LIMIT, TRANSFER_LIMIT, GuestIo, pieces
from qbprop.qemu.guest_hmp import HmpGuest
from qbprop.qemu.guest_nbd import NbdConnection, NbdGuest
from qbprop.qemu.monitor import Command, Error, QemuDied, QemuSilent
from qbprop.qemu.observation import RequestRefused
from qbprop.qemu.primitives import GuestKind, GuestRequest
from qbprop.qemu.process import QemuProcess
from qbprop_model.data import Fill, Stamp

SIZE = 96 << 20
CHANGES: list[GuestKind] = ["write", "write_zeroes", "discard"]


@pytest.fixture(scope="module")
def shared(
    binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[QemuProcess, Path]]:
    """A QEMU with one sparse raw disk that discards, in a folder with a long path."""
    folder = tmp_path_factory.mktemp("x" * 120)
    with QemuProcess(binaries, folder) as process:
        add_disk(process, folder)
        yield process, folder


@pytest.fixture(scope="module", params=[NbdGuest, HmpGuest])
def guest(request: pytest.FixtureRequest, shared: tuple[QemuProcess, Path]) -> Iterator[GuestIo]:
    made: GuestIo = request.param(*shared)
    made.attach("drive0")
    yield made
    made.detach_all()


def add_disk(process: QemuProcess, folder: Path) -> None:
    with (folder / "drive0.img").open("wb") as file:
        file.truncate(SIZE)
    protocol = {"driver": "file", "filename": "drive0.img"}
    options = {"driver": "raw", "node-name": "drive0", "discard": "unmap", "file": protocol}
    assert process.monitor.execute(Command("blockdev-add", options)) == {}


def request(
    kind: GuestKind, offset: int = 0, length: int = 0, data: Fill | Stamp | None = None
) -> GuestRequest:
    if kind in {"write", "write_compressed"} and data is None:
        data = Stamp(5)
    return GuestRequest("drive0", kind, offset, length, data)


def read(guest: GuestIo, offset: int, length: int) -> bytes:
    data = guest.perform(request("read", offset, length))
    assert data is not None
    return data.tobytes()


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 15])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 24, 25])
def test_pieces_make_up_the_range_from_the_end(offset: int, length: int) -> None:
    cut = list(pieces(offset, length, 8))
    assert cut == sorted(cut, reverse=True)
    covered = [byte for start, size in cut for byte in range(start, start + size)]
    assert sorted(covered) == list(range(offset, offset + length))
    assert all(size <= 8 and (start % 8 == 0 or start == offset) for start, size in cut)
    assert len(cut) == 1 if length <= 8 else all(size for _, size in cut)


def test_data_comes_back(guest: GuestIo) -> None:
    for stamp, (offset, length) in enumerate([(0, 1), (511, 3), (70_001, 131_072), (SIZE - 9, 9)]):
        assert guest.perform(request("write", offset, length, Stamp(stamp))) is None
        assert read(guest, offset, length) == Stamp(stamp).render(offset, length).tobytes()
    guest.perform(request("write", 5, 10, Fill(0xA5)))
    assert read(guest, 4, 12)[1:11] == b"\xa5" * 10
    assert read(guest, 4, 12)[11] == 0


@pytest.mark.parametrize("kind", ["write_zeroes", "discard"])
def test_zeroing_is_exact(guest: GuestIo, kind: GuestKind) -> None:
    guest.perform(request("write", 0, 300_000, Fill(1)))
    assert guest.perform(request(kind, 100_001, 99_999)) is None
    expected = b"\1" * 100_001 + bytes(99_999) + b"\1" * 100_000
    assert read(guest, 0, 300_000) == expected


def test_unmapping_frees_space_and_plain_zeroing_does_not(
    guest: GuestIo, shared: tuple[QemuProcess, Path]
) -> None:
    def allocated() -> int:
        guest.perform(request("flush"))
        return (shared[1] / "drive0.img").stat().st_blocks

    guest.perform(request("discard", 0, SIZE))
    empty = allocated()
    guest.perform(request("write", 0, 1 << 20, Fill(1)))
    full = allocated()
    guest.perform(request("write_zeroes", 0, 1 << 20))
    assert allocated() == full
    guest.perform(GuestRequest("drive0", "write_zeroes", 0, 1 << 20, unmap=True))
    assert allocated() == empty


def test_a_long_request_is_done_in_full(guest: GuestIo) -> None:
    offset, length = TRANSFER_LIMIT - 3, TRANSFER_LIMIT + 7
    guest.perform(request("write", offset, length, Fill(7)))
    for place in (offset, 2 * TRANSFER_LIMIT - 1, 2 * TRANSFER_LIMIT, offset + length - 1):
        assert read(guest, place, 1) == b"\7"
    assert read(guest, offset - 1, 1) == read(guest, offset + length, 1) == b"\0"
    guest.perform(request("write_zeroes", offset, length))
    assert read(guest, offset + length - 1, 1) == b"\0"


def test_flush(guest: GuestIo) -> None:
    assert guest.perform(request("flush")) is None


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (SIZE, 1),
        (SIZE - 1, 2),
        (SIZE + 1, 0),
        (1 << 62, 1 << 20),
        (2**63 - 1, 2**63 - 1),
        (SIZE - 10, 2 * TRANSFER_LIMIT),
        (0, 3 * RANGE_LIMIT),
    ],
)
@pytest.mark.parametrize("kind", ["read", *CHANGES])
def test_a_range_past_the_end_is_refused_and_changes_nothing(
    guest: GuestIo, kind: GuestKind, offset: int, length: int
) -> None:
    guest.perform(request("write", SIZE - 512, 512, Fill(3)))
    with pytest.raises(RequestRefused) as refused:
        guest.perform(request(kind, offset, length))
    assert refused.value.refused.channel == "guest"
    assert read(guest, SIZE - 512, 512) == b"\3" * 512


@pytest.mark.parametrize("offset", [0, 5, SIZE])
@pytest.mark.parametrize("kind", ["read", *CHANGES])
def test_nothing_is_a_legal_length(guest: GuestIo, kind: GuestKind, offset: int) -> None:
    data = guest.perform(request(kind, offset, 0))
    assert data is None if kind != "read" else data is not None and len(data) == 0


def test_an_unknown_disk_is_refused(guest: GuestIo) -> None:
    with pytest.raises(RequestRefused, match="drive9"):
        guest.perform(GuestRequest("drive9", "read", 0, 1))
    if guest.name == "nbd":
        with pytest.raises(RequestRefused, match="drive9"):
            guest.hold(GuestRequest("drive9", "write", 0, 1, Fill(1)))


def test_a_source_shows_where_data_may_be(guest: GuestIo) -> None:
    guest.perform(request("discard", 0, SIZE))
    guest.perform(request("write", 40 << 20, 4096, Fill(9)))
    source = guest.source("drive0")
    assert source.size == SIZE
    extents = list(source.data_extents())
    assert any(start <= 40 << 20 and end >= (40 << 20) + 4096 for start, end in extents)
    assert sum(end - start for start, end in extents) <= 8 << 20
    assert np.array_equal(source.read(40 << 20, 4096), np.full(4096, 9, np.uint8))


@pytest.mark.parametrize(
    ("kind", "offset", "length"),
    [(kind, offset, 0) for kind in ("read", *CHANGES) for offset in (0, SIZE, SIZE + 1)]
    + [(kind, SIZE, 1) for kind in ("read", *CHANGES)],
)
def test_odd_nbd_requests_reach_qemu(
    binaries: Binaries, tmp_path: Path, kind: GuestKind, offset: int, length: int
) -> None:
    """A strict libnbd would answer them itself, and not miss a stopped QEMU."""
    with QemuProcess(binaries, tmp_path) as process:
        guest = NbdGuest(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("flush"))
        process.monitor.timeout = 0.1
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(QemuSilent):
            guest.perform(request(kind, offset, length))


@pytest.mark.parametrize("guest_class", [NbdGuest, HmpGuest])
def test_a_stopped_qemu_is_silent_and_a_killed_one_dead(
    binaries: Binaries, tmp_path: Path, guest_class: type[NbdGuest] | type[HmpGuest]
) -> None:
    with QemuProcess(binaries, tmp_path) as process:
        guest = guest_class(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("write", 0, 1))
        process.monitor.timeout = 0.1
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(QemuSilent):
            guest.perform(request("write", 0, 1))
    with QemuProcess(binaries, tmp_path) as process:
        guest = guest_class(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("write", 0, 1))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(QemuDied) as died:
            guest.perform(request("write", 0, 1))
        assert died.value.returncode == -signal.SIGKILL


def test_a_stopped_qemu_is_noticed_while_connecting(binaries: Binaries, tmp_path: Path) -> None:
    with QemuProcess(binaries, tmp_path) as process:
        guest = NbdGuest(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("write", 0, 1))
        process.monitor.timeout = 0.1
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(QemuSilent, match="connect"):
            NbdConnection(process, tmp_path, "drive0")


def test_an_interruption_while_libnbd_calls_back_is_no_error_of_qemu(
    binaries: Binaries, tmp_path: Path
) -> None:
    """What is raised inside of a callback is lost, and the request fails."""
    ended = 0

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        nonlocal ended
        if frame.f_code.co_name == "take" and event in ("call", "return"):
            signal.raise_signal(signal.SIGINT)
            ended += event == "return"

    with QemuProcess(binaries, tmp_path) as process:
        guest = NbdGuest(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("write", 0, 1))
        connection = NbdConnection(process, tmp_path, "drive0")
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background
        sys.setprofile(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                connection.data_extents()
        finally:
            sys.setprofile(None)
            signal.signal(signal.SIGINT, before)
    assert ended


def test_a_lost_connection_is_refused_and_made_again(binaries: Binaries, tmp_path: Path) -> None:
    with QemuProcess(binaries, tmp_path) as process:
        guest = NbdGuest(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0")
        guest.perform(request("write", 0, 1))
        process.monitor.execute(Command("nbd-server-stop"))
        with pytest.raises(RequestRefused) as refused:
            guest.perform(request("write", 0, 1))
        assert refused.value.refused.error_class == "ENOTCONN"


def test_a_detached_disk_can_be_resized(binaries: Binaries, tmp_path: Path) -> None:
    resize = Command("block_resize", {"node-name": "drive0", "size": 512})
    with QemuProcess(binaries, tmp_path) as process:
        guest = NbdGuest(process, tmp_path)
        add_disk(process, tmp_path)
        guest.attach("drive0", "device0")
        guest.perform(GuestRequest("device0", "flush"))
        assert isinstance(process.monitor.execute(resize), Error)
        guest.detach("device0")
        assert process.monitor.execute(resize) == {}
        guest.reattach("device0")
        assert guest.source("drive0").size == 512
