"""Strategies for every operation, built from the dataclasses of the vocabulary."""

from dataclasses import MISSING, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from hypothesis import reject
from hypothesis import strategies as st

from qbprop_model.operations import (
    OPERATIONS,
    SIZE_LIMIT,
    TIMES_LIMIT,
    Action,
    InvalidOperationError,
    Operation,
)

_SOURCES: tuple[dict[str, int | None], ...] = (
    {"fill": 0},
    {"fill": 255},
    {"stamp": 0},
    {"stamp": 2**32 - 1},
)


@st.composite
def values(draw: st.DrawFn, cls: Any) -> Any:
    """A value of a dataclass; every field is drawn, defaults are frequent."""
    hints = get_type_hints(cls)
    members = {field.name: _field(field.default, hints[field.name]) for field in fields(cls)}
    if "size" in members:
        members["size"] = members["size"].map(lambda size: size // 512 * 512)
    if "times" in members:
        members["times"] = members["times"].map(lambda times: times % (TIMES_LIMIT + 1))
        members["offset"] = members["offset"].map(lambda offset: offset // 512 * 512)
    if "layers" in members:
        members["layers"] = members["layers"].filter(bool)
    arguments = {name: draw(strategy) for name, strategy in members.items()}
    if "fill" in arguments:
        arguments |= {"fill": None, "stamp": None} | draw(st.sampled_from(_SOURCES))
    try:
        return cls(**arguments)
    except InvalidOperationError:
        reject()


def _field(default: object, hint: Any) -> st.SearchStrategy[Any]:
    return _of(hint) if default is MISSING else st.just(default) | _of(hint)


@cache
def _of(hint: Any) -> st.SearchStrategy[Any]:
    if hint is int:
        return st.integers(0, 2**20) | st.integers(0, SIZE_LIMIT)
    if hint == Action:
        return st.one_of([values(cls) for cls in get_args(Action)])
    arguments = get_args(hint)
    if len(arguments) == 2 and arguments[1] is ...:
        return st.lists(_of(arguments[0]), max_size=3).map(tuple)
    if type(None) in arguments:
        return st.none() | _of(arguments[0])
    return values(hint) if hasattr(hint, "__dataclass_fields__") else st.from_type(hint)


def operations() -> st.SearchStrategy[Operation]:
    """Any operation that may be a line of a trace."""
    return st.one_of([values(cls) for cls in OPERATIONS])
