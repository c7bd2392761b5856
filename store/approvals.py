"""Noting who let a waiting edit through, inside one transaction that its caller opened.

Knows the table of approvals. Doesn't know how many an edit needs (`policies.sources`), nor whether the
actor is who he says: that is for whoever took the order.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlite_utils import Database

from store.connection import insert_many
from store.errors import LedgerError
from store.journal import Event, append
from store.times import time_text


def add(db: Database, edit_ids: Sequence[int], actor: str, now: datetime) -> None:
    """One row and one audit event for each edit. A user is an id: another name makes no second one."""
    uid = actor.partition(":")[0]
    for edit_id in edit_ids:
        where = "edit_id = ? AND (actor = ? OR actor LIKE ? || ':%')"
        if db.table("approvals").count_where(where, [edit_id, uid, uid]):
            hint = "it takes another user to approve it again"
            raise LedgerError("approve", f"edit {edit_id}", f"{actor} approved it before", hint)
    rows = [{"edit_id": edit_id, "actor": actor, "approved_at": time_text(now)} for edit_id in edit_ids]
    insert_many(db, "approvals", rows)
    append(db, now, [Event("edit.approved", f"edit:{edit_id}", {"actor": actor}) for edit_id in edit_ids])
