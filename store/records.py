"""One record of a fact file: what each field may hold.

Knows the fields, their types and limits. Doesn't know formats or the ledger. The first fault of a
record is the one reported.
"""

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from store.cells import Cell, Fault, Member, Nested, RawRow
from store.facts import FactKey, FactUpdate, Op, Priority, normalise
from store.times import parse_time

FIELDS = (
    "subject", "relation", "object", "op", "aliases", "old", "old_aliases", "effective_at", "version",
    "source", "priority", "note", "prompts", "paraphrases",
)  # fmt: skip
LISTS = ("aliases", "old_aliases", "prompts", "paraphrases")
MAX_NAME = 1_000  # characters of a subject, relation, object, alias or source
MAX_TEXT = 10_000  # characters of a note or a phrasing
MAX_ITEMS = 100

# Control characters and lone surrogates (which UTF-8 and so SQLite can't hold).
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_Enum = TypeVar("_Enum", bound=StrEnum)


def check(row: RawRow) -> FactUpdate:
    """The update that a row states. A retraction's `object` is read as `old`. Raises
    `Fault` at the key or value that is wrong."""
    record = _Record(row)
    op = record.choice("op", Op.UPSERT)
    key = FactKey(record.name("subject", required=True), record.name("relation", required=True))
    wanted, aliases = record.name("object", required=op is Op.UPSERT) or None, record.names("aliases")
    old, old_aliases = record.name("old") or None, record.names("old_aliases")
    if op is Op.RETRACT:  # its object is the answer to forget
        if wanted and old and wanted != old:
            raise record.fault("object", "bad_value", "a retraction names 'old' and another 'object'")
        wanted, aliases, old, old_aliases = None, (), old or wanted, old_aliases or aliases
    return FactUpdate(
        key=key,
        object=wanted,
        op=op,
        aliases=aliases,
        old=old,
        old_aliases=old_aliases,
        effective_at=record.time("effective_at"),
        version=record.version("version"),
        source=record.name("source"),
        priority=record.choice("priority", Priority.NORMAL),
        note=record.text("note"),
        prompts=record.texts("prompts"),
        paraphrases=record.texts("paraphrases"),
        line=row.line,
    )


class _Record:
    """The members of one row by name, with typed reads. A null is as good as absent."""

    def __init__(self, row: RawRow) -> None:
        self._row = row
        self._cells: dict[str, Cell] = {}
        for member in row.members:
            self._add(member)

    def _add(self, member: Member) -> None:
        if member.name not in FIELDS:
            cause = f"unknown key {member.name[:60]!r}"
            raise Fault("unknown_key", cause, member.line, member.column, f"known keys: {', '.join(FIELDS)}")
        if member.name in self._cells:
            cause = f"key {member.name!r} comes twice in one record"
            raise Fault("duplicate_key", cause, member.line, member.column)
        self._cells[member.name] = member.cell

    def fault(self, field: str, code: str, cause: str, hint: str = "") -> Fault:
        place: Cell | RawRow = self._cells.get(field, self._row)
        return Fault(code, cause, place.line, place.column, hint)

    def _read(self, field: str, limit: int, tidy: Callable[[str], str]) -> str:
        cell = self._cells.get(field)
        if cell is None or cell.value is None:
            return ""
        return _string(cell, field, limit, tidy)

    def name(self, field: str, *, required: bool = False) -> str:
        text = self._read(field, MAX_NAME, normalise)
        if required and not text:
            hint = "or set op to retract" if field == "object" else ""
            raise self.fault(field, "missing", f"{field!r} is required", hint)
        return text

    def text(self, field: str) -> str:
        return self._read(field, MAX_TEXT, str.strip)

    def names(self, field: str) -> tuple[str, ...]:
        return self._list(field, MAX_NAME, normalise)

    def texts(self, field: str) -> tuple[str, ...]:
        return self._list(field, MAX_TEXT, str.strip)

    def _list(self, field: str, limit: int, tidy: Callable[[str], str]) -> tuple[str, ...]:
        cell = self._cells.get(field)
        if cell is None or cell.value is None:
            return ()
        if not isinstance(cell.value, list):
            raise self.fault(field, "type", f"{field!r} must be a list of texts, not {_kind(cell)}")
        if len(cell.value) > MAX_ITEMS:
            raise self.fault(field, "too_long", f"{field!r} has more than {MAX_ITEMS} items")
        items = [_string(item, field, limit, tidy) for item in cell.value]
        for item, text in zip(cell.value, items, strict=True):
            if not text:
                raise Fault("empty", f"an item of {field!r} is empty", item.line, item.column)
        return tuple(dict.fromkeys(items))

    def choice(self, field: str, default: _Enum) -> _Enum:
        text = self.name(field)
        try:
            return type(default)(text) if text else default
        except ValueError:
            known = ", ".join(type(default))
            raise self.fault(field, "bad_value", f"{field!r} is {text[:60]!r}", f"one of {known}") from None

    def time(self, field: str) -> datetime | None:
        text = self.name(field)
        try:
            return parse_time(text) if text else None
        except ValueError as error:
            hint = "write date, time and offset: 2026-01-31T09:00:00Z"
            raise self.fault(field, "bad_time", str(error), hint) from None

    def version(self, field: str) -> int | None:
        cell = self._cells.get(field)
        if cell is None or cell.value is None:
            return None
        value = cell.value
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,19}\s*", value, re.ASCII):
            value = int(value)  # CSV has no numbers
        if type(value) is not int or not 0 <= value < 2**63:
            raise self.fault(field, "bad_value", f"{field!r} must be a whole number from 0 to 2^63 - 1")
        return value


def _string(cell: Cell, field: str, limit: int, tidy: Callable[[str], str]) -> str:
    if not isinstance(cell.value, str):
        cause = f"{field!r} must be text, not {_kind(cell)}"
        raise Fault("type", cause, cell.line, cell.column, "put it in quotes")
    if unfit := _UNFIT.search(cell.value):
        cause = f"{field!r} holds the character U+{ord(unfit.group()):04X}"
        raise Fault("bad_text", cause, cell.line, cell.column)
    text = tidy(cell.value)
    if len(text) > limit:
        cause = f"{field!r} has {len(text)} characters, more than {limit}"
        raise Fault("too_long", cause, cell.line, cell.column)
    return text


def _kind(cell: Cell) -> str:
    match cell.value:
        case None:
            return "null"
        case bool():
            return "a yes-or-no value"
        case int() | float():
            return "a number"
        case Nested():
            return "an object"
        case list():
            return "a list"
    return "text"
