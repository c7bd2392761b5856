"""The tables, their migrations and what keeps them honest."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store import connection, schema
from store.audit import FIRST, event_hash, verify
from store.errors import LedgerError
from store.facts import EditState, Latent, LatentReading, Outcome
from store.ledger import Ledger
from store.schema import migrations
from tests.store.builders import NOW, drop, opened, update

TABLES = {
    "approvals", "audit", "edits", "fact_history", "facts", "files", "generation_edits", "generation_spans",
    "generations", "intents", "outcomes", "readings", "records", "settings", "soft_forgetting",
}  # fmt: skip


def test_the_schema_is_what_the_migrations_make(ledger: Ledger) -> None:
    """A new ledger has these tables, all STRICT, and nothing more to migrate."""
    with ledger.write() as db:
        made = {row[1]: row[5] for row in db.execute("PRAGMA table_list").fetchall() if row[2] == "table"}
        assert {name for name in made if not name.startswith(("sqlite_", "_"))} == TABLES
        assert all(made[name] for name in TABLES)
        assert migrations().pending(db) == []


def test_the_connection_is_durable_and_strict(ledger: Ledger) -> None:
    """WAL, synchronous FULL, foreign keys, a busy timeout, no trusted schema."""
    pragmas = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "trusted_schema": 0,
    }
    assert {name: ledger._db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas} == pragmas
    with pytest.raises(LedgerError, match="FOREIGN KEY"), ledger.write() as db:
        db.table("generation_edits").insert({"generation": 0, "position": 0, "edit": 99})


def test_only_the_owner_reads_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """The ledger and its side files hold facts that may be private: mode 0600."""
    drop(ledger, update("Peru", "Lima"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("ledger.sqlite*")}
    assert modes == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), 0o600)


def newer() -> Migrations:
    steps = migrations()

    @steps()
    def m998_more(db: Database) -> None:
        db.execute("CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT")

    return steps


def failing() -> Migrations:
    steps = newer()

    @steps()
    def m999_broken(db: Database) -> None:
        db.execute("CREATE TABLE half (id INTEGER PRIMARY KEY) STRICT")
        raise sqlite3.OperationalError("disk I/O error")

    return steps


def test_an_old_ledger_is_copied_before_it_is_migrated(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy holds the ledger as it was; the migrated one has the new table and all facts."""
    drop(ledger, update("Peru", "Lima"))
    ledger.close()
    monkeypatch.setattr(connection, "migrations", newer)
    with pytest.raises(LedgerError, match="made by an older version"):
        Ledger.open_readonly(tmp_path / "ledger.sqlite")
    with Ledger.open(tmp_path / "ledger.sqlite", backups=tmp_path / "backups") as migrated:
        assert migrated._db.table("more").exists()
        assert migrated.edit(1).new == "Lima"
    with closing(sqlite3.connect(tmp_path / "backups" / "before-m998_more.sqlite")) as copy:
        assert copy.execute("SELECT count(*) FROM edits").fetchone() == (1,)
        assert copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'more'").fetchone() is None
    monkeypatch.undo()
    with pytest.raises(LedgerError, match="made by a newer version"):
        Ledger.open(tmp_path / "ledger.sqlite", backups=None)


def first_only() -> Migrations:
    """The migrations of version 0.1.0's first ledgers."""
    steps = Migrations("palimpsest")

    @steps()
    def m001_first_ledger(db: Database) -> None:
        schema._run(db, schema._FIRST)

    return steps


def test_a_first_ledger_learns_to_hold_soft_forgetting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger made before the table existed keeps its facts and audit, and takes readings of it."""
    monkeypatch.setattr(connection, "migrations", first_only)
    with opened(tmp_path) as old:
        drop(old, update("Peru", "Lima"))
        assert not old._db.table("soft_forgetting").exists()
        events = old.audit_events(1000)
    monkeypatch.undo()
    with Ledger.open(tmp_path / "ledger.sqlite", backups=tmp_path / "backups") as ledger:
        assert (ledger.edit(1).new, ledger.audit_events(1000)) == ("Lima", events)
        assert ledger.soft_forgetting(1) == []
        found = (LatentReading(Latent.PRESSURE, 1.0, 0.5, 2),)
        ledger.record_outcome(
            Outcome(ledger.edit(1), EditState.HELD, "r", None, None, "", "", soft_forgetting=found), now=NOW
        )
        assert [row["after"] for row in ledger.soft_forgetting(1)] == [0.5]
        assert ledger.integrity() == []
    assert (tmp_path / "backups" / "before-m002_soft_forgetting.sqlite").is_file()


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed step is undone, stays pending, and says why; the steps before it stay."""
    ledger.close()
    monkeypatch.setattr(connection, "migrations", failing)
    with pytest.raises(LedgerError, match="disk I/O error"):
        Ledger.open(tmp_path / "ledger.sqlite", backups=tmp_path / "backups")
    monkeypatch.setattr(connection, "migrations", newer)
    with Ledger.open(tmp_path / "ledger.sqlite", backups=None) as opened_again:
        assert not opened_again._db.table("half").exists()


def test_files_that_are_no_ledger_are_left_alone(tmp_path: Path) -> None:
    """Another SQLite file, or one that is none, is refused and not changed."""
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    before = other.read_bytes()
    with pytest.raises(LedgerError, match="isn't a ledger"):
        Ledger.open(other, backups=None)
    assert other.read_bytes() == before
    noise = tmp_path / "noise.sqlite"
    noise.write_bytes(b"noise" * 1000)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(noise, backups=None)
    with pytest.raises(LedgerError, match="there is none"):
        Ledger.open_readonly(tmp_path / "missing.sqlite")


def test_a_backup_is_a_whole_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """A backup opens as a ledger with the same audit, and replaces an older one."""
    drop(ledger, update("Peru", "Lima"))
    for _ in range(2):
        ledger.backup(tmp_path / "backups" / "copy.sqlite")
    with Ledger.open(tmp_path / "backups" / "copy.sqlite", backups=None) as copy:
        assert copy.audit_events(1000) == ledger.audit_events(1000)
        assert copy.integrity() == []
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["copy.sqlite"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET event = 'x' WHERE id = 2",
        "DELETE FROM audit WHERE id = 2",
        "INSERT OR REPLACE INTO audit SELECT id, '', '', '', '', '', '' FROM audit WHERE id = 2",
    ],
)
def test_the_audit_refuses_changes(ledger: Ledger, sql: str) -> None:
    """Triggers stop updates, deletions and replacements of audit events."""
    with pytest.raises(LedgerError, match="audit events are never"), ledger.write() as db:
        db.execute(sql)
    assert ledger.verify_audit() is None


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        ("UPDATE audit SET detail = '{}' WHERE id = 2", 2),
        ("UPDATE audit SET at = '2020' WHERE id = 3", 3),
        ("DELETE FROM audit WHERE id = 2", 3),
        ("UPDATE audit SET id = 20 WHERE id = 4", 20),
    ],
)
def test_tampering_is_found(ledger: Ledger, sql: str, broken: int) -> None:
    """Whoever removes the triggers still breaks the chain, at the event that doesn't fit."""
    drop(ledger, update("Peru", "Lima"))
    assert len(ledger.audit_events(1000)) == 4
    with ledger.write() as db:
        for trigger in ("audit_no_update", "audit_no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(sql)
    assert ledger.verify_audit() == broken
    assert ledger.integrity() == [f"audit event {broken} doesn't fit the chain"]


def test_the_chain_covers_every_field_apart() -> None:
    """Moving text from one field to the next changes the hash."""
    one = event_hash(FIRST, 1, "t", "ab", "c", "{}")
    assert one != event_hash(FIRST, 1, "t", "a", "bc", "{}")
    row = {"id": 1, "at": "t", "event": "ab", "subject": "c", "detail": "{}", "previous": FIRST, "hash": one}
    assert verify([row]) is None
    assert verify([]) is None


def test_subjects_filter_the_audit(ledger: Ledger) -> None:
    """One can ask for the events of one subject; the newest come last."""
    drop(ledger, update("Peru", "Lima"))
    number = ledger.audit_append("edit.note", {"by": "me"}, NOW, subject="edit:1")
    found = ledger.audit_events(10, subject="edit:1")
    assert [event["event"] for event in found] == ["edit.pending", "edit.note"]
    assert (found[-1]["id"], found[-1]["detail"]) == (number, {"by": "me"})
