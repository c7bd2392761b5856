"""What can be asked of the ledger: reads only, each one statement or one consistent view.

Knows the tables. Doesn't write, doesn't know the clock. Rows that have no noun come as dicts; their
times are RFC 3339 texts in UTC.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlite_utils import Database

from store import audit
from store.connection import faults, integrity_faults
from store.errors import LedgerError
from store.facts import Edit, EditState, FactKey, FactRow, Generation, Priority, Reading, Suite
from store.rows import Row, decoded, edit_from, fact_from, generation_from
from store.standing import Standing
from store.times import parse_time, time_text

_EDITS = "SELECT edits.*, facts.subject, facts.relation FROM edits JOIN facts ON facts.id = edits.fact_id"
_MANY = 1_000  # keys above which reading all facts is quicker than asking for each


class LedgerQueries(Standing):
    """The reading half of `store.ledger.Ledger`."""

    # files

    def file_seen(self, sha256: str) -> Row | None:
        """The newest record of these bytes, an accepted one first: id, sha256, name, size, status
        (accepted, partial, rejected), error (dict or None), counts (dict), received_at."""
        order = "status = 'rejected', id DESC"
        rows = self._db.table("files").rows_where("sha256 = ?", [sha256], order_by=order, limit=1)
        return next((decoded(row, "error", "counts") for row in rows), None)

    def file_rows(self, file_id: int) -> list[Row]:
        """The rows of a file: line, subject, relation, object, op, row_class, reason, edit_id."""
        return list(self._db.table("records").rows_where("file_id = ?", [file_id], order_by="id"))

    # facts

    def facts(self, keys: Iterable[FactKey] | None = None) -> dict[FactKey, FactRow]:
        """All facts, or those of `keys` (any case), by the key as the ledger spells it."""
        if keys is None:
            rows = self._db.table("facts").rows_where(order_by="id")
            return {fact.key: fact for fact in map(fact_from, rows)}
        folded = {key.folded() for key in keys}
        if len(folded) > _MANY:
            return {key: fact for key, fact in self.facts().items() if key.folded() in folded}
        found = (self.fact(key) for key in folded)
        return {fact.key: fact for fact in found if fact is not None}

    def fact(self, key: FactKey) -> FactRow | None:
        """One fact, whatever the case of `key`."""
        row = _fact_row(self._db, key)
        return None if row is None else fact_from(row)

    def fact_history(self, key: FactKey) -> list[Row]:
        """Oldest first: kind (wanted, served), value, op, valid_from, recorded_from, recorded_to
        (None: still so), edit_id, generation, file_id, file (its name), reason."""
        row = _fact_row(self._db, key)
        sql = (
            "SELECT fact_history.*, files.name AS file FROM fact_history "
            "LEFT JOIN files ON files.id = fact_history.file_id WHERE fact_id = ? ORDER BY fact_history.id"
        )
        return [] if row is None else list(self._db.query(sql, [row["id"]]))

    def live_facts(self) -> list[Edit]:
        """The edits that make up the live generation, oldest first. Of several edits of one fact
        the last one counts; the earlier ones are in state superseded."""
        return self._edits(
            "JOIN generation_edits ON generation_edits.edit = edits.id "
            "JOIN generations ON generations.number = generation_edits.generation "
            "WHERE generations.state = 'live' ORDER BY generation_edits.position"
        )

    # queue

    def edits(self, states: Iterable[EditState] | None = None, key: FactKey | None = None) -> list[Edit]:
        """By id, those in one of `states` and of one fact when these are given."""
        wheres, args = ["1"], []
        if states is not None:
            wheres.append("edits.state IN (SELECT value FROM json_each(?))")
            args.append(json.dumps(list(states)))
        if key is not None:
            folded = key.folded()
            wheres.append("facts.folded_subject = ? AND facts.folded_relation = ?")
            args += [folded.subject, folded.relation]
        return self._edits(f"WHERE {' AND '.join(wheres)} ORDER BY edits.id", args)

    def edit(self, edit_id: int) -> Edit:
        """Raises `LedgerError` when there is none."""
        found = self._edits("WHERE edits.id = ?", [edit_id])
        if not found:
            raise LedgerError("read ledger", f"edit {edit_id}", "there is none", "see `palimpsest status`")
        return found[0]

    def due_edits(
        self, now: datetime, limit: int, without: Iterable[int] = (), like: Edit | None = None
    ) -> list[Edit]:
        """Pending edits whose time has come, less those of `without`: by priority, then effective_at,
        then id. `like`: only those that are of the same batch, or of none as that one is."""
        return self._edits(
            "WHERE edits.state = 'pending' AND (edits.effective_at IS NULL OR edits.effective_at <= ?) "
            "AND edits.id NOT IN (SELECT value FROM json_each(?)) AND (? OR edits.batch IS ?) "
            "ORDER BY CASE edits.priority WHEN 'high' THEN 0 WHEN 'normal' THEN 1 ELSE 2 END, "
            "edits.effective_at, edits.id LIMIT ?",
            [time_text(now), json.dumps(list(without)), like is None, like and like.batch, limit],
        )

    def due_counts(self, now: datetime, without: Iterable[int] = ()) -> dict[Priority, int]:
        """How many edits `due_edits` would find of each priority, had it no limit."""
        sql = (
            "SELECT priority, count(*) FROM edits WHERE state = 'pending' "
            "AND (effective_at IS NULL OR effective_at <= ?) "
            "AND id NOT IN (SELECT value FROM json_each(?)) GROUP BY priority"
        )
        counted = self._db.execute(sql, [time_text(now), json.dumps(list(without))]).fetchall()
        return {Priority(priority): count for priority, count in counted}

    def next_due_after(self, now: datetime) -> datetime | None:
        """When the next pending edit of the future takes effect."""
        sql = "SELECT min(effective_at) FROM edits WHERE state = 'pending' AND effective_at > ?"
        text = self._db.execute(sql, [time_text(now)]).fetchone()[0]
        return None if text is None else parse_time(text)

    def state_counts(self) -> dict[EditState, int]:
        """How many edits are in each state (states without edits included)."""
        counted = dict(self._db.execute("SELECT state, count(*) FROM edits GROUP BY state").fetchall())
        return {state: counted.get(state.value, 0) for state in EditState}

    def approvals(self, edit_ids: Iterable[int]) -> dict[int, list[Row]]:
        """By edit, who approved it, oldest first: actor, approved_at. Edits without any are left out."""
        sql = (
            "SELECT edit_id, actor, approved_at FROM approvals "
            "WHERE edit_id IN (SELECT value FROM json_each(?)) ORDER BY id"
        )
        found: dict[int, list[Row]] = {}
        for row in self._db.query(sql, [json.dumps(list(edit_ids))]):
            found.setdefault(row.pop("edit_id"), []).append(row)
        return found

    def drops_since(self, when: datetime) -> list[tuple[str, datetime, int]]:
        """Source, moment and count of the edits that files asked for since then; one moment is one file."""
        sql = (
            "SELECT source, dropped_at, count(*) FROM edits "
            "WHERE repeats IS NULL AND dropped_at >= ? GROUP BY dropped_at, source"
        )
        rows = self._db.execute(sql, [time_text(when)]).fetchall()
        return [(source, parse_time(at), count) for source, at, count in rows]

    def begun_since(self, when: datetime) -> list[tuple[int, str, datetime]]:
        """Edit, source and first outcome since then, of the edits that files asked for."""
        sql = (
            "SELECT edit_id, source, min(recorded_at) FROM outcomes JOIN edits ON edits.id = edit_id "
            "WHERE repeats IS NULL AND recorded_at > ? GROUP BY edit_id"
        )
        rows = self._db.execute(sql, [time_text(when)]).fetchall()
        return [(edit, source, parse_time(at)) for edit, source, at in rows]

    # outcomes

    def outcomes(self, edit_id: int) -> list[Row]:
        """Oldest first: id, state, reason, generation, verdict, verdict_reason, before, after,
        seconds (list of [stage, s]), localisation (list of dicts), freshness_seconds, recorded_at."""
        rows = self._db.table("outcomes").rows_where("edit_id = ?", [edit_id], order_by="id")
        return [decoded(row, "seconds", "localisation") for row in rows]

    def readings(self, edit_id: int | None = None, generation: int | None = None) -> list[Row]:
        """Oldest first: outcome_id, edit_id, generation, suite, verdict, reason, answers (list of
        dicts), and value, low, high, n, which are None for a suite that wasn't measured."""
        where = "(:edit IS NULL OR edit_id = :edit) AND (:generation IS NULL OR generation = :generation)"
        args = {"edit": edit_id, "generation": generation}
        rows = self._db.table("readings").rows_where(where, args, order_by="id")
        return [decoded(row, "answers") for row in rows]

    def generation_readings(self) -> dict[int, list[Reading]]:
        """What was measured of each generation that an edit made, by number; without the answers."""
        sql = (
            "SELECT generation, suite, value, low, high, n FROM readings WHERE generation IS NOT NULL "
            "AND value IS NOT NULL AND low IS NOT NULL AND high IS NOT NULL ORDER BY id"
        )
        found: dict[int, list[Reading]] = {}
        for number, suite, *numbers in self._db.execute(sql).fetchall():
            found.setdefault(number, []).append(Reading(Suite(suite), *numbers))
        return found

    def newest_outcome(self) -> int:
        """The id of the newest outcome, 0 when there is none: readings only change with it."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM outcomes").fetchone()[0])

    def soft_forgetting(self, edit_id: int) -> list[Row]:
        """Oldest first: outcome_id, edit_id, measure, before, after (None: no number), n, answers
        (list of dicts), recorded_at."""
        rows = self._db.table("soft_forgetting").rows_where("edit_id = ?", [edit_id], order_by="id")
        return [decoded(row, "answers") for row in rows]

    # generations

    def next_generation_number(self) -> int:
        """One more than the highest ever inserted; 0 is the base."""
        return int(self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM generations").fetchone()[0])

    def generation(self, number: int) -> Generation:
        """Raises `LedgerError` when there is none."""
        found = self._generations("number = ?", [number])
        if not found:
            hint = "see `palimpsest history`"
            raise LedgerError("read ledger", f"generation {number}", "there is none", hint)
        return found[0]

    def generations(self) -> list[Generation]:
        """All, by number."""
        return self._generations("1")

    def live_generation(self) -> Generation | None:
        return next(iter(self._generations("state = 'live'")), None)

    def generation_as_of(self, when: datetime) -> Generation | None:
        """The generation that was live then."""
        text = time_text(when)
        where = "live_from <= ? AND (live_until IS NULL OR live_until > ?)"
        spans = self._db.table("generation_spans").rows_where(
            where, [text, text], order_by="id DESC", limit=1
        )
        return next((self.generation(span["generation"]) for span in spans), None)

    def live_spans(self, number: int | None = None) -> list[Row]:
        """When which generation was live, oldest first: generation, live_from, live_until, reason."""
        where = ":number IS NULL OR generation = :number"
        return list(self._db.table("generation_spans").rows_where(where, {"number": number}, order_by="id"))

    def referenced_blobs(self) -> set[str]:
        """Every blob that an edit or a generation names (what `BlobStore.gc` must keep)."""
        sql = "SELECT delta_blob FROM edits UNION SELECT theta_blob FROM generations"
        return {row[0] for row in self._db.execute(sql).fetchall() if row[0] is not None}

    # control

    def open_intents(self) -> list[Row]:
        """Oldest first: id, kind, args (dict), actor, created_at, result (dict: what was done of it
        before it was cut off; else None)."""
        rows = self._db.table("intents").rows_where("finished_at IS NULL", order_by="id")
        return [decoded(row, "args", "result") for row in rows]

    def intent(self, intent_id: int) -> Row:
        """Also result (dict or None) and finished_at. Raises `LedgerError` when there is none."""
        found = self.find_intent(intent_id)
        if found is None:
            raise LedgerError("read ledger", f"order {intent_id}", "there is none")
        return found

    def find_intent(self, intent_id: int) -> Row | None:
        """As `intent`, None when there is none."""
        rows = self._db.table("intents").rows_where("id = ?", [intent_id])
        return next((decoded(row, "args", "result") for row in rows), None)

    def get_setting(self, name: str, default: Any = None) -> Any:
        for row in self._db.table("settings").rows_where("name = ?", [name]):
            return json.loads(row["value"])
        return default

    def setting_changed_at(self, name: str) -> datetime | None:
        for row in self._db.table("settings").rows_where("name = ?", [name]):
            return parse_time(row["updated_at"])
        return None

    def last_times(self) -> dict[str, datetime]:
        """When a file was last accepted (`ingest`), an edit last came to a good end (`edit`) and another
        generation last became the live one (`publish`); what never happened is left out."""
        newest = {
            "ingest": "SELECT received_at FROM files WHERE status <> 'rejected'",
            "edit": "SELECT recorded_at FROM outcomes WHERE state IN ('live', 'already_known')",
            "publish": "SELECT live_from FROM generation_spans",
        }
        found = {}
        for name, sql in newest.items():
            for row in self._db.execute(f"{sql} ORDER BY id DESC LIMIT 1").fetchall():
                found[name] = parse_time(row[0])
        return found

    # audit

    def newest_event(self) -> int:
        """The id of the newest audit event: nothing changes without one."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()[0])

    def audit_events(self, limit: int = 100, subject: str | None = None) -> list[Row]:
        """The newest `limit`, oldest first: id, at, event, subject, detail (dict), previous, hash."""
        where = ":subject IS NULL OR subject = :subject"
        rows = self._db.table("audit").rows_where(
            where, {"subject": subject}, order_by="id DESC", limit=limit
        )
        return [decoded(row, "detail") for row in rows][::-1]

    def verify_audit(self) -> int | None:
        """The id of the first event that doesn't fit the hash chain, or None."""
        return audit.verify(self._db.table("audit").rows_where(order_by="id"))

    def follow_audit(self, link: audit.Link, limit: int) -> tuple[audit.Link, int | None]:
        """Check the next `limit` events after `link`, as `store.audit.follow`."""
        rows = self._db.table("audit").rows_where("id > ?", [link.id], order_by="id", limit=limit)
        return audit.follow(rows, link)

    def integrity(self) -> list[str]:
        """Faults found by SQLite (integrity and foreign keys) and by the audit chain."""
        with faults("check ledger", "its pages"):
            found = integrity_faults(self._db)
            broken = self.verify_audit()
        return [*found, f"audit event {broken} doesn't fit the chain"] if broken is not None else found

    # parts

    def _edits(self, tail: str, args: Sequence[object] = ()) -> list[Edit]:
        return [edit_from(row) for row in self._db.query(f"{_EDITS} {tail}", list(args))]

    def _generations(self, where: str, args: Sequence[object] = ()) -> list[Generation]:
        rows = list(self._db.table("generations").rows_where(where, list(args), order_by="number"))
        return [generation_from(row, edits_of(self._db, row["number"])) for row in rows]


def edits_of(db: Database, generation: int) -> list[int]:
    """The ids of a generation's edits, in order."""
    sql = "SELECT edit FROM generation_edits WHERE generation = ? ORDER BY position"
    return [row[0] for row in db.execute(sql, [generation]).fetchall()]


def _fact_row(db: Database, key: FactKey) -> Row | None:
    folded = key.folded()
    where = "folded_subject = ? AND folded_relation = ?"
    return next(db.table("facts").rows_where(where, [folded.subject, folded.relation]), None)
