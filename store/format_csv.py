"""CSV (RFC 4180: commas, quotes doubled inside quotes) with the place of every cell.

Knows cells, rows and the header. Doesn't know what the fields of a fact are, save which of them
are lists: those are split on `|`. The standard library's reader gives no columns, hence this one.
"""

import re
from collections.abc import Collection, Iterator

from store.cells import Cell, Cursor, Fault, Member, RawRow, Rows

# One cell and what ends it; possessive, so that an open quote fails at once.
_CELL = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^",\n]*+))(,|\n|\Z)')


def read_csv(text: str, *, fields: Collection[str], lists: Collection[str]) -> Rows:
    """Rows as records; an empty cell is None. A row with too many or too few cells is that row's
    fault; a bad header or an open quote ends the file."""
    rows = _rows(text)
    header = next(rows, [])
    names = [str(cell.value).strip() for cell in header]
    _check_header(header, names, fields)
    for cells in rows:
        if len(cells) == 1 and not str(cells[0].value).strip():
            continue
        if len(cells) != len(names):
            yield _miscounted(cells, len(names))
            continue
        members = [
            Member(name, cell.line, cell.column, _typed(cell, name in lists))
            for name, cell in zip(names, cells, strict=True)
        ]
        yield RawRow(cells[0].line, cells[0].column, members)


def _rows(text: str) -> Iterator[list[Cell]]:
    place = Cursor(text).at
    offset = 0
    cells: list[Cell] = []
    while offset < len(text) or cells:
        start = place(offset)
        match = _CELL.match(text, offset)
        if match is None:
            raise _broken(text, offset, start)
        quoted, plain, end = match.groups()
        cells.append(Cell(plain if quoted is None else quoted.replace('""', '"'), *start))
        offset = match.end()
        if end != ",":
            yield cells
            cells = []


def _broken(text: str, offset: int, start: tuple[int, int]) -> Fault:
    line, column = start
    if not text.startswith('"', offset):
        inside = text.index('"', offset) - offset
        return Fault(
            "syntax", "a quote inside an unquoted cell", line, column + inside, 'quote the cell, write ""'
        )
    closing = re.compile(r'"(?:[^"]++|"")*+"').match(text, offset)
    if closing is None:
        return Fault("syntax", "this quote is never closed", line, column)
    line, column = Cursor(text).at(closing.end())
    return Fault("syntax", "text after a closing quote", line, column, 'inside a cell a quote is written ""')


def _check_header(header: list[Cell], names: list[str], fields: Collection[str]) -> None:
    listing = ", ".join(fields)
    if not any(name in fields for name in names):
        raise Fault("no_header", "the first line isn't a header", 1, 1, f"name the columns: {listing}")
    for i, (cell, name) in enumerate(zip(header, names, strict=True)):
        if name not in fields:
            raise Fault(
                "unknown_key", f"unknown column {name[:60]!r}", *cell[1:], hint=f"columns are {listing}"
            )
        if name in names[:i]:
            raise Fault("duplicate_key", f"column {name!r} comes twice", *cell[1:])
    for name in ("subject", "relation"):
        if name not in names:
            raise Fault("missing", f"the header has no column {name!r}", 1, 1)


def _miscounted(cells: list[Cell], wanted: int) -> Fault:
    place = cells[wanted] if len(cells) > wanted else cells[-1]
    cause = f"the row has {len(cells)} cells, the header {wanted}"
    return Fault("syntax", cause, place.line, place.column, "quote a cell that holds a comma")


def _typed(cell: Cell, is_list: bool) -> Cell:
    text = str(cell.value)
    if not text.strip():
        return cell._replace(value=None)
    if not is_list:
        return cell
    return cell._replace(value=[cell._replace(value=part) for part in text.split("|") if part.strip()])
