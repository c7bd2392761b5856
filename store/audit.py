"""The audit's hash chain: each event's hash covers its content and the hash before it.

Pure functions. Doesn't know the ledger. The chain shows that an event was changed, removed from the
middle or inserted; one who can rewrite the whole chain, or cut its end off, needs a copy of the
newest hash kept elsewhere to be caught.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

FIRST = "0" * 64
"""What the first event has in place of a previous hash."""


def event_hash(previous: str, event_id: int, at: str, event: str, subject: str, detail_json: str) -> str:
    """SHA-256 of the fields as a JSON list: no two contents share a text."""
    text = json.dumps([previous, event_id, at, event, subject, detail_json], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Link(NamedTuple):
    """An event that was found to fit: its id and hash."""

    id: int
    hash: str


START = Link(0, FIRST)


def verify(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """The id of the first event that doesn't fit, or None. `rows` are all events by id, with
    `detail` as the text that was stored. Ids count from 1 without gaps."""
    return follow(rows, START)[1]


def follow(rows: Iterable[Mapping[str, Any]], link: Link) -> tuple[Link, int | None]:
    """Check the events that come after `link`: the last one that fits, and the id of the first that
    doesn't, or None."""
    for row in rows:
        made = event_hash(link.hash, row["id"], row["at"], row["event"], row["subject"], row["detail"])
        if row["id"] != link.id + 1 or row["previous"] != link.hash or row["hash"] != made:
            return link, int(row["id"])
        link = Link(row["id"], made)
    return link, None
