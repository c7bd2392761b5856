"""JSON Lines and JSON arrays of records.

Knows JSON's syntax, one record at a time: the standard decoder reads a record, and only where it or
a check finds a fault is the record read again by a scanner that knows places. Doesn't know what the
fields of a fact are.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from store.cells import Cursor, Fault, Member, Place, RawRow, Rows, located

_SPACE = re.compile(r"[ \t\n\r]*")


def read_lines(text: str) -> Rows:
    """One object a line; a line that isn't one is that row's fault alone."""
    decoder = _strict_decoder()
    for number, line in enumerate(text.split("\n"), start=1):
        if line and not line.isspace():
            yield _read_line(line.rstrip(), number, decoder)


def _read_line(line: str, number: int, decoder: json.JSONDecoder) -> RawRow | Fault:
    start = len(line) - len(line.lstrip())
    place = (number, start + 1)
    try:
        value, end = decoder.raw_decode(line, start)
        if isinstance(value, dict) and end == len(line):
            return RawRow(
                *place, value, lambda: _Scanner(line, Cursor(line, 0, (number, 1)).at).record(start)[0]
            )
    except (ValueError, RecursionError):
        pass  # the scanner finds out where
    scanner = _Scanner(line, Cursor(line, 0, (number, 1)).at)
    try:
        members, end = scanner.record(start)
        if scanner.skip(end) != len(line):
            raise scanner.fault("the line goes on after its record", scanner.skip(end))
    except Fault as fault:
        return fault
    return located(place, members)


def read_array(text: str) -> Rows:
    """One array of objects; broken syntax ends the file, an element that isn't an object doesn't."""
    decoder = _strict_decoder()
    place = Cursor(text).at
    scanner = _Scanner(text, place)
    offset = scanner.skip(0)
    if text[offset : offset + 1] != "[":
        hint = "write [ ... ], or name it .jsonl for one record a line"
        raise scanner.fault("a .json file must hold one array", offset, hint)
    offset = scanner.skip(offset + 1)
    closed = text[offset : offset + 1] == "]"
    offset += closed
    while not closed:
        row, offset = _read_element(text, offset, place(offset), decoder)
        yield row
        offset, closed = scanner.next_item(offset, "]")
    if scanner.skip(offset) != len(text):
        raise scanner.fault("the file goes on after its array", scanner.skip(offset))


def _read_element(
    text: str, offset: int, place: Place, decoder: json.JSONDecoder
) -> tuple[RawRow | Fault, int]:
    def scanner() -> _Scanner:
        return _Scanner(text, Cursor(text, offset, place).at)

    try:
        value, end = decoder.raw_decode(text, offset)
    except (ValueError, RecursionError):
        members, end = scanner().record(offset)
        return located(place, members), end
    if isinstance(value, dict):
        return RawRow(*place, value, lambda: scanner().record(offset)[0]), end
    return scanner().not_a_record(offset), end


class _Scanner:
    """Walks a text from left to right; `place` may rely on ever larger offsets."""

    def __init__(self, text: str, place: Callable[[int], Place]) -> None:
        self.text = text
        self.place = place
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def fault(self, cause: str, offset: int, hint: str = "", code: str = "syntax") -> Fault:
        return Fault(code, cause, *self.place(offset), hint=hint)

    def not_a_record(self, offset: int) -> Fault:
        return self.fault("a record must be an object", offset, 'write {"subject": ...}', "type")

    def skip(self, offset: int) -> int:
        match = _SPACE.match(self.text, offset)
        return match.end() if match else offset

    def record(self, offset: int) -> tuple[list[Member], int]:
        """The members of the object at `offset`, duplicates and all, and where it ends."""
        if self.text[offset : offset + 1] != "{":
            raise self.not_a_record(offset)
        members: list[Member] = []
        offset = self.skip(offset + 1)
        closed = self.text[offset : offset + 1] == "}"
        offset += closed
        while not closed:
            member, offset = self._member(offset)
            members.append(member)
            offset, closed = self.next_item(offset, "}")
        return members, offset

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
        key = self.place(offset)
        name, offset = self._decode(offset)
        offset = self.skip(offset)
        if self.text[offset : offset + 1] != ":":
            raise self.fault("expected ':' after the key", offset)
        offset = self.skip(offset + 1)
        place = self.place(offset)
        if self.text[offset : offset + 1] == "[":
            value, items, offset = self._list(offset)
            return Member(name, key, value, place, items), offset
        value, offset = self._decode(offset)
        return Member(name, key, value, place, []), offset

    def _list(self, offset: int) -> tuple[list[Any], list[Place], int]:
        values: list[Any] = []
        items: list[Place] = []
        offset = self.skip(offset + 1)
        closed = self.text[offset : offset + 1] == "]"
        offset += closed
        while not closed:
            items.append(self.place(offset))
            value, offset = self._decode(offset)
            values.append(value)
            offset, closed = self.next_item(offset, "]")
        return values, items, offset

    def _decode(self, offset: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self.text, offset)
        except json.JSONDecodeError as error:
            raise self.fault(error.msg, error.pos) from None
        except RecursionError:
            raise self.fault("values are nested too deeply", offset, code="too_deep") from None
        except _RefusedError as error:
            raise self.fault(str(error), offset) from None
        except ValueError:  # the interpreter's limit on digits
            raise self.fault("a number with thousands of digits", offset) from None


class _RefusedError(ValueError):
    """Something that Python's decoder reads and a fact file may not hold."""


def _strict_decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _RefusedError("a key comes twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} isn't JSON")
