"""Frozen dataclasses from TOML tables: every fault is collected with its key path, none raised.

Knows types, bounds and near misses of key names, from annotations and field metadata (`low`,
`high`, `allowed`, `keys`, `non_empty`, `plain_name`); what one table's keys mean together, its class says
(`faults()`, each beginning with a key). Doesn't know which settings there are.
"""

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Meta = Mapping[str, Any]


def section(cls: type[T], raw: object, path: str, faults: list[str]) -> T | None:
    """A `cls` from the table `raw` under key path `path`; None when a fault was added to `faults`."""
    if not isinstance(raw, dict):
        faults.append(f"{path}: expected a table, got {_kind(raw)}")
        return None
    hints = typing.get_type_hints(cls)
    known: dict[str, Field[Any]] = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    before = len(faults)
    faults.extend(_unknown(path, key, known) for key in raw if key not in known)
    values: dict[str, Any] = {}
    for key, item in known.items():
        if key in raw:
            values[key] = _value(hints[key], raw[key], f"{path}{key}", item.metadata, faults)
        elif item.default is MISSING and item.default_factory is MISSING:
            faults.append(f"{path}{key}: missing")
    if len(faults) > before:
        return None
    made = cls(**values)
    faults.extend(f"{path}{fault}" for fault in getattr(made, "faults", tuple)())
    return made if len(faults) == before else None


def _unknown(path: str, key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"{path}{key}: unknown key" + (f" (did you mean {near[0]}?)" if near else "")


def _value(hint: Any, raw: object, path: str, metadata: Meta, faults: list[str]) -> Any:
    if isinstance(hint, types.UnionType):  # X | None, and TOML has no null
        hint = typing.get_args(hint)[0]
    if is_dataclass(hint) and isinstance(hint, type):
        return section(hint, raw, f"{path}.", faults)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _list(args[0], raw, path, metadata, faults)
    if origin is Mapping:
        return _mapping(args[1], raw, path, metadata, faults)
    return _scalar(hint, raw, path, metadata, faults)


def _list(hint: Any, raw: object, path: str, metadata: Meta, faults: list[str]) -> Any:
    if not isinstance(raw, list):
        faults.append(f"{path}: expected a list, got {_kind(raw)}")
        return ()
    if metadata.get("non_empty") and not raw:
        faults.append(f"{path}: must not be empty")
    return tuple(_value(hint, item, f"{path}[{at}]", {}, faults) for at, item in enumerate(raw))


def _mapping(hint: type, raw: object, path: str, metadata: Meta, faults: list[str]) -> dict[str, Any]:
    """A table of tables whose keys come from a fixed list (`keys`), or are names that the operator gives."""
    if not isinstance(raw, dict):
        faults.append(f"{path}: expected a table, got {_kind(raw)}")
        return {}
    keys = metadata.get("keys", tuple(raw))
    faults.extend(_unknown(f"{path}.", key, keys) for key in raw if key not in keys)
    return {key: section(hint, raw[key], f"{path}.{key}.", faults) for key in keys if key in raw}


def _scalar(hint: Any, raw: object, path: str, metadata: Meta, faults: list[str]) -> Any:
    if not _is_a(hint, raw):
        faults.append(f"{path}: expected {_NAMES[hint]}, got {_kind(raw)}")
        return None
    found = [f"{path}: {fault}" for fault in _range_faults(raw, metadata)]
    faults.extend(found)
    return hint(raw) if hint in (Path, float) and not found else raw


def _is_a(hint: Any, raw: object) -> bool:
    if isinstance(raw, bool):  # a bool is an int in Python, not in a configuration
        return hint is bool
    if hint is float:
        return isinstance(raw, int | float)
    return isinstance(raw, str if hint is Path else hint)


def _range_faults(raw: Any, metadata: Meta) -> Iterable[str]:
    if isinstance(raw, str) and not raw.strip():
        yield "must not be empty"
    if isinstance(raw, str) and "\0" in raw:
        yield "holds a NUL character, which no path or command can"
    low, high = metadata.get("low", -math.inf), metadata.get("high", math.inf)
    if isinstance(raw, int | float) and not low <= raw <= high:
        shown = raw if isinstance(raw, float) or abs(raw) < 10**20 else "a number of many digits"
        yield f"{shown} is outside {low:g} to {high:g}"
    if "allowed" in metadata and raw not in metadata["allowed"]:
        yield f"{raw!r} is none of {', '.join(metadata['allowed'])}"
    if metadata.get("plain_name") and not _plain_name(str(raw)):
        yield f"{raw!r} must be a plain folder name"


def _plain_name(name: str) -> bool:
    return not name.startswith(".") and all(c.isalnum() or c in "-_." for c in name)


_NAMES = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", Path: "a path (a string)"}


def _kind(raw: object) -> str:
    names = {**_NAMES, float: "a float", list: "a list", dict: "a table"}
    return names.get(type(raw), type(raw).__name__)
