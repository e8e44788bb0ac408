"""Simpler variants of operations: defaults, fewer parts, smaller and rounder numbers.

What has a default is only ever replaced by it: another number would be no simpler.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, TypeVar

from qbprop.qemu.guest import TRANSFER_LIMIT
from qbprop_model.operations import (
    BITMAPS,
    BitmapAdd,
    BitmapDisable,
    Discard,
    InvalidOperationError,
    Layer,
    Operation,
    Read,
    Write,
    WriteZeroes,
)

T = TypeVar("T")

Request = Write | WriteZeroes | Discard | Read

ROUND_NUMBERS = (0, 1, 512, 65536, 1 << 20)


def simplify(
    operations: tuple[Operation, ...],
    shows: Callable[[tuple[Operation, ...]], bool],
    expired: Callable[[], bool],
) -> tuple[Operation, ...]:
    """Replace operations by simpler ones as long as the sequence ``shows`` what it did.

    Unless time ``expired`` meanwhile, no single variant of :func:`simpler` would do.
    """
    changed = True
    while changed:
        changed = False
        for old, new in zip(BITMAPS[:0:-1], BITMAPS[-2::-1], strict=True):
            trial = renamed(operations, old, new)
            if trial != operations and not expired() and shows(trial):
                operations, changed = trial, True
        for i in range(len(operations) - 1, 0, -1):
            merged = merge(operations[i - 1], operations[i])
            if merged is None or expired():
                continue
            trial = (*operations[: i - 1], merged, *operations[i + 1 :])
            if shows(trial):
                operations, changed = trial, True
        for i in range(len(operations)):
            candidates = simpler(operations[i])
            while (variant := next(candidates, None)) is not None:
                if expired():
                    return operations
                trial = (*operations[:i], variant, *operations[i + 1 :])
                if shows(trial):
                    operations, changed = trial, True
                    candidates = simpler(variant)
    return operations


def merge(first: Operation, second: Operation) -> Operation | None:
    """One operation of the vocabulary in place of two neighbours, where there is one."""
    match first, second:
        case BitmapAdd(), BitmapDisable():
            if (first.node, first.name) == (second.node, second.name):
                return replace(first, disabled=True)
        case Write(), Write():
            return _joined(first, second)
        case WriteZeroes(), WriteZeroes():
            return _joined(first, second)
        case Discard(), Discard():
            return _joined(first, second)
        case Read(), Read():
            return _joined(first, second)
    return None


def _joined(first: Request, second: Request) -> Request | None:
    """The first request, over the range of both, unless that is longer than one request."""
    start = min(first.offset, second.offset)
    end = max(first.offset + first.length, second.offset + second.length)
    if first.node != second.node or end - start > TRANSFER_LIMIT:
        return None
    return replace(first, offset=start, length=end - start)


def renamed(value: T, old: str, new: str) -> T:
    """The operations with one name in place of another; where both occur, as they are."""
    changed = _replaced(value, old, new)
    return value if _replaced(value, new, old) != value else changed


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_replaced(item, old, new) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{key: _replaced(part, old, new) for key, part in parts.items()})
    return new if value == old else value


def simpler(value: T) -> Iterator[T]:
    """Variants of an operation, or a part of one, that are a step simpler.

    A byte that is repeated is simpler than stamped data: a reproducer needs no file for it. A raw
    image is simpler than a qcow2 one.
    """
    stamp = getattr(value, "stamp", None)
    if stamp is not None:
        yield from _with(value, stamp=None, fill=stamp % 255 + 1)
    if isinstance(value, Layer) and value.format != "raw":
        yield from _with(value, format="raw")
    for field in fields(value):  # type: ignore[arg-type]
        old = getattr(value, field.name)
        if old == field.default or (isinstance(value, Layer) and field.name == "format"):
            continue
        if field.default is not MISSING:
            yield from _with(value, **{field.name: field.default})
        if field.default is MISSING or isinstance(old, tuple):
            for new in _variants(old):
                yield from _with(value, **{field.name: new})


def _variants(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        power = 1 << max(value.bit_length() - 1, 0)
        smaller = {*ROUND_NUMBERS, power, value // 2}
        yield from sorted(number for number in smaller if number < value)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield value[:i] + value[i + 1 :]
            if is_dataclass(item):
                for variant in simpler(item):
                    yield (*value[:i], variant, *value[i + 1 :])
    elif is_dataclass(value):
        yield from simpler(value)


def _with(value: T, **changes: object) -> Iterator[T]:
    """The value with some fields replaced, unless there is no such value."""
    try:
        yield replace(value, **changes)  # type: ignore[type-var]
    except InvalidOperationError:
        return
