"""The JSON Schema of a trace's lines, derived from the dataclasses of the vocabulary."""

import inspect
import types
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qbprop.records import ACTIONS, STEPS
from qbprop.trace import FORMAT, RESET, Header
from qbprop_model.operations import SIZE_LIMIT, Action

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """A schema that every line of a trace satisfies.

    The first line is a ``header``, each other one of the operations or a ``reset``. Each has
    a definition of its own under ``$defs``, by its name.
    """
    definitions: dict[str, Any] = {"header": _object(Header)}
    definitions |= {name: _object(cls, name) for name, cls in (STEPS | ACTIONS).items()}
    definitions[RESET] = {
        "description": "Separates two examples: the block graph is empty again.",
        "type": "object",
        "properties": {"op": {"const": RESET}},
        "required": ["op"],
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "title": f"A line of a qbprop trace, format {FORMAT}",
        "description": "All sizes and offsets are in bytes.",
        "oneOf": [_reference(name) for name in ("header", RESET, *STEPS)],
        "$defs": definitions,
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _object(cls: Any, op: str | None = None) -> dict[str, Any]:
    """The schema of a dataclass; ``op`` is the name that its lines carry."""
    hints = get_type_hints(cls)
    members = fields(cls)
    properties = {field.name: _field(field, hints[field.name]) for field in members}
    required = [field.name for field in members if _is_required(field)]
    if op is not None:
        properties = {"op": {"const": op}} | properties
        required = ["op", *required]
    elif cls is Header:
        required = ["qbprop_trace"]
    return {
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _field(field: "Field[Any]", hint: Any) -> dict[str, Any]:
    result = _type(hint)
    if field.default is not MISSING:
        default = field.default
        result = result | {"default": list(default) if isinstance(default, tuple) else default}
    return result


def _type(hint: Any) -> dict[str, Any]:
    if hint is bool:
        return {"type": "boolean"}
    if hint is int:
        return {"type": "integer", "minimum": 0, "maximum": SIZE_LIMIT}
    if hint is str:
        return {"type": "string"}
    if hint is type(None):
        return {"type": "null"}
    if hint == Action:
        return {"oneOf": [_reference(name) for name in ACTIONS]}
    if is_dataclass(hint):
        return _object(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(argument) for argument in arguments]}
    raise TypeError(f"no JSON Schema for a field of type {hint}")
