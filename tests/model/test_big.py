"""A huge disk costs what was touched, not what it could hold."""

import tracemalloc

from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BlockdevBackup,
    CreateImage,
    Layer,
    Operation,
    Read,
    Resize,
    Write,
    WriteZeroes,
)
from qbprop_model.world import World

TIB = 2**40
SIZE = 16 * TIB
GRANULARITY = 2**31
CLUSTER = 65536
PLACES = tuple(SIZE // 10 * n // CLUSTER * CLUSTER for n in range(10))
MEMORY = 64 * 2**20


def build() -> World:
    world = World()
    operations: list[Operation] = [
        AddDisk(node="drive0", layers=(Layer(size=SIZE), Layer(size=SIZE // 2)), discard="unmap"),
        BitmapAdd(node="drive0", name="bitmap0", granularity=GRANULARITY),
        *(Write(node="drive0", offset=at, length=CLUSTER, stamp=1) for at in PLACES),
        CreateImage(image="target0", layer=Layer(size=SIZE)),
        CreateImage(image="target1", layer=Layer(size=SIZE), backing="target0"),
        BlockdevBackup(node="drive0", target="target0", sync="top"),
        Write(node="drive0", offset=PLACES[3] + 100, length=100, fill=7),
        Resize(node="drive0", size=SIZE + CLUSTER),
        Resize(node="drive0", size=SIZE),
        WriteZeroes(node="drive0", offset=TIB, length=4 * TIB),
    ]
    for operation in operations:
        assert world.apply(operation).refusal is None
    return world


def test_sixteen_tebibytes_with_ten_touched_clusters_fit_in_megabytes() -> None:
    tracemalloc.start()
    world = build()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY
    contents = world.final().contents
    target, disk = contents["target0"], contents["drive0"]
    assert target.size == disk.size == SIZE
    assert target.written() == [(at, at + CLUSTER) for at in PLACES]
    inside = [at for at in PLACES if not TIB <= at < 5 * TIB]
    assert {start // CLUSTER * CLUSTER for start, _ in disk.written()} == set(inside)
    for at in PLACES:
        assert target.render(at, CLUSTER).any()
        assert disk.render(at, CLUSTER).any() == (at in inside)


def test_the_bitmap_of_a_huge_disk_is_exact() -> None:
    world = build()
    state = world.final().bitmaps["drive0"]["bitmap0"]
    touched = {at // GRANULARITY for at in PLACES} | set(
        range(TIB // GRANULARITY, 5 * TIB // GRANULARITY)
    )
    assert state.count == len(touched) * GRANULARITY
    last = world.apply(Read(node="drive0", offset=SIZE - 512, length=512))
    assert last.data is not None
    assert not last.data.any()
