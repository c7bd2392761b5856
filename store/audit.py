"""The audit's hash chain: each event's hash covers its content and the hash before it.

Pure functions. Doesn't know the ledger. The chain shows that an event was changed, removed from the
middle or inserted; one who can rewrite the whole chain, or cut its end off, needs a copy of the
newest hash kept elsewhere to be caught.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

FIRST = "0" * 64
"""What the first event has in place of a previous hash."""


def event_hash(previous: str, event_id: int, at: str, event: str, subject: str, detail_json: str) -> str:
    """SHA-256 of the fields as a JSON list: no two contents share a text."""
    text = json.dumps([previous, event_id, at, event, subject, detail_json], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def verify(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """The id of the first event that doesn't fit, or None. `rows` are all events by id, with
    `detail` as the text that was stored. Ids count from 1 without gaps."""
    previous = FIRST
    for expected, row in enumerate(rows, start=1):
        made = event_hash(previous, row["id"], row["at"], row["event"], row["subject"], row["detail"])
        if row["id"] != expected or row["previous"] != previous or row["hash"] != made:
            return int(row["id"])
        previous = made
    return None
