"""Simpler variants of operations: defaults, fewer parts, smaller and rounder numbers.

What has a default is only ever replaced by it: another number would be no simpler.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, TypeVar

from qbprop_model.operations import InvalidOperationError, Operation

T = TypeVar("T")

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


def simpler(value: T) -> Iterator[T]:
    """Variants of an operation, or a part of one, that are a step simpler."""
    for field in fields(value):  # type: ignore[arg-type]
        old = getattr(value, field.name)
        if old == field.default:
            continue
        if field.default is not MISSING:
            yield from _with(value, field.name, field.default)
        if field.default is MISSING or isinstance(old, tuple):
            for new in _variants(old):
                yield from _with(value, field.name, new)


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


def _with(value: T, name: str, new: object) -> Iterator[T]:
    """The value with one field replaced, unless there is no such value."""
    try:
        yield replace(value, **{name: new})  # type: ignore[type-var]
    except InvalidOperationError:
        return
