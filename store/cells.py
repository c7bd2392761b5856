"""Rows before they are checked: plain values, and where they were read from when that is asked.

Knows places and faults. Doesn't know a format or what the fields of a fact are. Places are found
only for faults: a row of 100,000 good ones must not pay for them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

Place: TypeAlias = tuple[int, int]
"""Line and column, both counted from 1, the column in characters."""

_BLANK_LINES = re.compile(r"(?:[^\S\n]*+\n)++")
MAX_RECORD = 4 * 1024 * 1024
"""Characters of one record, which is twice what all its fields may hold: a few bytes of JSON can take
twenty times as many in memory, so a record is measured before it is read."""


class Member(NamedTuple):
    """One key of a record with its value, and where the key, the value and its items start."""

    name: str
    key: Place
    value: Any  # what json.loads would give; {} stands for any object
    place: Place
    items: list[Place]


class RawRow(NamedTuple):
    """One record: its values by key, and how to find the places of its members."""

    line: int
    column: int
    values: dict[str, Any]
    members: Callable[[], list[Member]]

    def place(self, field: str, item: int | None = None, *, key: bool = False) -> Place:
        """Where a field's value, an item of it or its key starts; the row's start if it's absent."""
        for member in self.members():
            if member.name == field:
                if key:
                    return member.key
                return member.items[item] if item is not None and item < len(member.items) else member.place
        return self.line, self.column


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


def skip_blank_lines(text: str, offset: int) -> int:
    """Where the next line that isn't blank begins. Lines aren't split off one by one: 64 million empty
    ones are 64 MiB, and their list half a GiB."""
    match = _BLANK_LINES.match(text, offset)
    return match.end() if match else offset


def oversized(place: Place) -> Fault:
    return Fault(
        "too_long", f"a record of more than {MAX_RECORD} characters", *place, hint="one fact a record"
    )


def located(place: Place, members: list[Member]) -> RawRow | Fault:
    """A row of members; a key that comes twice is its fault."""
    values: dict[str, Any] = {}
    for member in members:
        if member.name in values:
            return Fault("duplicate_key", f"key {member.name[:60]!r} comes twice in one record", *member.key,
                         hint="keep one")  # fmt: skip
        values[member.name] = member.value
    return RawRow(*place, values, lambda: members)


class Cursor:
    """Line and column of ever larger offsets of a text; `start` is the place of its beginning."""

    def __init__(self, text: str, begin: int = 0, start: Place = (1, 1)) -> None:
        self._text = text
        self._line = start[0]
        self._line_start = begin - start[1] + 1  # offset of the current line
        self._seen = begin

    def at(self, offset: int) -> Place:
        if breaks := self._text.count("\n", self._seen, offset):
            self._line += breaks
            self._line_start = self._text.rindex("\n", self._seen, offset) + 1
        self._seen = max(self._seen, offset)
        return self._line, offset - self._line_start + 1
