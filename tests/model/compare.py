"""The model beside the naive World: the same operations, the same answers."""

from collections.abc import Iterable

from hypothesis import HealthCheck, settings
from tests.model.naive import Answer, NaiveWorld

from qbprop_model.expectation import Contents, Expectation
from qbprop_model.image import Alloc
from qbprop_model.operations import (
    NODES,
    Backup,
    InvalidOperationError,
    OpenOutcomeError,
    Operation,
    Transaction,
)
from qbprop_model.ranges import Ranges, joined
from qbprop_model.rules import Rules
from qbprop_model.world import World

Digests = dict[tuple[str, str], str]


def checked(max_examples: int) -> settings:
    """The settings of every property here: the same examples each time, however slow."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        deadline=None, max_examples=max_examples, derandomize=True, suppress_health_check=slow
    )


class DifferenceError(AssertionError):
    """The two do not agree."""


def same(what: str, model: object, naive: object) -> None:
    if model != naive:
        raise DifferenceError(f"{what}: the model says {model!r}, the naive World {naive!r}")


def same_bytes(what: str, model: bytes, naive: bytes) -> None:
    same(f"length of {what}", len(model), len(naive))
    if model != naive:
        at = next(i for i, (a, b) in enumerate(zip(model, naive, strict=True)) if a != b)
        same(f"byte {at} of {what}", model[at], naive[at])


def digests_of(naive: NaiveWorld) -> Digests:
    return {
        (name, key): bitmap.digest(naive.size(node))
        for name, node in naive.nodes.items()
        for key, bitmap in node.bitmaps.items()
    }


def uniform(naive: NaiveWorld) -> set[tuple[str, str]]:
    """The bitmaps of which the number of dirty clusters tells all."""
    return {
        (name, key)
        for name, node in naive.nodes.items()
        for key, bitmap in node.bitmaps.items()
        if len(bitmap.dirty) in (0, bitmap.length(naive.size(node)))
    }


def check_contents(name: str, model: Contents, naive: bytes) -> None:
    same_bytes(name, model.render(0, model.size).tobytes(), naive)
    outside = bytearray(naive)
    for start, end in model.written():
        outside[start:end] = bytes(end - start)
    if any(outside):
        raise DifferenceError(f"{name} has bytes outside of what written() tells")


def check_extents(extents: Ranges | None, dirty: set[int] | None) -> None:
    """Extents hold exactly the dirty bytes, and none of them meet."""
    same("extents", extents is None, dirty is None)
    if extents is not None:
        same("dirty bytes", {byte for start, end in extents for byte in range(start, end)}, dirty)
        same("extents that do not meet", extents, joined(extents))


def check_step(expected: Expectation, answer: Answer, naive: NaiveWorld, before: Digests) -> None:
    """What the operation gave, and the bitmaps after it."""
    same("refusal", expected.refusal and expected.refusal.reason, answer.reason)
    same("data", expected.data is None, answer.data is None)
    if expected.data is not None and answer.data is not None:
        same_bytes("data", expected.data.tobytes(), answer.data)
    check_extents(expected.extents, answer.dirty)
    same("jobs", dict(expected.jobs), dict(answer.jobs))
    states = {
        name: {key: bitmap.state() for key, bitmap in node.bitmaps.items()}
        for name, node in naive.nodes.items()
    }
    same("bitmaps", {name: dict(found) for name, found in expected.bitmaps.items()}, states)
    sizes = {name: naive.size(node) for name, node in naive.nodes.items()}
    same("sizes", dict(expected.sizes), sizes)
    after = digests_of(naive)
    changed = {key for key, value in after.items() if before.get(key) != value}
    told = set(expected.digests) | uniform(naive)
    same("changed digests that are not told", changed - told, set())
    for key, value in expected.digests.items():
        same(f"digest of {key}", value, after[key])
    for name, contents in expected.contents.items():
        check_contents(name, contents, naive.contents(name) or b"")


def check_everything(world: World, naive: NaiveWorld) -> None:
    """All digests and all bytes."""
    final = world.final()
    same("digests", dict(final.digests), digests_of(naive))
    closed = {f"{disk}.0" for disk in NODES if disk not in naive.nodes}
    files = [name for name in naive.files.images if "." not in name or name in closed]
    names = [*naive.nodes, *files]
    for name in names:
        content = naive.contents(name)
        same(f"{name} is exact", name in final.contents, content is not None)
        if content is not None:
            check_contents(name, final.contents[name], content)
    check_allocation(world, naive)
    same("things with contents", set(final.contents) - set(names), set())


def check_allocation(world: World, naive: NaiveWorld) -> None:
    """What each unit within a layer's size holds, where both know it."""
    for name, image in naive.files.images.items():
        alloc = world.images[name].alloc
        kinds = [] if image.raw else image.kinds[: -(-image.size // image.unit)]
        models = [(s, alloc.at(s)) for s in range(0, len(kinds) * image.unit, image.unit)]
        for (at, model), kind in zip(models, kinds, strict=True):
            if model is not Alloc.DATA_OR_ZERO and kind != "maybe":
                same(f"allocation at {at} of {name}", model.value, kind)


def outlives_its_step(operation: Operation) -> bool:
    """Whether a job may go on behind it, of which the naive model knows nothing."""
    actions = operation.actions if isinstance(operation, Transaction) else (operation,)
    return any(isinstance(each, Backup) and each.sync == "none" for each in actions)


def compare(operations: Iterable[Operation], rules: Rules | None = None) -> int:
    """Perform the operations on both. Returns how many both performed.

    Operations that make no sense to the model, or whose outcome it leaves open, are left out;
    so are those of jobs in flight.
    """
    world, naive, performed = World(rules), NaiveWorld(), 0
    for operation in operations:
        if outlives_its_step(operation):
            continue
        before = digests_of(naive)
        try:
            expected = world.apply(operation)
        except InvalidOperationError:
            continue
        try:
            answer = naive.apply(operation)
        except OpenOutcomeError as unknown:
            raise DifferenceError(f"the model knows what is open: {unknown}") from None
        performed += 1
        check_step(expected, answer, naive, before)
    check_everything(world, naive)
    return performed
