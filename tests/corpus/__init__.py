"""Bad and borderline fact files, and what Palimpsest makes of each.

Knows every case: an id, the name it is dropped under, and its bytes, or how to make it where Git couldn't
hold it. `golden/ID.error.json` is the report that the daemon writes beside a refused file,
`golden/ID.rows.json` what was read of an accepted one. `python -m tests.corpus` writes both anew: read the
difference before you commit it, since a message nobody would understand is a bug like any other.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config import Config, InboxSettings
from daemon.inbox import Claim, Inbox, error_report, printable
from store.errors import FactFileError
from store.factfile import parse
from store.facts import FactUpdate
from tests.corpus import csv_files, json_files, places, snapshots, texts, yaml_files

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)  # where `daemon.fakes.FakeClock` begins
CAP = 1024 * 1024  # bytes that the inbox of these tests takes


@dataclass(frozen=True, slots=True)
class Case:
    """One file. `make` puts it at the path that it is given."""

    id: str
    name: str
    make: Callable[[Path], object]


def _writer(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


FILES: Mapping[str, bytes] = {
    **json_files.FILES, **csv_files.FILES, **yaml_files.FILES, **texts.FILES, **snapshots.FILES,
}  # fmt: skip
CASES = (
    *(Case(name, name, _writer(data)) for name, data in FILES.items()),
    *(Case(id, os.fsdecode(name), make) for id, (name, make) in places.PLACES.items()),
)


def judge(case: Case, folder: Path) -> tuple[str, dict[str, Any]]:
    """Make the case's file in `folder` and take it as the daemon would: the golden file's name and what
    it must hold. Leaves the file."""
    path = folder / case.name
    case.make(path)
    label = printable(case.name)
    try:
        data, _owner = Inbox(Config().layout, InboxSettings(max_file_bytes=CAP)).read(Claim(case.name, path))
        parsed = parse(data, label, max_bytes=CAP)
    except FactFileError as error:
        return f"{case.id}.error.json", error_report(label, [error], NOW)
    if parsed.errors:
        return f"{case.id}.error.json", error_report(label, parsed.errors, NOW)
    rows = {"source": parsed.source} if parsed.snapshot else {}
    return f"{case.id}.rows.json", {**rows, "rows": [_said(update) for update in parsed.updates]}


def as_text(value: dict[str, Any]) -> str:
    """Golden files are ASCII, so that what can't be seen is seen."""
    return json.dumps(value, indent=2) + "\n"


def _said(update: FactUpdate) -> dict[str, Any]:
    """The fields that a row doesn't leave at their defaults."""
    said: dict[str, Any] = {
        "line": update.line, "subject": update.key.subject, "relation": update.key.relation,
    }  # fmt: skip
    for field in fields(update):
        value = getattr(update, field.name)
        if field.name not in {"key", "line"} and value != field.default:
            said[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return said
