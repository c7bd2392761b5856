"""CSV (RFC 4180: commas, quotes doubled inside quotes) with the place of every cell.

Knows cells, rows and the header. Doesn't know what the fields of a fact are, save which of them
are lists: those are split on `|`. The standard library's reader gives no columns, hence this one.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from store.cells import MAX_RECORD, Cursor, Fault, Member, Place, RawRow, Rows, oversized, skip_blank_lines

_MAX_CELLS = 100  # of a row are kept, far more than there are fields; the rest is only counted
_DOUBLE = 'inside a cell a quote is written ""'
# One cell and what ends it; possessive, so that an open quote fails at once.
_CELL = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^",\n]*+))(,|\n|\Z)')
_QUOTED = re.compile(r'"(?:[^"]++|"")*+"')


class _Row(NamedTuple):
    """The first `_MAX_CELLS` cells of a row, how many it has, and where they start."""

    line: int
    cells: list[str]
    width: int
    places: Callable[[], list[Place]]


def read_csv(text: str, *, fields: Collection[str], lists: Collection[str]) -> Rows:
    """Rows as records; an empty cell is None. A row with too many or too few cells is that row's
    fault; a bad header or an open quote ends the file."""
    rows = _rows(text)
    header = next(rows, _Row(1, [], 0, list))
    names = [cell.strip() for cell in header.cells]
    _check_header(header, names, fields)
    for row in rows:
        if row.width == 1 and not row.cells[0].strip():
            continue
        if row.width != len(names):
            yield _miscounted(row, len(names))
            continue
        if [cell.strip() for cell in row.cells] == names:
            yield Fault("header_again", "the header comes again", row.line, 1, "when joining files, keep one")
            continue
        values = {name: _typed(cell, name in lists) for name, cell in zip(names, row.cells, strict=True)}
        yield RawRow(row.line, 1, values, _members(row, values))


def _members(row: _Row, values: dict[str, Any]) -> Callable[[], list[Member]]:
    # All items of a list share their cell's place: that is where one would look.
    return lambda: [
        Member(name, place, value, place, [])
        for (name, value), place in zip(values.items(), row.places(), strict=True)
    ]


def _rows(text: str) -> Iterator[_Row]:
    """Rows; one without quotes is split, the others are scanned."""
    offset, line = 0, 1
    while (start := skip_blank_lines(text, offset)) < len(text):
        line += text.count("\n", offset, start)
        offset, number = start, line
        end = text.find("\n", offset)
        end = len(text) if end < 0 else end
        if text.find('"', offset, end) < 0:
            count = text.count(",", offset, end) + 1
            cells = text[offset:end].split(",", _MAX_CELLS)[:_MAX_CELLS]
            offset = end + 1
        else:
            cells, count, offset = _scan(text, offset, line)
        line += text.count("\n", start, offset)
        yield _Row(number, cells, count, lambda start=start, number=number: _places(text, start, number))  # type: ignore[misc]


def _scan(text: str, offset: int, line: int) -> tuple[list[str], int, int]:
    """The first cells of the row at `offset`, how many it has, and where the next row starts."""
    cursor = Cursor(text, offset, (line, 1))
    cells: list[str] = []
    begin, count, end = offset, 0, ","
    while end == ",":
        match = _CELL.match(text, offset)
        if match is None:
            raise _broken(text, offset, cursor)
        quoted, plain, end = match.groups()
        count, offset = count + 1, match.end()
        if offset - begin > MAX_RECORD:
            raise oversized((line, 1))
        if count <= _MAX_CELLS:
            cells.append(plain if quoted is None else quoted.replace('""', '"'))
    return cells, count, offset


def _places(text: str, offset: int, line: int) -> list[Place]:
    cursor = Cursor(text, offset, (line, 1))
    places: list[Place] = []
    match = _CELL.match(text, offset)
    while match is not None and len(places) < _MAX_CELLS:
        places.append(cursor.at(match.start()))
        match = _CELL.match(text, match.end()) if match[3] == "," else None
    return places


def _broken(text: str, offset: int, cursor: Cursor) -> Fault:
    line, column = cursor.at(offset)
    if not text.startswith('"', offset):
        inside = text.index('"', offset) - offset
        hint = 'put the whole cell in quotes and write ""'
        if text[offset : offset + inside].isspace():
            hint = "write no space between a comma and a quote"
        return Fault("syntax", "a quote inside an unquoted cell", line, column + inside, hint)
    closing = _QUOTED.match(text, offset)
    if closing is None:
        return Fault(
            "syntax", "this quote is never closed", line, column, 'inside a cell a quote is written ""'
        )
    place = cursor.at(closing.end())
    return Fault("syntax", "text after a closing quote", *place, hint='inside a cell a quote is written ""')


def _check_header(header: _Row, names: list[str], fields: Collection[str]) -> None:
    listing = ", ".join(fields)
    if not any(name in fields for name in names):
        raise Fault("no_header", "the first line isn't a header", 1, 1, _header_hint(names, fields))
    for i, name in enumerate(names):
        if name not in fields:
            place = header.places()[i]
            raise Fault(
                "unknown_key", f"unknown column {name[:60]!r}", *place, hint=f"known columns: {listing}"
            )
        if name in names[:i]:
            raise Fault("duplicate_key", f"column {name!r} comes twice", *header.places()[i], hint="keep one")
    for name in ("subject", "relation"):
        if name not in names:
            raise Fault("missing", f"the header has no column {name!r}", 1, 1, "every fact needs it")


def _header_hint(names: list[str], fields: Collection[str]) -> str:
    if names[0].startswith("sep="):
        return "leave out this line; cells are separated by commas"
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if any(part.strip() in fields for part in names[0].split(mark)[:_MAX_CELLS]):
            return f"separate cells with commas, not {called}"
    if any(name.strip('"').lower() in fields for name in names):
        return f"column names are in small letters: {', '.join(fields)}"
    return f"name the columns: {', '.join(fields)}"


def _miscounted(row: _Row, wanted: int) -> Fault:
    places = row.places()
    cause = f"the row has {row.width} cell{'s' if row.width > 1 else ''}, the header {wanted}"
    if row.width < wanted:
        return Fault("syntax", cause, *places[-1], hint="write a comma for each empty cell")
    return Fault("syntax", cause, *places[wanted], hint="quote a cell that holds a comma")


def _typed(cell: str, is_list: bool) -> str | list[str] | None:
    if not cell or cell.isspace():
        return None
    return [part for part in cell.split("|") if part.strip()] if is_list else cell
