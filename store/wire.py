"""Nouns as JSON and back: how the values of `store.facts` cross a process or a row.

Knows dataclasses, enums, tuples and RFC 3339 times. Doesn't know any noun by name.
"""

import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from store.errors import PalimpsestError
from store.times import parse_time, time_text

T = TypeVar("T")


class WireError(PalimpsestError):
    """A value that came over the wire doesn't fit its type."""


def to_wire(value: Any) -> Any:
    """A dataclass (or tuple, enum, datetime, plain value) as what `json` can write."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_wire(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, tuple | list):
        return [to_wire(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_wire(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise WireError("write value", type(value).__name__, "this type has no JSON form")


def from_wire(cls: type[T], data: Any) -> T:
    """The reverse, strictly typed: an unknown or missing key or a wrong type raises `WireError`."""
    return cast(T, _read(cls, data, cls.__name__))


def _read(kind: Any, data: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in {Union, types.UnionType}:
        return _read_optional(get_args(kind), data, where)
    if origin is tuple:
        return _read_tuple(get_args(kind), data, where)
    if is_dataclass(kind):
        return _read_dataclass(cast(type, kind), data, where)
    if kind is datetime:
        return _convert(parse_time, str, data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _convert(kind, str | int, data, where)
    return _read_plain(kind, data, where)


def _read_optional(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    (kind,) = [option for option in options if option is not type(None)]
    return _read(kind, data, where)


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise _unfit(where, "a list", data)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise _unfit(where, f"a list of {len(kinds)}", data)
    return tuple(
        _read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _read_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _unfit(where, "an object", data)
    known = {field.name: field for field in fields(cls)}
    if unknown := sorted(str(key) for key in data.keys() - known.keys()):
        raise WireError("read value", where, f"unknown keys {', '.join(unknown)}")
    missing = [
        name
        for name, field in known.items()
        if name not in data and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise WireError("read value", where, f"missing keys {', '.join(missing)}")
    hints = get_type_hints(cls)
    return cls(**{name: _read(hints[name], item, f"{where}.{name}") for name, item in data.items()})


def _convert(make: Callable[[Any], Any], kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, kind):
        raise _unfit(where, "text or a number", data)
    try:
        return make(data)
    except ValueError as error:
        raise WireError("read value", where, str(error)) from error


def _read_plain(kind: type, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise _unfit(where, kind.__name__, data)
    return data


def _unfit(where: str, wanted: str, data: Any) -> WireError:
    return WireError("read value", where, f"expected {wanted}, got {type(data).__name__} {str(data)[:60]!r}")
