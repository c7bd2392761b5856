"""Handing a file to the daemon and waiting for its facts to settle, from another process.

Knows how a file is dropped so that it is ready at once, and which states are an end. Doesn't write
the ledger.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon import waits
from daemon.admission import admit
from daemon.config import Config
from daemon.house import utc_now
from daemon.inbox import is_ignored, printable
from daemon.ingest import diff_rows
from daemon.status import read_work
from daemon.users import ourselves
from policies.batches import named
from policies.sources import Wait
from store.errors import FactFileError, PalimpsestError, UnreachableError, UsageError
from store.factfile import ParsedFile, parse
from store.facts import DiffRow, Edit, EditState
from store.ledger import Ledger
from store.lock import StateLock

_OPEN = frozenset({EditState.PENDING, EditState.EDITING, EditState.JUDGED})
_GOOD = frozenset({EditState.LIVE, EditState.ALREADY_KNOWN, EditState.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Drop:
    """A file put into the inbox. `at` is just before it was."""

    name: str
    sha256: str
    at: datetime


def read_file(config: Config, path: Path) -> ParsedFile:
    """Parse a file as the daemon would. Raises FactFileError for what the daemon would refuse."""
    return _checked(config, path, _bytes(config, path))


def _checked(config: Config, path: Path, data: bytes) -> ParsedFile:
    parsed = parse(data, printable(path.name), max_bytes=config.inbox.max_file_bytes)
    parsed = admit(config, parsed, ourselves())
    if parsed.errors and not config.inbox.partial:
        raise parsed.errors[0]
    return parsed


def preview(config: Config, ledger: Ledger, path: Path) -> list[DiffRow]:
    """What a file would mean if it were dropped now."""
    return diff_rows(config, ledger, read_file(config, path))


def drop(config: Config, path: Path) -> Drop:
    """Check a file, then put a copy of it into the inbox, ready at once."""
    data = _bytes(config, path)  # once: what is checked is what is dropped
    _checked(config, path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    inbox = config.layout.inbox
    if is_ignored(path.name):
        raise UsageError("submit", str(path), "the inbox ignores files of this name", "rename it")
    name, count = path.name, 1
    while os.path.lexists(inbox / name):
        count += 1
        name = f"{path.stem}.{count}{path.suffix}"
    at = utc_now()
    staged = inbox / f".{os.getpid()}.tmp"
    staged.write_bytes(data)
    staged.chmod(staged.stat().st_mode & ~0o022)  # a source's owner must be the only one who can write it
    (inbox / f"{name}.ready").touch()
    staged.rename(inbox / name)
    return Drop(name, sha256, at)


def _bytes(config: Config, path: Path) -> bytes:
    cap = config.inbox.max_file_bytes
    try:
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except OSError as error:
        raise UsageError("submit", str(path), error.strerror or str(error)) from error
    if len(data) > cap:
        hint = "split the file or raise [inbox] max_file_bytes"
        raise FactFileError("submit", str(path), f"more than the {cap} bytes allowed", hint, code="too_large")
    return data


def wait(
    config: Config, dropped: Drop, on_stage: Callable[[str], None], timeout: float
) -> list[dict[str, Any]]:
    """Wait until every due edit of the file has settled, waits for what no patience brings (approval,
    room, capacity), or goes on by itself (its hours, its source's rate) but not before time is up; returns
    its rows and how each ended.

    Raises UnreachableError when no daemon is running or time is up, FactFileError when the file was
    refused.
    """
    deadline, gives_up = time.monotonic() + timeout, utc_now() + timedelta(seconds=timeout)
    lock = StateLock(config.layout.state)
    ledger = Ledger.open_readonly(config.layout.ledger)
    try:
        while True:
            rows, waits_for, done, total = _settled(config, ledger, dropped, gives_up)
            if rows is not None:
                return rows
            work = read_work(config)
            doing = f"{named(work['edits'])} {work['stage']}" if work else waits_for
            on_stage(f"{doing}: {done}/{total}" if total else doing)
            if lock.holder() is None:
                raise UnreachableError(
                    "wait for file",
                    dropped.name,
                    "no daemon is running",
                    "start it with `palimpsest run`; the file waits in the inbox",
                )
            if time.monotonic() > deadline:
                raise UnreachableError("wait for file", dropped.name, f"not settled within {timeout:g} s")
            time.sleep(0.2)
    finally:
        ledger.close()


def _settled(
    config: Config, ledger: Ledger, dropped: Drop, gives_up: datetime
) -> tuple[list[dict[str, Any]] | None, str, int, int]:
    """The file's rows once nothing of it that could be done in time is due any more, None before; what is
    waited for; edits that are done, and all."""
    unread = None, "waiting", 0, 0
    if os.path.lexists(config.layout.inbox / dropped.name):
        return unread
    seen = ledger.file_seen(dropped.sha256)
    if seen is None:
        return unread
    if seen["status"] == "rejected":
        if datetime.fromisoformat(seen["received_at"]) < dropped.at:
            return unread
        raise _refused(dropped, seen["error"] or {})
    rows = ledger.file_rows(seen["id"])
    edits = {row["edit_id"]: ledger.edit(row["edit_id"]) for row in rows if row["edit_id"] is not None}
    due = [edit for edit in edits.values() if _is_due(edit)]
    waiting = waits.standing(config, ledger, due, running=True) if due else {}
    late = {n for n, wait in waiting.items() if wait.until is None or wait.until > gives_up}
    done = len(edits) - len(due)
    if any(edit.id not in late for edit in due):
        soon = next((wait.what for n, wait in waiting.items() if n not in late), "")
        return None, f"waiting for {soon}" if soon else "waiting", done, len(edits)
    return [_row(row, edits.get(row["edit_id"]), waiting) for row in rows], "", done, len(edits)


def _is_due(edit: Edit) -> bool:
    early = edit.effective_at is not None and edit.effective_at > datetime.now(UTC)
    return edit.state in _OPEN and not (early and edit.state is EditState.PENDING)


def _row(row: dict[str, Any], edit: Edit | None, waiting: Mapping[int, Wait]) -> dict[str, Any]:
    """`waiting`: why edits aren't started. One that goes on by itself is no failure."""
    wait = waiting.get(edit.id) if edit is not None else None
    state = str(edit.state) if edit else "-"
    ok = row["row_class"] not in ("conflicting", "invalid") and (edit is None or edit.state in _GOOD | _OPEN)
    reason = edit.reason if edit else row["reason"]
    return {
        "line": row["line"],
        "subject": row["subject"],
        "relation": row["relation"],
        "class": row["row_class"],
        "edit": row["edit_id"],
        "state": state,
        "ok": ok and (wait is None or wait.until is not None),
        "reason": str(wait) if wait else reason,
    }


def _refused(dropped: Drop, error: dict[str, Any]) -> PalimpsestError:
    return FactFileError(
        "submit",
        dropped.name,
        str(error.get("cause", "refused")),
        str(error.get("hint", "")),
        code=str(error.get("code", "invalid")),
        line=int(error.get("line", 1)),
        column=int(error.get("column", 1)),
    )
