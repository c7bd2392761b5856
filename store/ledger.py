"""The ledger: the only writer of what is true (facts, queue, outcomes, generations, intents, audit).

Knows SQL transactions and which state may follow which. Doesn't know the clock (every write takes
`now`), threads, files of facts, or weights. Reads live in `store.queries`, which `Ledger` extends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self, Unpack

from sqlite_utils import Database

from store import approvals, intake
from store.connection import copy_to, open_reader, open_writer, transaction
from store.errors import FactFileError, LedgerError
from store.facts import DiffRow, Edit, EditState, Generation, Outcome, RowClass
from store.journal import Event, append
from store.moves import move
from store.outcomes import add_outcome
from store.queries import LedgerQueries
from store.results import EditFields, FileResult, GenerationFields, Move, RecordedRow
from store.rows import Row, to_json
from store.switch import note_done, switch
from store.times import time_text
from store.transitions import UNFINISHED, require_state


class Ledger(LedgerQueries):
    """One writing connection, used by the thread that opened it. Raises `LedgerError`."""

    def __init__(self, db: Database, *, readonly: bool = False) -> None:
        super().__init__(db)
        self._readonly = readonly

    @classmethod
    def open(cls, path: Path, *, backups: Path | None = None) -> Self:
        """Open for writing; create or migrate. An existing ledger is copied into `backups`
        (`VACUUM INTO`) before it is migrated."""
        return cls(open_writer(path, backups))

    @classmethod
    def open_readonly(cls, path: Path) -> Self:
        """Open for reading; refuses a ledger that is missing or needs a migration."""
        return cls(open_reader(path), readonly=True)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One `BEGIN IMMEDIATE` transaction; not nestable. Internal to the store."""
        if self._readonly:
            raise LedgerError("write ledger", "connection", "it was opened for reading only")
        with transaction(self._db) as db:
            yield db

    def try_to_write(self) -> None:
        """Raises LedgerError when nobody could write now. Changes nothing."""
        with self.write():
            pass

    # files

    def record_file(
        self,
        sha256: str,
        name: str,
        size: int,
        rows: Sequence[DiffRow],
        *,
        now: datetime,
        partial: bool = False,
    ) -> FileResult:
        """Everything an accepted file changes, in one transaction: the file, its rows, wanted
        values and their history, pending edits for NEW, CHANGED and RETRACTED rows, older waiting
        edits of the same keys superseded. Bytes that were accepted before change nothing."""
        with self.write() as db:
            seen = self.file_seen(sha256)
            duplicate = seen is not None and seen["status"] != "rejected"
            if seen is not None and duplicate:
                file_id, records = int(seen["id"]), self.file_rows(seen["id"])
            else:
                file_id, records = intake.add_file(db, sha256, name, size, rows, now, partial=partial)
        return FileResult(file_id, tuple(_recorded(record) for record in records), duplicate)

    def record_bad_file(
        self, sha256: str, name: str, size: int, error: FactFileError, *, now: datetime
    ) -> int:
        """Record a refused file; returns its id."""
        with self.write() as db:
            file_id = intake.insert_file(
                db, sha256, name, size, now, status="rejected", error=error.as_dict(), counts={}
            )
            # Without the excerpt: the audit is for ever, and refused text has no place in it.
            detail = {"file": file_id, "code": error.code, "line": error.line, "column": error.column}
            append(db, now, [Event("file.rejected", f"file:{sha256}", detail)])
        return file_id

    # queue

    def transition(
        self,
        edit_id: int,
        to: EditState,
        *,
        reason: str,
        now: datetime,
        from_: EditState | None = None,
        order: int | None = None,
        **fields: Unpack[EditFields],
    ) -> Edit:
        """Move an edit to another state (`store.transitions` says which are legal), set `fields`,
        audit. With `from_`, the edit must be in that state; `order` is the open one that asked for it."""
        with self.write() as db:
            move(db, self.edit(edit_id), to, reason, now, fields, from_)
            note_done(db, order, {"edit": edit_id, "state": to.value})
        return self.edit(edit_id)

    def transition_all(self, to: EditState, moves: Sequence[Move], *, now: datetime) -> list[Edit]:
        """Move several edits to one state, all of them or none; returns them in the order given."""
        with self.write() as db:
            for each in moves:
                move(db, self.edit(each.edit), to, each.reason, now, each.fields)
        return [self.edit(each.edit) for each in moves]

    def requeue(self, edit_id: int, *, reason: str, now: datetime, counts: bool = True) -> Edit:
        """editing | judged -> pending: work that was cut off. Whether that `counts` as an attempt
        depends on whose fault it was."""
        edit = self.edit(edit_id)
        require_state(edit, {EditState.EDITING, EditState.JUDGED}, "put back")
        attempt = edit.attempt if counts else max(edit.attempt - 1, 0)
        return self.transition(edit_id, EditState.PENDING, reason=reason, now=now, attempt=attempt)

    def retry(
        self, edit_id: int, *, reason: str, now: datetime, recipe: str | None = None, order: int | None = None
    ) -> Edit:
        """held | failed | rolled_back -> pending: work that is to be tried again, from its first
        attempt, and by itself. Refused when the ledger wants something else of the fact by now."""
        edit = self.edit(edit_id)
        require_state(edit, {EditState.HELD, EditState.FAILED, EditState.ROLLED_BACK}, "retry")
        fact = self.fact(edit.key)
        if fact is None or (fact.wanted_op, fact.wanted) != (edit.op, edit.new):
            raise LedgerError(
                "retry", f"edit {edit_id}", "a newer update of this fact came since", "drop a file instead"
            )
        fields: EditFields = {"attempt": 0, "batch": edit_id}
        if recipe is not None:
            fields["recipe"] = recipe
        return self.transition(edit_id, EditState.PENDING, reason=reason, now=now, order=order, **fields)

    def repeat(self, edit_id: int, *, reason: str, now: datetime) -> Edit:
        """A new pending edit with the content of another one: a live fact that was lost. When the
        fact already has an unfinished edit, that one is returned and nothing is written."""
        with self.write() as db:
            unfinished = self.edits(UNFINISHED, self.edit(edit_id).key)
            if unfinished:
                return unfinished[-1]
            row = next(db.table("edits").rows_where("id = ?", [edit_id]))
            made = {
                "state": "pending", "attempt": 0, "recipe": "default", "generation": None, "delta_blob": None,
                "reason": reason, "dropped_at": time_text(now), "updated_at": time_text(now),
                "repeats": edit_id, "batch": None,
            }  # fmt: skip
            del row["id"]
            new_id = int(db.table("edits").insert(row | made).last_rowid or 0)
            detail = {"to": "pending", "repeats": edit_id, "reason": reason}
            append(db, now, [Event("edit.pending", f"edit:{new_id}", detail)])
        return self.edit(new_id)

    def approve(
        self, edit_ids: Sequence[int], *, actor: str, now: datetime, order: int | None = None
    ) -> None:
        """Note that `actor` (`UID:NAME`) lets these edits through, all of them or none. Refused for an
        edit that doesn't wait and for one that this user approved before."""
        edits = [self.edit(edit_id) for edit_id in dict.fromkeys(edit_ids)]
        for edit in edits:
            require_state(edit, {EditState.PENDING}, "approve")
        with self.write() as db:
            approvals.add(db, [edit.id for edit in edits], actor, now)
            note_done(db, order, {"approved": [edit.id for edit in edits]})

    # outcomes

    def record_outcome(self, outcome: Outcome, *, now: datetime) -> int:
        """Store an outcome and its readings; returns the outcome's id. Moves no edit."""
        with self.write() as db:
            return add_outcome(db, outcome, now)

    # generations

    def insert_generation(self, generation: Generation, now: datetime) -> None:
        """Insert an intent row (`building`), or the base as generation 0 with state `live`."""
        number, state = generation.number, generation.state
        if state not in {"building", "live"} or (state == "live" and self.generations()):
            cause = f"it can't begin as {state}"
            raise LedgerError("insert generation", f"generation {number}", cause)
        with self.write() as db:
            row = {
                "number": number, "parent": generation.parent, "state": "building",
                "weights_sha256": generation.weights_sha256, "theta_blob": generation.theta_blob,
                "created_at": time_text(generation.created_at), "reason": generation.reason,
                "pinned": int(generation.pinned),
            }  # fmt: skip
            db.table("generations").insert(row)
            _set_edits(db, number, generation.edits)
            detail = {
                "edits": list(generation.edits),
                "parent": generation.parent,
                "theta": generation.theta_blob,
            }
            append(db, now, [Event("generation.building", f"generation:{number}", detail)])
            if state == "live":
                event = "generation.live"
                switch(db, number, now, generation.reason, event=event, leave="retired", trigger="init")

    def set_generation_state(
        self, number: int, state: str, now: datetime, reason: str, **fields: Unpack[GenerationFields]
    ) -> Generation:
        """Any change of state but to or from `live` (see `promote`, `roll_back`)."""
        before = self.generation(number)
        if before.state != state and "live" in {before.state, state}:
            cause = f"{before.state} to {state} is not done this way"
            raise LedgerError("change generation", f"generation {number}", cause, "promote or roll back")
        with self.write() as db:
            change: Row = {"state": state, "reason": reason, **fields}
            edits = change.pop("edits", None)
            db.table("generations").update(number, change)
            if edits is not None:
                _set_edits(db, number, edits)
            detail = {"from": before.state, "reason": reason, "fields": dict(fields)}
            append(db, now, [Event(f"generation.{state}", f"generation:{number}", detail)])
        return self.generation(number)

    def pin(self, number: int, pinned: bool, *, now: datetime) -> Generation:
        """Keep a generation whatever the keep policy says, or no longer."""
        self.generation(number)
        with self.write() as db:
            db.table("generations").update(number, {"pinned": int(pinned)})
            append(db, now, [Event("generation.pinned", f"generation:{number}", {"pinned": pinned})])
        return self.generation(number)

    def promote(
        self,
        number: int,
        *,
        now: datetime,
        reason: str,
        edits: Sequence[int] = (),
        rolled_back: bool = False,
        order: int | None = None,
    ) -> Generation:
        """Make a built generation live, in one transaction: the live one becomes retired (or
        rolled_back); edits of the new one become live; edits that only the old one held become
        superseded (a newer edit of their fact is live) or rolled_back; facts' values follow.
        `edits`, when given, replaces the edits the generation was inserted with; `order` is the open
        one that asked for it."""
        self._require_generation(number, {"building"}, "promote")
        with self.write() as db:
            if edits:
                _set_edits(db, number, edits)
            leave, trigger = ("rolled_back", "rollback") if rolled_back else ("retired", "edit")
            event = "generation.live"
            switch(db, number, now, reason, event=event, leave=leave, trigger=trigger, order=order)
        return self.generation(number)

    def roll_back(
        self, to_number: int, *, now: datetime, reason: str, trigger: str, order: int | None = None
    ) -> Generation:
        """Make an earlier generation live again; the live one becomes rolled_back, edits follow as
        in `promote`. `trigger` says who or what asked, `order` which open order."""
        self._require_generation(to_number, {"retired", "rolled_back"}, "roll back")
        with self.write() as db:
            event = "generation.rollback"
            switch(db, to_number, now, reason, event=event, leave="rolled_back", trigger=trigger, order=order)
        return self.generation(to_number)

    def _require_generation(self, number: int, states: set[str], operation: str) -> None:
        state = self.generation(number).state
        if state not in states:
            raise LedgerError(
                operation, f"generation {number}", f"it is {state}", f"it must be {sorted(states)}"
            )

    # control

    def add_intent(self, kind: str, args: Mapping[str, object], *, now: datetime, actor: str) -> int:
        """Note an order; whoever holds the state directory carries it out. Returns its id."""
        row = {"kind": kind, "args": to_json(dict(args)), "actor": actor, "created_at": time_text(now)}
        with self.write() as db:
            intent_id = int(db.table("intents").insert(row).last_rowid or 0)
            detail = {"kind": kind, "args": dict(args), "actor": actor}
            append(db, now, [Event("order.given", f"order:{intent_id}", detail)])
        return intent_id

    def finish_intent(self, intent_id: int, result: Mapping[str, object], now: datetime) -> None:
        """Note what came of an order. Refused for one that is finished."""
        with self.write() as db:
            if self.intent(intent_id)["finished_at"] is not None:
                raise LedgerError("finish order", f"order {intent_id}", "it is finished already")
            change = {"result": to_json(dict(result)), "finished_at": time_text(now)}
            db.table("intents").update(intent_id, change)
            append(db, now, [Event("order.finished", f"order:{intent_id}", dict(result))])

    def set_setting(self, name: str, value: object, *, now: datetime) -> None:
        """`value` is anything JSON can hold."""
        with self.write() as db:
            row = {"name": name, "value": to_json(value), "updated_at": time_text(now)}
            db.table("settings").insert(row, replace=True)
            append(db, now, [Event("setting.changed", f"setting:{name}", {"value": value})])

    # audit, backup

    def audit_append(
        self, event: str, detail: Mapping[str, object], now: datetime, *, subject: str = ""
    ) -> int:
        """Append one event; returns its id. `subject` is `edit:12`, `generation:3`, `file:SHA`, ..."""
        with self.write() as db:
            return append(db, now, [Event(event, subject, detail)])

    def backup(self, to: Path) -> None:
        """A consistent copy (`VACUUM INTO`), on disk when this returns; replaces `to`."""
        copy_to(self._db, to)


def _recorded(record: Row) -> RecordedRow:
    return RecordedRow(record["line"], RowClass(record["row_class"]), record["edit_id"], record["reason"])


def _set_edits(db: Database, number: int, edits: Sequence[int]) -> None:
    table = db.table("generation_edits")
    table.delete_where("generation = ?", [number])
    table.insert_all({"generation": number, "position": i, "edit": edit} for i, edit in enumerate(edits))
