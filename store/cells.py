"""Rows before they are checked: values with the place they were read from.

Knows places and faults. Doesn't know a format or what the fields of a fact are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Nested:
    """An object where no field of a fact can have one; its content isn't kept."""


Value: TypeAlias = "str | int | float | bool | Nested | list[Cell] | None"


class Cell(NamedTuple):
    """A value and where it starts; line and column count from 1."""

    value: Value
    line: int
    column: int


class Member(NamedTuple):
    """One key of a record, where the key starts, and its value."""

    name: str
    line: int
    column: int
    cell: Cell


class RawRow(NamedTuple):
    """One record as written, duplicate keys and all."""

    line: int
    column: int
    members: list[Member]


@dataclass(slots=True)
class Fault(Exception):
    """What is wrong at one place of a file; `store.factfile` makes a `FactFileError` of it."""

    code: str
    cause: str
    line: int
    column: int
    hint: str = ""


RowOrFault: TypeAlias = RawRow | Fault
Rows: TypeAlias = Iterator[RowOrFault]
"""What a format gives: rows and the faults of single rows. It raises a fault that ends the file."""


class Cursor:
    """Line and column of ever larger offsets of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._start = 0  # offset of the current line
        self._seen = 0

    def at(self, offset: int) -> tuple[int, int]:
        if breaks := self._text.count("\n", self._seen, offset):
            self._line += breaks
            self._start = self._text.rindex("\n", self._seen, offset) + 1
        self._seen = max(self._seen, offset)
        return self._line, offset - self._start + 1
