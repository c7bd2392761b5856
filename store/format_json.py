"""JSON Lines and JSON arrays with the place of every key and value.

Knows JSON's syntax, one record at a time. Doesn't know what the fields of a fact are.
"""

import json
import re
from collections.abc import Callable
from typing import NoReturn

from store.cells import Cell, Cursor, Fault, Member, Nested, RawRow, Rows, Value

Place = tuple[int, int]
_SPACE = re.compile(r"[ \t\n\r]*")


def read_lines(text: str) -> Rows:
    """One object a line; a line that isn't one is that row's fault alone."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(" \t"):
            yield _read_line(line, number)


def _read_line(line: str, number: int) -> RawRow | Fault:
    scanner = _Scanner(line, lambda offset: (number, offset + 1))
    try:
        row, end = scanner.record(scanner.skip(0))
        if scanner.skip(end) != len(line):
            raise scanner.fault("the line goes on after its record", scanner.skip(end))
    except Fault as fault:
        return fault
    return row


def read_array(text: str) -> Rows:
    """One array of objects; broken syntax ends the file, an element that isn't an object doesn't."""
    scanner = _Scanner(text, Cursor(text).at)
    offset = scanner.skip(0)
    if text[offset : offset + 1] != "[":
        raise scanner.fault(
            "a .json file must hold one array",
            offset,
            "write [ ... ], or name it .jsonl for one record a line",
        )
    offset = scanner.skip(offset + 1)
    if text[offset : offset + 1] == "]":
        return
    while True:
        if text[offset : offset + 1] == "{":
            row, offset = scanner.record(offset)
            yield row
        else:
            start = scanner.place(offset)
            _, offset = scanner.value(offset)
            yield Fault("type", "a record must be an object", *start, hint='write {"subject": ...}')
        offset, closed = scanner.next_item(offset, "]")
        if closed:
            break
    if scanner.skip(offset) != len(text):
        raise scanner.fault("the file goes on after its array", scanner.skip(offset))


class _Scanner:
    """Walks a text from left to right; `place` may rely on ever larger offsets."""

    def __init__(self, text: str, place: Callable[[int], Place]) -> None:
        self.text = text
        self.place = place
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def fault(self, cause: str, offset: int, hint: str = "", code: str = "syntax") -> Fault:
        return Fault(code, cause, *self.place(offset), hint=hint)

    def skip(self, offset: int) -> int:
        match = _SPACE.match(self.text, offset)
        return match.end() if match else offset

    def record(self, offset: int) -> tuple[RawRow, int]:
        if self.text[offset : offset + 1] != "{":
            raise self.fault("a record must be an object", offset, 'write {"subject": ...}', "type")
        start = self.place(offset)
        members: list[Member] = []
        offset = self.skip(offset + 1)
        closed = self.text[offset : offset + 1] == "}"
        offset += closed
        while not closed:
            member, offset = self._member(offset)
            members.append(member)
            offset, closed = self.next_item(offset, "}")
        return RawRow(*start, members), offset

    def next_item(self, offset: int, end: str) -> tuple[int, bool]:
        """Step over a comma to the next item, or over `end`; says whether it was the end."""
        offset = self.skip(offset)
        mark = self.text[offset : offset + 1]
        if mark not in {",", end}:
            raise self.fault(f"expected ',' or {end!r}", offset)
        return (offset + 1, True) if mark == end else (self.skip(offset + 1), False)

    def _member(self, offset: int) -> tuple[Member, int]:
        if self.text[offset : offset + 1] != '"':
            raise self.fault("expected a key in double quotes", offset)
        start = self.place(offset)
        name, offset = self._decode(offset)
        offset = self.skip(offset)
        if self.text[offset : offset + 1] != ":":
            raise self.fault("expected ':' after the key", offset)
        offset = self.skip(offset + 1)
        cell, offset = self._cell(offset)
        return Member(str(name), *start, cell), offset

    def _cell(self, offset: int) -> tuple[Cell, int]:
        start = self.place(offset)
        value, end = self.value(offset)
        return Cell(value, *start), end

    def value(self, offset: int) -> tuple[Value, int]:
        if self.text[offset : offset + 1] == "[":
            return self._list(offset)
        value, end = self._decode(offset)
        return (Nested() if isinstance(value, dict | list) else value), end

    def _list(self, offset: int) -> tuple[Value, int]:
        items: list[Cell] = []
        offset = self.skip(offset + 1)
        closed = self.text[offset : offset + 1] == "]"
        offset += closed
        while not closed:
            start = self.place(offset)
            value, offset = self._decode(offset)
            items.append(Cell(Nested() if isinstance(value, dict | list) else value, *start))
            offset, closed = self.next_item(offset, "]")
        return items, offset

    def _decode(self, offset: int) -> tuple[str | int | float | bool | dict[str, object] | None, int]:
        try:
            value, end = self._decoder.raw_decode(self.text, offset)
        except json.JSONDecodeError as error:
            raise self.fault(error.msg, error.pos) from None
        except RecursionError:
            raise self.fault("values are nested too deeply", offset, code="too_deep") from None
        except _ConstantError as error:
            raise self.fault(str(error), offset) from None
        except ValueError:  # the interpreter's limit on digits
            raise self.fault("a number with thousands of digits", offset) from None
        return value, end


class _ConstantError(ValueError):
    """NaN or an infinity, which Python reads and JSON doesn't have."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(f"{name} isn't JSON")
