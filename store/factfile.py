"""Fact files: bytes in, checked updates and row errors out.

Knows the formats and which faults end a file and which a row. Doesn't know folders, the ledger or
the clock. Errors count lines and columns (in characters) from 1.
"""

import re
from dataclasses import dataclass, replace

from store.cells import Fault, Rows
from store.errors import FactFileError
from store.facts import FactUpdate
from store.format_csv import read_csv
from store.format_json import read_array, read_lines
from store.format_yaml import read_yaml
from store.records import FIELDS, LISTS, check, snapshot_source

MAX_BYTES = 64 * 1024 * 1024
MAX_YAML_BYTES = 4 * 1024 * 1024  # seconds of parsing; large files are for the other formats
MAX_ROWS = 1_000_000
MAX_ROW_ERRORS = 10_000
MAX_SNAPSHOT_NAME = 180  # bytes; the inbox may have to shorten a longer name, and the source is in it
_FORMATS = {"jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "csv": "csv", "yaml": "yaml", "yml": "yaml"}
# A second NAME.snapshot.csv is put down as NAME.snapshot.2.csv.
_NAME = re.compile(r"(?P<stem>.*?)(?P<snapshot>\.(?i:snapshot)(?:\.\d+)?)?\.(?P<ending>[A-Za-z]+)", re.DOTALL)
_BLOCK = 1 << 16
_SAVE = "save it as UTF-8"
_EMPTY = "state at least one fact; an empty snapshot retracts nothing"
_PACKED = {b"PK\x03\x04": "a zip archive or a spreadsheet", b"\x1f\x8b": "packed with gzip"}


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file that could be read. `errors` are the refused rows; `source` is the snapshot's source
    (empty for other files): the one that its rows name, else NAME of NAME.snapshot.csv."""

    name: str
    format: str  # jsonl | json | csv | yaml
    snapshot: bool
    updates: tuple[FactUpdate, ...]
    errors: tuple[FactFileError, ...]
    source: str = ""


def is_fact_file(name: str) -> bool:
    """Whether the name says a known format."""
    match = _NAME.fullmatch(name)
    return match is not None and match["ending"].lower() in _FORMATS


def parse(data: bytes, name: str, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> ParsedFile:
    """Parse a file by the ending of its name (.jsonl .ndjson .json .csv .yaml .yml, and
    NAME.snapshot.csv|jsonl). Raises `FactFileError` when the file as a whole can't be used; a row
    that can't be used is in `errors`."""
    text = ""
    try:
        format_, source = _identify(name)
        text = _decode(data, min(max_bytes, MAX_YAML_BYTES) if format_ == "yaml" else max_bytes)
        updates, faults = _check_rows(_rows(format_, text), max_rows)
        if source is not None:
            updates, faults, source = _one_source(updates, faults, source)
    except Fault as fault:
        wide = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        text = text or _plain(data[:max_bytes]).decode(wide, "replace")
        raise _Reporter(name, text).error(fault) from None
    reporter = _Reporter(name, text)
    errors = tuple(reporter.error(fault) for fault in faults)
    return ParsedFile(name, format_, source is not None, tuple(updates), errors, source or "")


def _identify(name: str) -> tuple[str, str | None]:
    """The format, and the source that a snapshot's name states."""
    match = _NAME.fullmatch(name)
    format_ = _FORMATS.get(match["ending"].lower()) if match else None
    if match is None or format_ is None:
        hint = f"use one of {', '.join('.' + ending for ending in _FORMATS)}"
        raise Fault("unknown_format", "the name doesn't end in a known format", 1, 1, hint)
    if match["snapshot"] is None:
        return format_, None
    if format_ not in {"csv", "jsonl"}:
        raise Fault("unknown_format", "a snapshot must be .csv or .jsonl", 1, 1, "convert it")
    if len(name.encode("utf-8", "replace")) > MAX_SNAPSHOT_NAME:
        cause = f"the name of a snapshot has more than {MAX_SNAPSHOT_NAME} bytes"
        raise Fault("too_long", cause, 1, 1, "shorten it; it says the source")
    return format_, snapshot_source(match["stem"])


def _decode(data: bytes, max_bytes: int) -> str:
    """Text with \\n as its only line break, without a byte order mark."""
    if len(data) > max_bytes:
        cause = f"the file has {len(data)} bytes, more than {max_bytes}"
        raise Fault("too_large", cause, 1, 1, "split it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Fault("not_utf8", "the file is UTF-16 or UTF-32", 1, 1, _SAVE)
    for magic, kind in _PACKED.items():
        if data.startswith(magic):
            raise Fault("packed", f"the file is {kind}", 1, 1, "unpack it, or export it as CSV")
    data = _plain(data)
    if (nul := data.find(b"\0")) >= 0:
        cause, hint = _about_nuls(data[:_BLOCK])
        raise Fault("nul_byte", cause, *_byte_place(data, nul), hint=hint)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _byte_place(data, error.start)
        raise Fault("not_utf8", f"byte 0x{data[error.start]:02x} isn't UTF-8", *place, hint=_SAVE) from None
    if not text or text.isspace():
        raise Fault("empty_file", "the file is empty", 1, 1, _EMPTY)
    return text


def _about_nuls(begin: bytes) -> tuple[str, str]:
    share = begin.count(b"\0") / len(begin)
    if share == 1:
        return "nothing but NUL bytes: the file was never written, or has a hole", "write it again"
    if share > 1 / 3:
        return "every other byte is NUL: the file is UTF-16 or UTF-32", _SAVE
    return "a NUL byte: this isn't text", _SAVE


def _plain(data: bytes) -> bytes:
    """The bytes without byte order marks, with \\n as their only line break."""
    while data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _byte_place(data: bytes, offset: int) -> tuple[int, int]:
    """Line and column of a byte; what lies before it on its line counts in characters."""
    line_start = data.rfind(b"\n", 0, offset) + 1
    return data.count(b"\n", 0, offset) + 1, len(data[line_start:offset].decode("utf-8", "replace")) + 1


def _rows(format_: str, text: str) -> Rows:
    if format_ == "csv":
        return read_csv(text, fields=FIELDS, lists=LISTS)
    return {"jsonl": read_lines, "json": read_array, "yaml": read_yaml}[format_](text)


def _check_rows(rows: Rows, max_rows: int) -> tuple[list[FactUpdate], list[Fault]]:
    updates: list[FactUpdate] = []
    faults: list[Fault] = []
    for row in rows:
        if len(updates) + len(faults) >= max_rows:
            raise Fault("too_many_rows", f"more than {max_rows} rows", row.line, row.column, "split the file")
        if isinstance(row, Fault):
            faults.append(replace(row))  # a copy: what was raised holds on to all that it passed through
        else:
            try:
                updates.append(check(row))
            except Fault as fault:
                faults.append(replace(fault))
        if len(faults) > MAX_ROW_ERRORS:
            first = faults[0]
            raise replace(first, cause=f"more than {MAX_ROW_ERRORS} rows can't be used; first: {first.cause}")
    if not updates and not faults:
        raise Fault("empty_file", "the file holds no records", 1, 1, _EMPTY)
    return updates, faults


def _one_source(
    updates: list[FactUpdate], faults: list[Fault], stem: str
) -> tuple[list[FactUpdate], list[Fault], str]:
    """Give a snapshot's rows their one source; rows that name another one are faults."""
    source = next((update.source for update in updates if update.source), stem)
    kept = []
    for update in updates:
        if update.source in {"", source}:
            kept.append(update if update.source else replace(update, source=source))
        else:
            cause = f"a snapshot has one source, {source[:60]!r}; this row says {update.source[:60]!r}"
            faults.append(Fault("source_mismatch", cause, update.line, 1, "a snapshot for each source"))
    return kept, sorted(faults, key=lambda fault: (fault.line, fault.column)), source


class _Reporter:
    """Makes an operator's errors of faults, in the order of their lines or any other."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._known = (1, 0)  # the last line that was shown, and where it starts

    def error(self, fault: Fault) -> FactFileError:
        return FactFileError(
            "parse fact file",
            self._name,
            f"line {fault.line}, column {fault.column}: {fault.cause}",
            fault.hint,
            code=fault.code,
            line=fault.line,
            column=fault.column,
            excerpt=self._excerpt(fault),
        )

    def _excerpt(self, fault: Fault) -> str:
        """Up to 120 characters of the line, the fault among them."""
        start = self._start(fault.line)
        end = self._text.find("\n", start)
        first = start + max(0, fault.column - 81)
        return self._text[first : min(first + 120, len(self._text) if end < 0 else end)]

    def _start(self, wanted: int) -> int:
        """Where a line starts. Whole blocks are counted, not split: a file may hold 64 million lines."""
        line, offset = self._known if self._known[0] <= wanted else (1, 0)
        while (breaks := self._text.count("\n", offset, offset + _BLOCK)) < wanted - line:
            line, offset = line + breaks, offset + _BLOCK
            if offset >= len(self._text):  # a fault of the name; there is no such line
                return len(self._text)
        for _ in range(wanted - line):
            offset = self._text.index("\n", offset) + 1
        self._known = (wanted, offset)
        return offset
