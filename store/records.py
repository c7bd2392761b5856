"""One record of a fact file: what each field may hold.

Knows the fields, their types and limits. Doesn't know formats or the ledger. The first fault of a
record is the one reported.
"""

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from store.cells import Fault, RawRow
from store.facts import FactKey, FactUpdate, Op, Priority, normalise
from store.times import parse_time

FIELDS = (
    "subject", "relation", "object", "op", "aliases", "old", "old_aliases", "effective_at", "version",
    "source", "priority", "note", "prompts", "paraphrases",
)  # fmt: skip
_KNOWN = frozenset(FIELDS)
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
    """The values of one row with typed reads. A null is as good as absent."""

    def __init__(self, row: RawRow) -> None:
        self._row = row
        self._values = row.values
        if not row.values.keys() <= _KNOWN:
            name = next(key for key in row.values if key not in _KNOWN)
            place = row.place(name, key=True)
            hint = f"known keys: {', '.join(FIELDS)}"
            raise Fault("unknown_key", f"unknown key {name[:60]!r}", *place, hint=hint)

    def fault(self, field: str, code: str, cause: str, hint: str = "", item: int | None = None) -> Fault:
        return Fault(code, cause, *self._row.place(field, item), hint=hint)

    def _read(self, field: str, limit: int, tidy: Callable[[str], str]) -> str:
        value = self._values.get(field)
        return "" if value is None else self._string(value, field, limit, tidy)

    def _string(
        self, value: object, field: str, limit: int, tidy: Callable[[str], str], item: int | None = None
    ) -> str:
        if not isinstance(value, str):
            cause = f"{field!r} must be text, not {_kind(value)}"
            raise self.fault(field, "type", cause, "put it in quotes", item)
        if not value.isprintable() and (unfit := _UNFIT.search(value)):
            cause = f"{field!r} holds the character U+{ord(unfit.group()):04X}"
            raise self.fault(field, "bad_text", cause, item=item)
        text = tidy(value)
        if len(text) > limit:
            cause = f"{field!r} has {len(text)} characters, more than {limit}"
            raise self.fault(field, "too_long", cause, item=item)
        return text

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
        values = self._values.get(field)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise self.fault(field, "type", f"{field!r} must be a list of texts, not {_kind(values)}")
        if len(values) > MAX_ITEMS:
            raise self.fault(field, "too_long", f"{field!r} has more than {MAX_ITEMS} items")
        texts = [self._string(value, field, limit, tidy, i) for i, value in enumerate(values)]
        if "" in texts:
            raise self.fault(field, "empty", f"an item of {field!r} is empty", item=texts.index(""))
        return tuple(dict.fromkeys(texts))

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
        value = self._values.get(field)
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,19}\s*", value, re.ASCII):
            value = int(value)  # CSV has no numbers
        if type(value) is not int or not 0 <= value < 2**63:
            raise self.fault(field, "bad_value", f"{field!r} must be a whole number from 0 to 2^63 - 1")
        return value


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a yes-or-no value"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "text"
