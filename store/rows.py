"""Rows of the ledger as nouns, and the other way round.

Knows columns and how each is kept (JSON lists, UTC texts). Doesn't run SQL.
"""

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from store.facts import Edit, EditState, FactKey, FactRow, Generation, Op, Priority
from store.times import parse_time, time_text

Row = dict[str, Any]


def to_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, any script readable. NaN and infinities, which
    JSON doesn't have, become null: a measurement that went wrong must not stop its being recorded."""
    if value == ():  # most lists of most rows
        return "[]"
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return to_json(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else value


def texts(column: str) -> tuple[str, ...]:
    """A column that holds a JSON list of texts."""
    return () if column == "[]" else tuple(json.loads(column))


def time_or_none(column: str | None) -> datetime | None:
    return None if column is None else parse_time(column)


def text_or_none(when: datetime | None) -> str | None:
    return None if when is None else time_text(when)


def fact_from(row: Row) -> FactRow:
    return FactRow(
        key=FactKey(row["subject"], row["relation"]),
        value=row["value"],
        wanted=row["wanted"],
        wanted_op=Op(row["wanted_op"]),
        aliases=texts(row["aliases"]),
        version=row["version"],
        effective_at=time_or_none(row["effective_at"]),
        source=row["source"],
        live_edit=row["live_edit"],
    )


def fact_columns(fact: FactRow, now: str) -> Row:
    """All columns but id."""
    folded = fact.key.folded()
    return {
        "subject": fact.key.subject,
        "relation": fact.key.relation,
        "folded_subject": folded.subject,
        "folded_relation": folded.relation,
        "value": fact.value,
        "wanted": fact.wanted,
        "wanted_op": fact.wanted_op.value,
        "aliases": to_json(fact.aliases),
        "version": fact.version,
        "effective_at": text_or_none(fact.effective_at),
        "source": fact.source,
        "live_edit": fact.live_edit,
        "updated_at": now,
    }


def edit_from(row: Row) -> Edit:
    """From a row of edits joined with its fact's subject and relation."""
    return Edit(
        id=row["id"],
        key=FactKey(row["subject"], row["relation"]),
        op=Op(row["op"]),
        new=row["new"],
        aliases=texts(row["aliases"]),
        old=row["old"],
        old_aliases=texts(row["old_aliases"]),
        state=EditState(row["state"]),
        priority=Priority(row["priority"]),
        prompts=texts(row["prompts"]),
        paraphrases=texts(row["paraphrases"]),
        source=row["source"],
        version=row["version"],
        effective_at=time_or_none(row["effective_at"]),
        dropped_at=time_or_none(row["dropped_at"]),
        attempt=row["attempt"],
        recipe=row["recipe"],
        generation=row["generation"],
        reason=row["reason"],
        delta_blob=row["delta_blob"],
        repeats=row["repeats"],
        batch=row["batch"],
    )


def generation_from(row: Row, edits: Iterable[int]) -> Generation:
    return Generation(
        number=row["number"],
        parent=row["parent"],
        state=row["state"],
        weights_sha256=row["weights_sha256"],
        theta_blob=row["theta_blob"],
        edits=tuple(edits),
        created_at=parse_time(row["created_at"]),
        reason=row["reason"],
        pinned=bool(row["pinned"]),
    )


def decoded(row: Row, *columns: str) -> Row:
    """The row with its JSON columns as values; a NULL stays None."""
    return row | {name: None if row[name] is None else json.loads(row[name]) for name in columns}
