"""Operations and other dataclasses as JSON objects, and strictly back again.

Nothing is converted on the way: a string is no integer, a boolean is no integer, a field
that the class does not have is an error. Operations carry their name in the field ``op``.
"""

import difflib
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from cattrs import Converter, ForbiddenExtraKeysError, transform_error
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from qbprop_model.operations import (
    OPERATIONS,
    Abort,
    Action,
    InvalidOperationError,
    Operation,
    operation_name,
)

T = TypeVar("T")

STEPS = {operation_name(cls): cls for cls in OPERATIONS}
"""Every operation that may be a step of its own, by name."""

ACTIONS = {operation_name(cls): cls for cls in get_args(Action)}
"""Every operation that may stand in a transaction, by name."""

_SEE_SCHEMA = "see `qbprop trace --schema`"


class RecordError(Exception):
    """A JSON value that is not what it should be: one line that says what is wrong."""


class _WrongTypeError(Exception):
    """A JSON value of another type than the field has."""


def structure(record: object, cls: type[T]) -> T:
    """The dataclass ``cls`` from a JSON object.

    :raises RecordError: a field is unknown, missing, of the wrong type or out of range.
    """
    try:
        return _converter.structure(record, cls)
    except (BaseValidationError, RecordError, _WrongTypeError) as error:
        raise RecordError(_first_problem(error)) from error


def operation_from_record(record: dict[str, Any]) -> Operation:
    """The operation that a JSON object with a field ``op`` describes.

    :raises RecordError: as :func:`structure`; or the operation is unknown or missing.
    """
    return _tagged(record, STEPS, "a trace", structure)


def operation_to_record(operation: Operation) -> dict[str, Any]:
    """The JSON object of an operation, defaults left out."""
    record: dict[str, Any] = _converter.unstructure(operation)
    return record


def _tagged(
    record: object,
    classes: dict[str, type[Operation]],
    place: str,
    build: Callable[[dict[str, Any], type[Operation]], Operation],
) -> Operation:
    """Build the class among ``classes`` that the field ``op`` names."""
    if not isinstance(record, dict):
        raise RecordError(f"an operation must be an object, not {_json_type(record)}")
    if "op" not in record:
        raise RecordError(f"the field 'op' is missing; it names the operation, {_SEE_SCHEMA}")
    name = record["op"]
    if not isinstance(name, str):
        raise RecordError(f"'op' must be a string, not {_json_type(name)}")
    if name in classes:
        rest = {key: value for key, value in record.items() if key != "op"}
        return build(rest, classes[name])
    if name == operation_name(Abort):
        raise RecordError("'abort' stands only among the actions of a transaction; move it there")
    if name in STEPS:
        raise RecordError(f"{name!r} cannot stand in {place}; give it a line of its own")
    close = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{_SEE_SCHEMA} for all of them"
    raise RecordError(f"unknown operation {name!r}; {hint}")


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)

    def scalar(cls: type, what: str) -> None:
        def hook(value: object, _: object) -> object:
            if type(value) is not cls:
                raise _WrongTypeError(f"must be {what}, not {_json_type(value)}")
            if isinstance(value, str) and not _is_text(value):
                raise _WrongTypeError("must not hold half of a UTF-16 surrogate pair")
            return value

        converter.register_structure_hook(cls, hook)

    for cls, what in ((int, "an integer"), (bool, "true or false"), (str, "a string")):
        scalar(cls, what)

    @converter.register_structure_hook_factory(_has_origin(Literal))
    def choices(cls: Any) -> Callable[[object, object], object]:
        def hook(value: object, _: object) -> object:
            if not isinstance(value, str) or value not in get_args(cls):
                allowed = ", ".join(map(repr, get_args(cls)))
                raise _WrongTypeError(f"must be one of {allowed}, not {_json_type(value)}")
            return value

        return hook

    @converter.register_structure_hook_factory(_has_origin(tuple))
    def sequences(cls: Any) -> Callable[[object, object], tuple[Any, ...]]:
        items: Any = list.__class_getitem__(get_args(cls)[0])

        def hook(value: object, _: object) -> tuple[Any, ...]:
            if not isinstance(value, list):
                raise _WrongTypeError(f"must be a list, not {_json_type(value)}")
            return tuple(converter.structure(value, items))

        return hook

    @converter.register_structure_hook_factory(is_dataclass)
    def objects(cls: Any) -> Callable[[object, object], object]:
        build: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

        def hook(value: object, _: object) -> object:
            if not isinstance(value, dict):
                raise _WrongTypeError(f"must be an object, not {_json_type(value)}")
            return build(value, cls)

        return hook

    @converter.register_structure_hook_factory(lambda cls: cls == Action)
    def actions(_: object) -> Callable[[object, object], Operation]:
        return lambda value, _: _tagged(value, ACTIONS, "a transaction", converter.structure)

    @converter.register_unstructure_hook_factory(is_dataclass)
    def records(cls: Any) -> Callable[[object], dict[str, Any]]:
        build: Any = make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True)
        tag = {"op": operation_name(cls)} if issubclass(cls, Operation) else {}
        return lambda value: {**tag, **build(value)}

    return converter


def _has_origin(origin: object) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) is origin


def _is_text(value: str) -> bool:
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in value)


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "an object"
        case list():
            return "a list"
        case _:
            shown = repr(value)
            return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _first_problem(error: BaseException) -> str:
    """The first thing wrong, with its place when it lies deeper than the object itself."""
    text = transform_error(error, path="", format_exception=_problem)[0]
    what, _, path = text.rpartition(" @ ")
    return f"{path.removeprefix('.')!r}: {what}" if path else what


def _problem(error: BaseException, _: type | None) -> str:
    match error:
        case KeyError():
            return f"the field is missing; add it, {_SEE_SCHEMA}"
        case ForbiddenExtraKeysError(extra_fields=fields):
            names = ", ".join(map(repr, sorted(fields, key=str)))
            return f"unknown field {names}; remove or rename it, {_SEE_SCHEMA}"
        case RecordError() | _WrongTypeError() | InvalidOperationError():
            return str(error)
        case _:
            return f"the value is not allowed ({error}); {_SEE_SCHEMA}"


_converter = _make_converter()
