"""One record of a fact file: what each field may hold.

Knows the fields, their types and limits. Doesn't know formats or the ledger. The first fault of a
record is the one reported.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from store.cells import Fault, RawRow
from store.facts import FactKey, FactUpdate, Op, Priority
from store.names import fold, normalise
from store.spelling import Flaw, flaw_in_name, flaw_in_text
from store.times import parse_time

MAX_NAME = 1_000  # characters of a subject, relation, object, alias or source
MAX_TEXT = 10_000  # characters of a note or a phrasing
MAX_ITEMS = 100
LAST_YEAR = 2199  # a later time is a slip of the pen, or a spreadsheet's "never"
SLOT = "{subject}"
_USE_SLOT = f"write {SLOT} where the name stands"

_DIGITS = re.compile(r"\s*\d{1,19}\s*", re.ASCII)
_LETTER = re.compile(r"[^\W_]")

_Enum = TypeVar("_Enum", bound=StrEnum)


@dataclass(slots=True)
class _Wrong(Exception):
    """What is wrong with a value, to be said after the field's name."""

    code: str
    cause: str
    hint: str = ""
    item: int | None = None


def check(row: RawRow) -> FactUpdate:
    """The update that a row states. A retraction's `object` is read as `old`. Raises `Fault` at the
    key or value that is wrong."""
    read = {name: _read(row, name, value) for name, value in row.values.items() if value is not None}
    for field in ("subject", "relation"):
        if not read.get(field):
            raise _fault(
                row, field, _Wrong("missing", "is required", "every fact has a subject and a relation")
            )
    wanted, old = read.get("object") or None, read.get("old") or None
    aliases, old_aliases = read.get("aliases", ()), read.get("old_aliases", ())
    if read.setdefault("op", Op.UPSERT) is Op.RETRACT:  # its object is the answer to forget
        if wanted and old and wanted != old:
            raise _fault(
                row, "object", _Wrong("bad_value", "of a retraction isn't its 'old'", "leave it out")
            )
        wanted, aliases, old, old_aliases = None, (), old or wanted, old_aliases or aliases
    elif wanted is None:
        raise _fault(row, "object", _Wrong("missing", "is required", "or set op to retract"))
    elif old or old_aliases:
        _check_apart(row, {fold(name) for name in (wanted, *aliases)}, old or "", old_aliases)
    for field in ("prompts", "paraphrases"):
        _check_named(row, field, read["subject"])
    lists = {"aliases": aliases, "old": old, "old_aliases": old_aliases}
    key = FactKey(read.pop("subject"), read.pop("relation"))
    return FactUpdate(**{**read, **lists, "key": key, "object": wanted, "line": row.line})


def _check_apart(row: RawRow, new: set[str], old: str, old_aliases: Sequence[str]) -> None:
    field = "old" if fold(old) in new else "old_aliases"
    if field == "old" or not new.isdisjoint(map(fold, old_aliases)):
        hint = "leave out what stays right: one answer can't be learned and unlearned"
        raise _fault(row, field, _Wrong("bad_value", "holds the new answer or an alias of it", hint))


def _check_named(row: RawRow, field: str, subject: str) -> None:
    """A wording that names nothing of the subject would be trained for whatever it is about."""
    words = fold(subject).split()
    for i, text in enumerate(row.values.get(field) or ()):
        if SLOT in text:
            continue
        folded = fold(text)
        if not any(word in folded for word in words):
            raise _fault(row, field, _Wrong("bad_value", "doesn't name the subject", _USE_SLOT, i))


def snapshot_source(stem: str) -> str:
    """The source that a snapshot's name states, held to what the field may hold."""
    try:
        if source := _name(stem):
            return source
    except _Wrong as wrong:
        raise Fault(wrong.code, f"the source in the file's name {wrong.cause}", 1, 1, wrong.hint) from None
    raise Fault("missing", "the file's name states no source", 1, 1, "name it SOURCE.snapshot.csv or .jsonl")


def _read(row: RawRow, field: str, value: object) -> Any:
    reader = _READERS.get(field)
    if reader is None:
        place = row.place(field, key=True)
        raise Fault(
            "unknown_key", f"unknown key {field[:60]!r}", *place, hint=f"known keys: {', '.join(FIELDS)}"
        )
    try:
        return reader(value)
    except _Wrong as wrong:
        raise _fault(row, field, wrong) from None


def _fault(row: RawRow, field: str, wrong: _Wrong) -> Fault:
    item = "" if wrong.item is None else f", item {wrong.item + 1},"
    cause = f"{field!r}{item} {wrong.cause}"
    return Fault(wrong.code, cause, *row.place(field, wrong.item), hint=wrong.hint)


def _string(value: object, limit: int) -> str:
    if not isinstance(value, str):
        hint = "write one text" if isinstance(value, list | dict) else "put it in quotes"
        raise _Wrong("type", f"must be text, not {_kind(value)}", hint)
    if len(value) > limit:
        raise _Wrong("too_long", f"has {len(value)} characters, more than {limit}", "shorten it")
    _refuse(flaw_in_text(value))
    return value


def _refuse(flaw: Flaw | None) -> None:
    if flaw is not None:
        raise _Wrong(*flaw)


def _name(value: object) -> str:
    text = normalise(_string(value, MAX_NAME))
    _refuse(flaw_in_name(text))
    if SLOT in text:
        raise _Wrong("bad_value", f"holds {SLOT}, which stands for a name in prompts", "write the name")
    return text


def _relation(value: object) -> str:
    return _lettered(value, "a question can't be made of it")


def _answer(value: object) -> str:
    return _lettered(value, "no answer of the model could be told to hold it")


def _lettered(value: object, why: str) -> str:
    text = _name(value)
    if text and not _LETTER.search(text):
        raise _Wrong("bad_value", f"has no letter or digit, so {why}", "write it in words")
    return text


def _text(value: object) -> str:
    return _string(value, MAX_TEXT).strip()


def _wording(value: object) -> str:
    text = _text(value)
    if re.search("[{}]", text.replace(SLOT, "")):
        raise _Wrong("bad_value", f"has braces other than {SLOT}", _USE_SLOT)
    return text


def _answers(value: object) -> tuple[str, ...]:
    return _list(value, _answer)


def _wordings(value: object) -> tuple[str, ...]:
    return _list(value, _wording)


def _list(values: object, read: Callable[[object], str]) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise _Wrong("type", f"must be a list of texts, not {_kind(values)}", "write [...] around it")
    if len(values) > MAX_ITEMS:
        raise _Wrong("too_long", f"has more than {MAX_ITEMS} items", "leave some out")
    texts: dict[str, None] = {}  # in order, each once
    for i, value in enumerate(values):
        try:
            text = read(value)
        except _Wrong as wrong:
            wrong.item = i
            raise
        if not text:
            raise _Wrong("empty", "is empty", "leave it out", item=i)
        texts[text] = None
    return tuple(texts)


def _choice(kind: type[_Enum], default: _Enum) -> Callable[[object], _Enum]:
    def read(value: object) -> _Enum:
        text = _name(value)
        try:
            return kind(text) if text else default
        except ValueError:
            raise _Wrong("bad_value", f"is {text[:60]!r}", f"one of {', '.join(kind)}") from None

    return read


def _time(value: object) -> datetime | None:
    hint = "write date, time and offset as text: 2026-01-31T09:00:00Z"
    if not isinstance(value, str):
        raise _Wrong("bad_time", f"is {_kind(value)}", hint)
    text = _name(value)
    try:
        when = parse_time(text) if text else None
    except ValueError as error:
        raise _Wrong("bad_time", f"can't be read: {error}", hint) from None
    if when is not None and when.year > LAST_YEAR:
        raise _Wrong("bad_time", f"is after the year {LAST_YEAR}: nobody would see it come", "leave it out")
    return when


def _version(value: object) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)  # CSV has no numbers
    if type(value) is not int or not 0 <= value < 2**63:
        raise _Wrong("bad_value", "must be a whole number from 0 to 2^63 - 1")
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


_READERS: Mapping[str, Callable[[object], Any]] = {
    "subject": _name,
    "relation": _relation,
    "object": _answer,
    "op": _choice(Op, Op.UPSERT),
    "aliases": _answers,
    "old": _answer,
    "old_aliases": _answers,
    "effective_at": _time,
    "version": _version,
    "source": _name,
    "priority": _choice(Priority, Priority.NORMAL),
    "note": _text,
    "prompts": _wordings,
    "paraphrases": _wordings,
}
FIELDS = tuple(_READERS)
LISTS = tuple(name for name, reader in _READERS.items() if reader in {_answers, _wordings})
