"""Writing to the audit, inside the transaction of what is audited.

Knows the audit table and its chain. Doesn't know what the events mean.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlite_utils import Database

from store.audit import FIRST, event_hash
from store.connection import insert_many
from store.rows import to_json
from store.times import time_text


class Event(NamedTuple):
    """`subject` is what one asks the audit about: `edit:12`, `generation:3`, `file:SHA`, ..."""

    name: str
    subject: str
    detail: Mapping[str, Any]


def append(db: Database, now: datetime, events: Iterable[Event]) -> int:
    """Append events in order; returns the id of the last (0 when there is none)."""
    row = db.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = row or (0, FIRST)
    at = time_text(now)
    rows = []
    for event in events:
        number += 1
        detail = to_json(event.detail)
        made = event_hash(previous, number, at, event.name, event.subject, detail)
        rows.append({
            "id": number, "at": at, "event": event.name, "subject": event.subject, "detail": detail,
            "previous": previous, "hash": made,
        })  # fmt: skip
        previous = made
    insert_many(db, "audit", rows)
    return int(number)
