"""How time and memory grow with the disk, its bitmaps, and the length of an example.

Each world is tried in a process of its own, so that the memory is its own.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.memory import resident

from qbprop.lab import Lab
from qbprop.qemu.binaries import find_binaries
from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    Discard,
    Layer,
    MergeSource,
    Operation,
    Read,
    Transaction,
    Write,
    WriteZeroes,
)

NODE = "drive0"


@dataclass(frozen=True)
class World:
    """One qcow2 disk of ``size`` bytes, with data in ``touched`` clusters spread over it.

    Each of its ``bitmaps`` has one bit for ``granularity`` bytes.
    """

    size: int
    granularity: int
    bitmaps: int
    touched: int = 100

    def names(self) -> list[str]:
        """The names of its bitmaps."""
        return [f"bitmap{index}" for index in range(self.bitmaps)]

    def made(self) -> Iterator[Operation]:
        """The operations that make it."""
        yield AddDisk(node=NODE, layers=(Layer(size=self.size),))
        for name in self.names():
            yield BitmapAdd(node=NODE, name=name, granularity=self.granularity)
        for offset in self.offsets():
            yield Write(node=NODE, offset=offset, length=512, stamp=offset % 997)

    def offsets(self) -> list[int]:
        """Where it is touched: at the start of a bit's range."""
        bits = self.size // self.granularity
        return [index * bits // self.touched * self.granularity for index in range(self.touched)]

    def steps(self, count: int, seed: int) -> Iterator[Operation]:
        """A mix of operations that is the same for every size."""
        chance = random.Random(seed)  # noqa: S311 (no secret)
        names, offsets = self.names(), self.offsets()
        for number in range(count):
            offset = chance.choice(offsets)
            name, other = chance.choice(names), chance.choice(names)
            match chance.randrange(10):
                case 0 | 1 | 2 | 3:
                    yield Write(node=NODE, offset=offset, length=512, stamp=number)
                case 4:
                    yield Read(node=NODE, offset=offset, length=4096)
                case 5:
                    yield WriteZeroes(node=NODE, offset=offset, length=4096)
                case 6:
                    yield Discard(node=NODE, offset=offset, length=4096)
                case 7:
                    yield BitmapClear(node=NODE, name=name)
                case 8:
                    yield BitmapMerge(node=NODE, target=name, sources=(MergeSource(name=other),))
                case 9:
                    disable = BitmapDisable(node=NODE, name=name)
                    yield Transaction(actions=(disable, BitmapEnable(node=NODE, name=name)))


LARGE = World(size=16 << 40, granularity=2 << 30, bitmaps=6)
"""16 TiB; bitmaps of 8192 bits."""

SMALL = World(size=4 << 20, granularity=512, bitmaps=6)
"""4 MiB; bitmaps of as many bits."""


def tried(world: World, steps: int) -> dict[str, Any]:
    """Milliseconds a step, and the tester's memory at its highest."""
    with Lab(find_binaries(None)).session() as session:
        session.begin()
        for operation in world.made():
            session.step(operation)
        start = time.perf_counter()
        for operation in world.steps(steps, seed=1):
            session.step(operation)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        session.finish()
        end_seconds = time.perf_counter() - start
    return asdict(world) | {
        "ms_per_step": 1000 * seconds / steps,
        "end_ms": 1000 * end_seconds,
        "tester_mb": resident(os.getpid(), "VmHWM"),
    }


def worlds(steps: int) -> dict[str, Any]:
    """The largest world beside a small one, and worlds of more bitmaps."""
    many = [World(size=64 << 20, granularity=65536, bitmaps=count) for count in (1, 6, 20, 60)]
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        large, small, *counted = pool.map(tried, (LARGE, SMALL, *many), [steps] * 6)
    return {
        "large": large,
        "small": small,
        "time_ratio": large["ms_per_step"] / small["ms_per_step"],
        "bitmaps": counted,
    }
