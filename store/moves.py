"""Moving an edit from state to state, inside one transaction that its caller opened.

Knows the columns that a move sets and what the audit says of it. Doesn't know which state may follow
which (`store.transitions`), nor how edits go live (`store.switch`).
"""

from datetime import datetime

from sqlite_utils import Database

from store.facts import Edit, EditState
from store.journal import Event, append
from store.results import EditFields
from store.rows import Row, to_json
from store.switch import serve_fact
from store.times import time_text
from store.transitions import require_move


def move(
    db: Database,
    edit: Edit,
    to: EditState,
    reason: str,
    now: datetime,
    fields: EditFields,
    from_: EditState | None = None,
) -> None:
    """Raises LedgerError for a move that isn't legal, or when `edit` isn't in `from_`."""
    require_move(edit, to, from_)
    change: Row = {"state": to.value, "reason": reason, "updated_at": time_text(now), **fields}
    if "old_aliases" in fields:
        change["old_aliases"] = to_json(fields["old_aliases"])
    db.table("edits").update(edit.id, change)
    if to is EditState.ALREADY_KNOWN:
        row = next(db.table("edits").rows_where("id = ?", [edit.id]))
        serve_fact(db, row["fact_id"], row, time_text(now), None, reason)
    detail = {"from": edit.state.value, "to": to.value, "reason": reason}
    append(db, now, [Event(f"edit.{to.value}", f"edit:{edit.id}", detail)])
