"""What can be asked of the ledger: reads only, each one statement or one consistent view.

Knows the tables. Doesn't write, doesn't know the clock.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from store.facts import Edit, EditState, FactKey, FactRow, Generation

Row = dict[str, Any]


class LedgerQueries:
    """The reading half of `store.ledger.Ledger`. Times in rows are RFC 3339 text in UTC."""

    # files

    def file_seen(self, sha256: str) -> Row | None:
        """The newest record of these bytes, an accepted one first: id, sha256, name, size, status
        (accepted, partial, rejected), error (dict or None), counts (dict), received_at."""
        raise NotImplementedError

    def file_rows(self, file_id: int) -> list[Row]:
        """The rows of a file: line, subject, relation, object, op, row_class, reason, edit_id."""
        raise NotImplementedError

    # facts

    def facts(self, keys: Iterable[FactKey] | None = None) -> dict[FactKey, FactRow]:
        """All facts, or those of `keys` (any case), by the key as the ledger spells it."""
        raise NotImplementedError

    def fact(self, key: FactKey) -> FactRow | None:
        """One fact, whatever the case of `key`."""
        raise NotImplementedError

    def fact_history(self, key: FactKey) -> list[Row]:
        """Oldest first: kind (wanted, served), value, op, valid_from, recorded_from, recorded_to
        (None: still so), edit_id, generation, file_id, reason."""
        raise NotImplementedError

    def live_facts(self) -> list[Edit]:
        """The edits that make up the live generation, oldest first."""
        raise NotImplementedError

    # queue

    def edits(self, states: Iterable[EditState] | None = None, key: FactKey | None = None) -> list[Edit]:
        raise NotImplementedError

    def edit(self, edit_id: int) -> Edit:
        """Raises `LedgerError` when there is none."""
        raise NotImplementedError

    def due_edits(self, now: datetime, limit: int) -> list[Edit]:
        """Pending edits whose time has come: by priority, then effective_at, then id."""
        raise NotImplementedError

    def next_due_after(self, now: datetime) -> datetime | None:
        """When the next pending edit of the future takes effect."""
        raise NotImplementedError

    def state_counts(self) -> dict[EditState, int]:
        """How many edits are in each state (states without edits included)."""
        raise NotImplementedError

    # outcomes

    def outcomes(self, edit_id: int) -> list[Row]:
        """Oldest first: state, reason, generation, verdict, verdict_reason, suites, before, after,
        seconds (list of [stage, s]), localisation (list of dicts), freshness_seconds, recorded_at."""
        raise NotImplementedError

    def readings(self, edit_id: int | None = None, generation: int | None = None) -> list[Row]:
        """Oldest first: edit_id, generation, suite, value, low, high, n, verdict, reason, answers."""
        raise NotImplementedError

    # generations

    def next_generation_number(self) -> int:
        """Never reused, also not after a generation was deleted; 0 is the base."""
        raise NotImplementedError

    def generation(self, number: int) -> Generation:
        """Raises `LedgerError` when there is none."""
        raise NotImplementedError

    def generations(self) -> list[Generation]:
        raise NotImplementedError

    def live_generation(self) -> Generation | None:
        raise NotImplementedError

    def generation_as_of(self, when: datetime) -> Generation | None:
        """The generation that was live then."""
        raise NotImplementedError

    def referenced_blobs(self) -> set[str]:
        """Every blob that an edit or a generation names (what `BlobStore.gc` must keep)."""
        raise NotImplementedError

    # control

    def open_intents(self) -> list[Row]:
        """Oldest first: id, kind, args (dict), actor, created_at."""
        raise NotImplementedError

    def intent(self, intent_id: int) -> Row:
        """Also result (dict or None) and finished_at. Raises `LedgerError` when there is none."""
        raise NotImplementedError

    def get_setting(self, name: str, default: Any = None) -> Any:
        raise NotImplementedError

    # audit

    def audit_events(self, limit: int = 100, subject: str | None = None) -> list[Row]:
        """The newest `limit`, oldest first: id, at, event, subject, detail (dict), previous, hash."""
        raise NotImplementedError

    def verify_audit(self) -> int | None:
        """The id of the first event that doesn't fit the hash chain, or None."""
        raise NotImplementedError

    def integrity(self) -> list[str]:
        """Faults found by SQLite (integrity and foreign keys) and by the audit chain."""
        raise NotImplementedError
