"""Nouns as JSON and back: how the values of `store.facts` cross a process or a row.

Knows dataclasses, enums, tuples and RFC 3339 times. Doesn't know any noun by name.
"""

from typing import Any, TypeVar

T = TypeVar("T")


def to_wire(value: Any) -> Any:
    """A dataclass (or tuple, enum, datetime, plain value) as what `json` can write."""
    raise NotImplementedError


def from_wire(cls: type[T], data: Any) -> T:
    """The reverse, strictly typed: an unknown or missing key or a wrong type raises `WireError`."""
    raise NotImplementedError
