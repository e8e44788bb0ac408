from pathlib import Path

import numpy as np
import pytest
from tests.qemu.arrays import Pieces

from qbprop.qemu.binaries import Binaries
from qbprop.qemu.contents import RANGES_LIMIT, SHOWN, RawFile, first_difference
from qbprop.qemu.images import Images, create_program, data_files, fill_program
from qbprop.qemu.monitor import QemuSilent
from qbprop.qemu.observation import RequestRefused
from qbprop.qemu.primitives import MakeImage, Program
from qbprop.qemu.qcow2 import chain, format_of
from qbprop_model.data import Bytes, Stamp
from qbprop_model.operations import Layer, Pattern

MIB = 1 << 20
SIZES = [0, 512, 1024, 4096, 65536 + 512, MIB, 5 * MIB + 512, 20 * MIB, 1 << 30, 3 << 40]
SHAPES = [
    Layer(size=0),
    Layer(size=0, compat="0.10"),
    Layer(size=0, cluster_size=512),
    Layer(size=0, cluster_size=2 * MIB),
    Layer(size=0, cluster_size=16384, extended_l2=True),
    Layer(size=0, format="raw"),
]


@pytest.fixture
def images(binaries: Binaries, tmp_path: Path) -> Images:
    return Images(binaries, tmp_path, timeout=30)


def layer(shape: Layer, size: int) -> Layer:
    return Layer(
        size=size,
        format=shape.format,
        cluster_size=shape.cluster_size,
        compat=shape.compat,
        extended_l2=shape.extended_l2,
    )


@pytest.mark.parametrize(
    ("shape", "backed"),
    [(shape, False) for shape in SHAPES] + [(s, True) for s in SHAPES if s.format == "qcow2"],
)
def test_a_copied_template_is_what_qemu_img_makes(
    images: Images, tmp_path: Path, shape: Layer, *, backed: bool
) -> None:
    images.make(MakeImage("base0.img", Layer(size=MIB, format="raw")))
    images.make(MakeImage("another-base.img", Layer(size=MIB, format="raw")))
    copied = 0
    for number, size in enumerate(SIZES):
        if size > 1 << 30 and shape.cluster_size == 512:
            continue
        base = ("base0.img", "another-base.img")[number % 2]
        below = (base, "raw") if backed else (None, None)
        made = MakeImage("made.img", layer(shape, size), *below)
        before = images.runs
        images.make(made)
        copied += images.runs == before
        real = MakeImage("real.img", made.layer, *below)
        images.run(create_program(real))
        for name in ("made.img", "real.img"):
            assert format_of(tmp_path / name) == shape.format
        one, other = tmp_path / "made.img", tmp_path / "real.img"
        assert one.stat().st_size == other.stat().st_size
        assert one.stat().st_blocks == other.stat().st_blocks
        if one.stat().st_size < 64 * MIB:
            assert one.read_bytes() == other.read_bytes()
    assert copied >= 2


def test_a_template_is_not_used_over_a_broken_chain(images: Images, tmp_path: Path) -> None:
    images.make(MakeImage("a.img", Layer(size=MIB)))
    images.make(MakeImage("b.img", Layer(size=MIB), "a.img", "qcow2"))
    top = MakeImage("c.img", Layer(size=MIB), "b.img", "qcow2")
    images.make(top)
    assert [path.name for path in chain(tmp_path / "c.img")] == ["c.img", "b.img", "a.img"]
    (tmp_path / "a.img").unlink()
    with pytest.raises(RequestRefused, match=r"a\.img"):
        images.make(top)
    assert not (tmp_path / "c.img").exists()


def test_what_is_refused_leaves_no_file(images: Images, tmp_path: Path) -> None:
    images.make(MakeImage("a.img", Layer(size=MIB)))
    for refused in (
        Layer(size=MIB, compat="0.10", extended_l2=True),
        Layer(size=2**63 - 512, format="raw"),
        Layer(size=MIB, data=(Pattern(offset=MIB, length=1, fill=1),)),
        Layer(size=MIB, format="raw", data=(Pattern(offset=MIB, length=1, fill=1),)),
    ):
        with pytest.raises(RequestRefused):
            images.make(MakeImage("a.img", refused))
        assert not list(tmp_path.glob("a.img*"))


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_patterns_are_written_in_order(images: Images, form: str) -> None:
    patterns = (
        Pattern(offset=100, length=70_000, stamp=3),
        Pattern(offset=200, length=0, fill=1),
        Pattern(offset=60_000, length=10, fill=9),
    )
    made = Layer(size=MIB, format="raw" if form == "raw" else "qcow2", data=patterns)
    images.make(MakeImage("a.img", made))
    data = bytearray(Stamp(3).render(100, 70_000).tobytes())
    data[59_900:59_910] = b"\x09" * 10
    with RawFile(images.flatten("a.img"), scratch=True) as source:
        assert first_difference(source, Pieces(MIB, {100: bytes(data)})) is None


def test_a_filled_image_is_kept_for_the_same_untouched_chain(
    images: Images, tmp_path: Path
) -> None:
    base = MakeImage("a.img", Layer(size=MIB, format="raw", data=(filled(1, 5000),)))
    top = MakeImage("b.img", Layer(size=MIB, data=(filled(2),)), "a.img", "raw")

    def made() -> tuple[int, bytes, int]:
        """Programs run for the upper image, its bytes and its blocks."""
        before = images.runs
        images.make(top)
        path = tmp_path / "b.img"
        return images.runs - before, path.read_bytes(), path.stat().st_blocks

    images.make(base)
    runs, *first = made()
    assert runs == 2
    images.delete_all()
    images.make(base)
    assert made() == (0, *first)
    images.make(MakeImage("a.img", Layer(size=MIB, format="raw", data=(filled(3, 5000),))))
    runs, *other = made()
    assert runs == 1
    assert other[0] != first[0]
    images.make(base)
    images.run(Program("qemu-io", ("-f", "raw", "-c", "write 0 1", "a.img")))
    assert made()[0] == 1


def filled(stamp: int, offset: int = 100) -> Pattern:
    return Pattern(offset=offset, length=1000, stamp=stamp)


def test_programs_are_told_to_an_exporter() -> None:
    patterns = (Pattern(offset=0, length=9, stamp=3), Pattern(offset=1, length=1, fill=7))
    step = MakeImage("a.img", Layer(size=512, extended_l2=True, data=patterns), "b.img", "raw")
    assert create_program(step) == Program(
        "qemu-img",
        (
            *("create", "-q", "-f", "qcow2"),
            *("-o", "cluster_size=65536,compat=1.1,extended_l2=on"),
            *("-b", "b.img", "-F", "raw", "a.img", "512"),
        ),
    )
    assert data_files(step) == {"a.img.data0": patterns[0]}
    assert fill_program(step) == Program(
        "qemu-io",
        ("-f", "qcow2", "-c", "write -s a.img.data0 0 9", "-c", "write -P 7 1 1", "a.img"),
    )


def checked(images: Images) -> dict[str, str]:
    with images.checking(["a.img"]) as problems:
        return problems()


def test_check_tells_leaks_from_corruption(images: Images, tmp_path: Path) -> None:
    images.make(MakeImage("a.img", Layer(size=MIB, data=(Pattern(offset=0, length=9, fill=1),))))
    assert checked(images) == {}
    path = tmp_path / "a.img"
    good = path.read_bytes()
    table = int.from_bytes(good[48:56], "big")
    block = int.from_bytes(good[table : table + 8], "big")
    used = -(-len(good) // 65536)
    leaking = bytearray(good + bytes(65536 - len(good) % 65536))
    leaking[block + 2 * used - 1] = 1
    leaking[block + 2 * used + 1] = 1
    path.write_bytes(leaking + bytes(65536))
    assert "leaked clusters" in checked(images)["a.img"]
    broken = bytearray(good)
    broken[block : block + 2 * used] = bytes(2 * used)
    path.write_bytes(broken)
    assert "corruption" in checked(images)["a.img"]


def test_check_passes_over_what_nobody_wrote_to(images: Images) -> None:
    images.make(MakeImage("a.img", Layer(size=MIB, data=(Pattern(offset=0, length=1, fill=1),))))
    before = images.runs
    assert checked(images) == {}
    assert images.runs == before
    images.run(Program("qemu-io", ("-f", "qcow2", "-c", "write 0 1", "a.img")))
    assert checked(images) == {}
    assert images.runs == before + 2


def test_check_leaves_other_formats_alone(images: Images) -> None:
    images.make(MakeImage("a.img", Layer(size=MIB, format="raw")))
    assert checked(images) == {}


def test_a_program_that_hangs_is_silent(binaries: Binaries, tmp_path: Path) -> None:
    with pytest.raises(QemuSilent, match="create"):
        Images(binaries, tmp_path, timeout=1e-4).make(MakeImage("a.img", Layer(size=MIB)))


def test_delete_all_keeps_other_files(images: Images, tmp_path: Path) -> None:
    (tmp_path / "qemu.stdout").touch()
    images.make(MakeImage("a.img", Layer(size=MIB)))
    images.delete_all()
    assert [path.name for path in tmp_path.iterdir()] == ["qemu.stdout"]


class Memory:
    """A source in memory that calls zero what ``quiet`` says."""

    def __init__(self, data: bytes, extents: list[tuple[int, int]]) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self._extents = extents

    def data_extents(self) -> list[tuple[int, int]]:
        return self._extents

    def read(self, offset: int, length: int) -> Bytes:
        return self._data[offset : offset + length]


def test_a_difference_is_told_with_place_and_bytes() -> None:
    want = Pieces(1000, {100: b"abc", 200: b"xyz"})
    got = bytearray(1000)
    got[100:103], got[200:203], got[900] = b"aXX", b"xyz", 1
    found = first_difference(Memory(bytes(got), [(0, 1000)]), want)
    assert found is not None
    assert (found.offset, found.origin, found.ranges) == (101, 100, 2)
    assert found.expected == b"bc" + bytes(SHOWN - 2)
    assert found.observed == b"XX" + bytes(SHOWN - 2)
    assert "101" in str(found)


def test_equal_contents_have_no_difference() -> None:
    want = Pieces(1000, {100: b"abc"})
    assert first_difference(Memory(want.render(0, 1000).tobytes(), [(100, 103)]), want) is None


def test_data_where_nothing_was_written_is_seen() -> None:
    got = bytes(500) + b"\1" + bytes(499)
    found = first_difference(Memory(got, [(496, 600)]), Pieces(1000, {}))
    assert found is not None
    assert found.offset == 500


def test_what_was_written_is_read_even_if_called_zero() -> None:
    found = first_difference(Memory(bytes(1000), []), Pieces(1000, {7: b"a"}))
    assert found is not None
    assert (found.offset, found.observed) == (7, b"\0")


def test_another_size_is_a_difference() -> None:
    found = first_difference(Memory(bytes(512), []), Pieces(1024, {}))
    assert found is not None
    assert (found.offset, found.expected_size, found.observed_size) == (512, 1024, 512)


def test_ranges_are_counted_across_chunks_and_up_to_a_limit() -> None:
    size = 10 * MIB
    got = bytearray(size)
    edge = 4 * MIB
    got[edge - 2 : edge + 2] = b"\1\1\1\1"
    found = first_difference(Memory(bytes(got), [(0, size)]), Pieces(size, {}))
    assert found is not None
    assert found.ranges == 1
    got[::4096] = b"\1" * (size // 4096)
    found = first_difference(Memory(bytes(got), [(0, size)]), Pieces(size, {}))
    assert found is not None
    assert found.ranges == RANGES_LIMIT
