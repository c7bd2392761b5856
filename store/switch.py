"""Making another generation live, inside one transaction that its caller opened.

Knows generations, the states of their edits and what the served model says. Doesn't decide which
generation should be live. The weights say what is so: an edit that is in the live generation is
live, or superseded when a newer edit of the same fact is in it too, whatever it was before.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlite_utils import Database

from store.errors import LedgerError
from store.facts import EditState
from store.journal import Event, append
from store.queries import edits_of
from store.rows import Row, to_json
from store.times import time_text


def switch(
    db: Database,
    number: int,
    now: datetime,
    reason: str,
    *,
    event: str,
    leave: str,
    trigger: str,
    order: int | None = None,
) -> None:
    """Make `number` live; the generation that was goes to state `leave` (retired, rolled_back). `order` is
    the open one that asked for it."""
    current = next(db.table("generations").rows_where("state = 'live'"), None)
    if current is not None and current["number"] == number:
        raise LedgerError("make generation live", f"generation {number}", "it is live already")
    before = edits_of(db, current["number"]) if current else []
    after = edits_of(db, number)
    if current is not None:
        db.table("generations").update(current["number"], {"state": leave})
    db.table("generations").update(number, {"state": "live"})
    _open_span(db, number, time_text(now), reason)
    move = _Move(db, number, now, reason)
    move.edits(before, after)
    move.facts(before, after)
    detail = {
        "to": number, "from": current["number"] if current else None, "left": leave, "edits": len(after),
        "reason": reason, "trigger": trigger,
    }  # fmt: skip
    append(db, now, [Event(event, f"generation:{number}", detail), *move.events])
    note_done(db, order, {"from": detail["from"], "to": number, "reason": reason})


def note_done(db: Database, order: int | None, done: Mapping[str, object]) -> None:
    """Give the open order that asked for this what was done, in the transaction that does it: were it cut
    off now, it must not be carried out a second time."""
    if order is not None:
        db.table("intents").update(order, {"result": to_json(dict(done))})


def _open_span(db: Database, number: int, now: str, reason: str) -> None:
    db.execute("UPDATE generation_spans SET live_until = ? WHERE live_until IS NULL", [now])
    span = {"generation": number, "live_from": now, "live_until": None, "reason": reason}
    db.table("generation_spans").insert(span)


class _Move:
    """The edits and facts that follow a switch."""

    def __init__(self, db: Database, number: int, now: datetime, reason: str) -> None:
        self.events: list[Event] = []
        self._db = db
        self._number = number
        self._now = time_text(now)
        self._reason = reason

    def edits(self, before: list[int], after: list[int]) -> None:
        rows = [self._edit(number) for number in after]
        newest = {row["fact_id"]: row["id"] for row in rows}
        for row in rows:
            live = newest[row["fact_id"]] == row["id"]
            self._set(row, EditState.LIVE if live else EditState.SUPERSEDED, newest[row["fact_id"]])
        for row in [self._edit(number) for number in before if number not in set(after)]:
            if row["state"] == EditState.LIVE:
                newer = newest.get(row["fact_id"], 0)
                replaced = newer > row["id"]
                self._set(row, EditState.SUPERSEDED if replaced else EditState.ROLLED_BACK, newer)

    def _edit(self, number: int) -> Row:
        return next(self._db.table("edits").rows_where("id = ?", [number]))

    def _set(self, row: Row, state: EditState, newest: int) -> None:
        if row["state"] == state:
            return
        reason = f"edit {newest} is newer" if state is EditState.SUPERSEDED else self._reason
        change: Row = {"state": state.value, "reason": reason, "updated_at": self._now}
        if state is EditState.LIVE:
            change["generation"] = self._number
        self._db.table("edits").update(row["id"], change)
        detail = {"from": row["state"], "to": state.value, "generation": self._number, "reason": reason}
        self.events.append(Event(f"edit.{state.value}", f"edit:{row['id']}", detail))

    def facts(self, before: list[int], after: list[int]) -> None:
        """What the served model says of the facts whose edits came or went."""
        rows = [self._edit(number) for number in after]
        newest = {row["fact_id"]: row for row in rows}
        touched = {self._edit(number)["fact_id"] for number in set(before) ^ set(after)}
        for fact_id in sorted(touched):
            serve_fact(self._db, fact_id, newest.get(fact_id), self._now, self._number, self._reason)


def serve_fact(
    db: Database, fact_id: int, edit: Row | None, now: str, generation: int | None, reason: str
) -> None:
    """Note what is served of one fact from now on: the content of `edit`, or nothing that the
    ledger knows of. Without a generation the model knew it by itself, and no edit makes it so."""
    value = edit["new"] if edit else None
    change = {"value": value, "updated_at": now}
    if edit is None or generation is not None:
        change["live_edit"] = edit["id"] if edit else None
    db.table("facts").update(fact_id, change)
    db.execute(
        "UPDATE fact_history SET recorded_to = ? "
        "WHERE fact_id = ? AND kind = 'served' AND recorded_to IS NULL",
        [now, fact_id],
    )
    if edit is not None:
        db.table("fact_history").insert({
            "fact_id": fact_id, "kind": "served", "op": edit["op"], "value": value, "valid_from": now,
            "recorded_from": now, "recorded_to": None, "edit_id": edit["id"], "generation": generation,
            "file_id": edit["file_id"], "reason": reason,
        })  # fmt: skip
