"""What an accepted file changes, inside one transaction that its caller opened.

Knows files, records, facts, their history and the queue. Doesn't decide what a row means
(`store.diffing`) or when an edit is due.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlite_utils import Database

from store.connection import insert_many
from store.diffing import EDITED, apply
from store.facts import DiffRow, EditState, FactKey, FactRow, FactUpdate
from store.journal import Event, append
from store.rows import Row, fact_columns, fact_from, text_or_none, to_json
from store.times import time_text
from store.transitions import WAITING


def add_file(
    db: Database, sha256: str, name: str, size: int, rows: Sequence[DiffRow], now: datetime, *, partial: bool
) -> tuple[int, list[Row]]:
    """Insert a file and all that follows from its rows; returns its id and its records."""
    counts = Counter(row.row_class.value for row in rows)
    status = "partial" if partial else "accepted"
    file_id = insert_file(db, sha256, name, size, now, status=status, error=None, counts=counts)
    intake = _Intake(db, file_id, now, rows)
    records = intake.run()
    detail = {"file": file_id, "status": status, "size": size, "counts": dict(counts)}
    append(db, now, [Event("file.accepted", f"file:{sha256}", detail), *intake.events])
    return file_id, records


def insert_file(
    db: Database, sha256: str, name: str, size: int, now: datetime, *, status: str, error: Any, counts: Any
) -> int:
    row = {
        "sha256": sha256, "name": name, "size": size, "status": status,
        "error": None if error is None else to_json(error), "counts": to_json(counts),
        "received_at": time_text(now),
    }  # fmt: skip
    return int(db.table("files").insert(row).last_rowid or 0)


class _Intake:
    """One run over the rows of a file. Rows are gathered and inserted together: a first snapshot
    has 100,000 of them."""

    def __init__(self, db: Database, file_id: int, now: datetime, rows: Sequence[DiffRow]) -> None:
        self.events: list[Event] = []
        self._db = db
        self._file_id = file_id
        self._now = time_text(now)
        self._rows = rows
        self._facts = _known(db, [row.update.key for row in rows])
        self._before = {key: fact for key, (_, fact) in self._facts.items()}
        self._next_fact = _next_id(db, "facts")
        self._next_edit = _next_edit(db)
        self._edits: list[Row] = []
        self._history: list[Row] = []

    def run(self) -> list[Row]:
        records = [self._take(row) for row in self._rows]
        self._write_facts()
        self._supersede()
        insert_many(self._db, "edits", self._edits)
        self._write_history()
        insert_many(self._db, "records", records)
        return records

    def _take(self, row: DiffRow) -> Row:
        """Note what one row changes; returns its record."""
        update = row.update
        folded = update.key.folded()
        fact_id, fact = self._facts.get(folded, (self._next_fact, None))
        changed = apply(row, fact)
        if changed is not None:
            self._next_fact += fact is None
            self._facts[folded] = (fact_id, changed)
        edit_id = None
        if row.row_class in EDITED and changed is not None:
            edit_id = self._add_edit(row, fact_id, changed)
        return {
            "file_id": self._file_id, "line": update.line, "subject": update.key.subject,
            "relation": update.key.relation, "object": update.object, "op": update.op.value,
            "row_class": row.row_class.value, "reason": row.reason, "edit_id": edit_id,
        }  # fmt: skip

    def _add_edit(self, row: DiffRow, fact_id: int, fact: FactRow) -> int:
        edit_id = self._next_edit
        self._next_edit += 1
        columns = _edit_columns(row.update, edit_id, fact_id, fact, self._file_id, self._now, row.reason)
        self._edits.append(columns | _believed(row.update, self._before.get(fact.key.folded())))
        self._history.append({
            "fact_id": fact_id, "kind": "wanted", "op": fact.wanted_op.value, "value": fact.wanted,
            "valid_from": text_or_none(fact.effective_at) or self._now, "recorded_from": self._now,
            "recorded_to": None, "edit_id": edit_id, "generation": None, "file_id": self._file_id,
            "reason": row.reason,
        })  # fmt: skip
        detail = {"file": self._file_id, "to": "pending", "class": row.row_class.value}
        self.events.append(Event("edit.pending", f"edit:{edit_id}", detail))
        return edit_id

    def _write_facts(self) -> None:
        new, changed = [], []
        for folded, (fact_id, fact) in self._facts.items():
            before = self._before.get(folded)
            if before is None:
                new.append({"id": fact_id, **fact_columns(fact, self._now)})
            elif fact != before:
                changed.append({"id": fact_id, **fact_columns(fact, self._now)})
        insert_many(self._db, "facts", new)
        self._db.conn.executemany(
            "UPDATE facts SET wanted = :wanted, wanted_op = :wanted_op, aliases = :aliases, "
            "version = :version, effective_at = :effective_at, source = :source, updated_at = :updated_at "
            "WHERE id = :id",
            changed,
        )

    def _supersede(self) -> None:
        """Older edits that wait for the same facts give way."""
        states = to_json(sorted(WAITING))
        known = {self._facts[folded][0] for folded in self._before}
        for edit in self._edits:
            if edit["fact_id"] not in known:
                continue
            where = "fact_id = ? AND state IN (SELECT value FROM json_each(?))"
            for old in list(self._db.table("edits").rows_where(where, [edit["fact_id"], states])):
                reason = f"edit {edit['id']} is newer"
                change = {"state": EditState.SUPERSEDED.value, "reason": reason, "updated_at": self._now}
                self._db.table("edits").update(old["id"], change)
                detail = {"from": old["state"], "to": "superseded", "reason": reason}
                self.events.append(Event("edit.superseded", f"edit:{old['id']}", detail))

    def _write_history(self) -> None:
        self._db.conn.executemany(
            "UPDATE fact_history SET recorded_to = ? "
            "WHERE fact_id = ? AND kind = 'wanted' AND recorded_to IS NULL",
            [(self._now, row["fact_id"]) for row in self._history],
        )
        insert_many(self._db, "fact_history", self._history)


def _edit_columns(
    update: FactUpdate, edit_id: int, fact_id: int, fact: FactRow, file_id: int, now: str, reason: str
) -> Row:
    return {
        "id": edit_id, "fact_id": fact_id, "file_id": file_id, "op": update.op.value, "new": fact.wanted,
        "aliases": to_json(update.aliases), "state": "pending", "priority": update.priority.value,
        "prompts": to_json(update.prompts), "paraphrases": to_json(update.paraphrases),
        "source": update.source, "version": update.version,
        "effective_at": text_or_none(update.effective_at), "dropped_at": now, "attempt": 0,
        "recipe": "default", "generation": None, "reason": reason, "delta_blob": None, "updated_at": now,
    }  # fmt: skip


def _believed(update: FactUpdate, before: FactRow | None) -> Row:
    """The old answer: what the file says, else what is served as far as the ledger knows (else the
    editor asks the model)."""
    if update.old is not None or before is None:
        return {"old": update.old, "old_aliases": to_json(update.old_aliases)}
    known = before.aliases if before.value is not None and before.value == before.wanted else ()
    return {"old": before.value, "old_aliases": to_json(update.old_aliases or known)}


def _known(db: Database, keys: Iterable[FactKey]) -> dict[FactKey, tuple[int, FactRow]]:
    """Ids and facts by folded key: all of them for many keys, else one by one."""
    folded = {key.folded() for key in keys}
    table = db.table("facts")
    if len(folded) > 1_000:
        rows = list(table.rows)
    else:
        where = "folded_subject = ? AND folded_relation = ?"
        rows = [row for key in folded for row in table.rows_where(where, [key.subject, key.relation])]
    known = ((FactKey(row["folded_subject"], row["folded_relation"]), row) for row in rows)
    return {key: (row["id"], fact_from(row)) for key, row in known if key in folded}


def _next_id(db: Database, table: str) -> int:
    return int(db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def _next_edit(db: Database) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'edits'").fetchone()
    return int(row[0]) + 1 if row else 1
