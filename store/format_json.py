"""JSON Lines and JSON arrays of records.

Knows JSON's syntax, one record at a time: the standard decoder reads a record, and only where it or
a check finds a fault is the record read again by a scanner that knows places. Doesn't know what the
fields of a fact are.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from store.cells import (
    MAX_RECORD,
    Cursor,
    Fault,
    Member,
    Place,
    RawRow,
    Rows,
    located,
    oversized,
    skip_blank_lines,
)

_MAX_PLACES = 1_000  # of a list's items, more than a list may have; a line of 4 MiB may hold a million
_SPACE = re.compile(r"[ \t\n\r]*")


def read_lines(text: str) -> Rows:
    """One object a line; a line that isn't one is that row's fault alone."""
    decoder = _strict_decoder()
    number, start = 1, 0
    while (begin := skip_blank_lines(text, start)) < len(text):
        number += text.count("\n", start, begin)
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        if end - begin > MAX_RECORD:
            yield oversized((number, 1))
        elif line := text[begin:end].rstrip():
            yield _read_line(line, number, decoder)
        number, start = number + 1, end + 1


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
            raise scanner.fault(
                "the line goes on after its record", "one record a line", at=scanner.skip(end)
            )
    except Fault as fault:
        if fault.column <= len(line):
            return fault
        hint = "write each record on one line, or all in one array in a .json file"
        return replace(fault, cause="the line ends inside its record", hint=hint)
    return located(place, members)


def read_array(text: str) -> Rows:
    """One array of objects; broken syntax ends the file, an element that isn't an object doesn't."""
    decoder = _strict_decoder()
    place = Cursor(text).at
    scanner = _Scanner(text, place)
    offset = scanner.skip(0)
    if text[offset : offset + 1] != "[":
        hint = "write [ ... ], or name it .jsonl for one record a line"
        raise scanner.fault("a .json file must hold one array", hint, at=offset)
    offset = scanner.skip(offset + 1)
    closed = text[offset : offset + 1] == "]"
    offset += closed
    window = _Window(text)
    while not closed:
        row, offset = _read_element(window, offset, place(offset), decoder)
        yield row
        offset, closed = scanner.next_item(offset, "]")
    if scanner.skip(offset) != len(text):
        raise scanner.fault("the file goes on after its array", "one array a file", at=scanner.skip(offset))


class _Window:
    """A stretch of a long text that moves on with its reader, so that no element is decoded that is
    longer than a record may be. `begin` is where in the text it starts."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.move(0)

    def move(self, begin: int, size: int = MAX_RECORD // 16) -> None:
        self.begin, self.part = begin, self._text[begin : begin + size]

    @property
    def is_cut(self) -> bool:
        return self.begin + len(self.part) < len(self._text)


def _read_element(
    window: _Window, offset: int, place: Place, decoder: json.JSONDecoder
) -> tuple[RawRow | Fault, int]:
    """The element at `offset` of the text, and the offset of its end. Raises a fault where it is broken
    or too long."""
    for size in (len(window.part), MAX_RECORD, 0):
        if found := _decoded(window, offset, place, decoder):
            return found
        start = offset - window.begin
        try:
            members, end = _scanner(window.part, start, place).record(start)
            if end < len(window.part) or not window.is_cut:
                return located(place, members), window.begin + end
        except Fault as fault:
            if not window.is_cut:
                raise
            if size == 0 and not _is_at_cut(fault, window.part, start, place):
                raise
        if size:  # perhaps it is only cut off
            window.move(offset, size)
    raise oversized(place)


def _decoded(
    window: _Window, offset: int, place: Place, decoder: json.JSONDecoder
) -> tuple[RawRow | Fault, int] | None:
    """What the standard decoder makes of an element; None when it can't."""
    part, begin = window.part, window.begin
    start = offset - begin
    try:
        value, end = decoder.raw_decode(part, start)
    except (ValueError, RecursionError):
        return None
    if end == len(part) and window.is_cut:
        return None
    if isinstance(value, dict):
        return RawRow(*place, value, lambda: _scanner(part, start, place).record(start)[0]), begin + end
    return _scanner(part, start, place).not_a_record(start), begin + end


def _is_at_cut(fault: Fault, part: str, start: int, place: Place) -> bool:
    """Whether a fault comes of a window's end: the decoder points there, or to the start of the text
    that was cut."""
    line, column = Cursor(part, start, place).at(len(part))
    return fault.cause == _OPEN_TEXT or (fault.line == line and fault.column > column - 12)


def _scanner(part: str, start: int, place: Place) -> "_Scanner":
    return _Scanner(part, Cursor(part, start, place).at)


class _Scanner:
    """Walks a text from left to right; `place` may rely on ever larger offsets."""

    def __init__(self, text: str, place: Callable[[int], Place]) -> None:
        self.text = text
        self.place = place
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def fault(self, cause: str, hint: str = "", code: str = "syntax", *, at: int) -> Fault:
        return Fault(code, cause, *self.place(at), hint=hint)

    def not_a_record(self, offset: int) -> Fault:
        return self.fault("a record must be an object", 'write {"subject": ...}', "type", at=offset)

    def skip(self, offset: int) -> int:
        match = _SPACE.match(self.text, offset)
        return match.end() if match else offset

    def record(self, offset: int) -> tuple[list[Member], int]:
        """The members of the object at `offset`, duplicates and all, and where it ends."""
        if self.text.startswith("\ufeff", offset):
            hint = "when joining files, save each without its mark first"
            raise self.fault("a byte order mark inside the file", hint, at=offset)
        if offset == len(self.text):
            raise self.fault("the file ends inside its array", "it was cut off: write it again", at=offset)
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
            raise self.fault(f"expected ',' or {end!r}", at=offset)
        if mark == end:
            return offset + 1, True
        following = self.skip(offset + 1)
        if self.text.startswith(end, following):
            raise self.fault(f"a comma before {end!r}", "leave it out", at=offset)
        return following, False

    def _member(self, offset: int) -> tuple[Member, int]:
        if self.text[offset : offset + 1] != '"':
            raise self.fault("expected a key in double quotes", 'write "subject": ...', at=offset)
        key = self.place(offset)
        name, offset = self._decode(offset)
        offset = self.skip(offset)
        if self.text[offset : offset + 1] != ":":
            raise self.fault("expected ':' after the key", at=offset)
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
        start, offset = offset, self.skip(offset + 1)
        closed = self.text[offset : offset + 1] == "]"
        offset += closed
        while not closed:
            if len(items) == _MAX_PLACES:
                values, offset = self._decode(start)
                return values, items, offset
            items.append(self.place(offset))
            value, offset = self._decode(offset)
            values.append(value)
            offset, closed = self.next_item(offset, "]")
        return values, items, offset

    def _decode(self, offset: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self.text, offset)
        except json.JSONDecodeError as error:
            raise self.fault(*_PLAIN_WORDS.get(error.msg, (error.msg, "")), at=error.pos) from None
        except RecursionError:
            hint = "a value is a text, a number or a list of texts"
            raise self.fault("values are nested too deeply", hint, "too_deep", at=offset) from None
        except _RefusedError as error:
            raise self.fault(str(error), "put text in double quotes", at=offset) from None
        except ValueError:  # the interpreter's limit on digits
            raise self.fault("a number with thousands of digits", "put text in quotes", at=offset) from None


_OPEN_TEXT = "this text has no closing quote"
# What the standard decoder says, and what to do about it.
_PLAIN_WORDS = {
    "Unterminated string starting at": (_OPEN_TEXT, 'close it; inside a text a quote is written \\"'),
    "Invalid control character at": ("a tab or control character in a text", "write it as \\t or \\u0009"),
    "Invalid \\escape": ("an escape that JSON doesn't have", "a backslash is written \\\\"),
    "Invalid \\uXXXX escape": ("\\u without four hexadecimal digits", "a backslash is written \\\\"),
    "Expecting value": ("expected a value", "put text in double quotes"),
}


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
