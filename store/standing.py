"""How things stand, asked of the ledger: facts that are due and not served, and rollbacks.

Knows the tables. Doesn't write, doesn't know the clock, and doesn't decide what is to be done.
"""

import json
from datetime import datetime

from sqlite_utils import Database

from store.facts import EditState
from store.rows import Row
from store.times import time_text

_SERVED = (EditState.LIVE, EditState.ALREADY_KNOWN, EditState.SUPERSEDED)


class Standing:
    """A part of `store.queries.LedgerQueries`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def unserved(self, now: datetime) -> dict[EditState, int]:
        """Of how many facts the newest edit that is due by `now` isn't served, by that edit's state."""
        sql = (
            "SELECT state, count(*) FROM edits WHERE id IN (SELECT max(id) FROM edits "
            "WHERE effective_at IS NULL OR effective_at <= ? GROUP BY fact_id) "
            "AND state NOT IN (SELECT value FROM json_each(?)) GROUP BY state"
        )
        rows = self._db.execute(sql, [time_text(now), json.dumps(_SERVED)]).fetchall()
        return {EditState(state): count for state, count in rows}

    def rollbacks(self) -> list[Row]:
        """Every switch that took changes back, oldest first: at, from, to, reason, trigger."""
        sql = (
            "SELECT at, detail FROM audit WHERE subject IN (SELECT 'generation:' || number FROM generations) "
            "AND event IN ('generation.rollback', 'generation.live') "
            "AND json_extract(detail, '$.trigger') NOT IN ('edit', 'init') ORDER BY id"
        )
        named = ("from", "to", "reason", "trigger")
        found = ((at, json.loads(detail)) for at, detail in self._db.execute(sql).fetchall())
        return [{"at": at, **{name: detail[name] for name in named}} for at, detail in found]

    def newest_switch(self) -> int:
        """A number that grows whenever another generation becomes the live one."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM generation_spans").fetchone()[0])
