"""Times as text: RFC 3339 in, one sortable UTC form out.

Knows the text form of a time. Doesn't know what time it is.
"""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time with its offset, in UTC. Digits past microseconds are dropped. Raises
    `ValueError` for anything else, dates without a time or an offset included."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text[:40]!r} isn't an RFC 3339 time such as 2026-01-31T09:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text[:40]!r} is out of range") from error


def time_text(when: datetime) -> str:
    """UTC with microseconds and Z: texts of this form sort as the times do."""
    if when.tzinfo is None:
        raise ValueError("a time without an offset can't be stored; hand in an aware datetime")
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
