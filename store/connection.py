"""A SQLite connection as the ledger wants it: durable, strict about references, migrated.

Knows pragmas, transactions, backups and migrations. Doesn't know what the tables mean.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from store.disk import fsync_dir, fsync_file, make_dirs
from store.errors import LedgerError
from store.failpoints import reach
from store.schema import migrations
from store.trouble import Trouble, trouble_of

APPLICATION_ID = 0x50414C49  # "PALI"
BUSY_SECONDS = 30.0
_HINTS: dict[Trouble | None, str] = {
    Trouble.LOCKED: "another process writes; try again",
    Trouble.FULL: "make room on the disk; nothing was written",
    Trouble.BROKEN: "check the disk, the rights of the files and the kernel's log",
}


def open_writer(path: Path, backups: Path | None) -> Database:
    """Open or create a ledger, with all migrations applied. Before an existing one is migrated it is
    copied to `backups/before-MIGRATION.sqlite`; a copy that is there already is kept."""
    make_dirs(path.parent)
    existed = path.exists()
    if not existed:
        path.touch(0o600)  # facts may be private; SQLite gives its -wal and -shm the same rights
        fsync_dir(path.parent)
        reach("ledger.created")
    with faults("open ledger", path):
        db = _connect(path, "rwc")
        try:
            _refuse_foreign(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _migrate(db, path, backups if existed else None)
        except BaseException:
            db.close()
            raise
    return db


def open_reader(path: Path) -> Database:
    """Open an existing, fully migrated ledger that can't be changed through this connection."""
    if not path.exists():
        raise LedgerError("open ledger", str(path), "there is none", "run `palimpsest init` first")
    with faults("open ledger", path):
        db = _connect(path, "ro")
        try:
            db.execute("PRAGMA query_only = ON")
            _refuse_foreign(db, path)
            if _pending(db, path):
                hint = "start the daemon once, it migrates the ledger"
                raise LedgerError("open ledger", str(path), "it was made by an older version", hint)
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def transaction(db: Database) -> Iterator[Database]:
    """`BEGIN IMMEDIATE` ... `COMMIT`; rolled back on any error. A deferred transaction that reads
    and then writes can fail at once with "database is locked", so there are none."""
    if db.conn.in_transaction:
        raise LedgerError(
            "write ledger", "transaction", "another one is open", "this is a bug: don't nest writes"
        )
    with faults("write ledger", "transaction"):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            reach("ledger.commit")
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise
    reach("ledger.committed")


def insert_many(db: Database, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of equal keys; five times as quick as sqlite-utils' insert_all, which looks at
    the type of every value. Table and keys are the code's own, never input."""
    if rows:
        names = ", ".join(rows[0])
        places = ", ".join(f":{name}" for name in rows[0])
        db.conn.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)


def copy_to(db: Database, to: Path) -> None:
    """A consistent copy (`VACUUM INTO`) that is on disk when it gets its name."""
    make_dirs(to.parent)
    temporary = to.with_name(f".{to.name}.tmp")
    temporary.unlink(missing_ok=True)
    with faults("back up ledger", to):
        try:
            db.execute("VACUUM INTO ?", [str(temporary)])
            temporary.chmod(0o600)
            reach("backup.copied")
            fsync_file(temporary)
            reach("backup.fsynced")
            temporary.replace(to)
        finally:
            temporary.unlink(missing_ok=True)
    fsync_dir(to.parent)


@contextmanager
def faults(operation: str, subject: object) -> Iterator[None]:
    """SQLite's errors as an operator's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = _HINTS.get(trouble_of(error), "check the disk")
        raise LedgerError(operation, str(subject), str(error), hint) from error
    except sqlite3.IntegrityError as error:
        raise LedgerError(operation, str(subject), str(error), "nothing was written") from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(operation, str(subject), str(error), "restore it from a backup") from error


def _connect(path: Path, mode: str) -> Database:
    # isolation_level None: Python opens no transactions of its own (they'd be deferred).
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    db = Database(connection, execute_plugins=False, strict=True)
    for pragma in (f"busy_timeout = {int(BUSY_SECONDS * 1000)}", "foreign_keys = ON", "trusted_schema = OFF"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _refuse_foreign(db: Database, path: Path) -> None:
    """Don't touch a database that isn't a ledger."""
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION_ID and db.table_names():
        raise LedgerError(
            "open ledger", str(path), "this SQLite file isn't a ledger", "check the state directory"
        )


def _pending(db: Database, path: Path) -> list[str]:
    """Migrations to come; refuses a ledger that has some which this version doesn't know."""
    steps = migrations()
    with closing(Database(memory=True)) as empty:
        known = {step.name for step in steps.pending(empty)}
    if unknown := sorted({step.name for step in steps.applied(db)} - known):
        cause = f"it was made by a newer version (it has {', '.join(unknown)})"
        raise LedgerError("open ledger", str(path), cause, "upgrade this installation")
    return [step.name for step in steps.pending(db)]


def _migrate(db: Database, path: Path, backups: Path | None) -> None:
    pending = _pending(db, path)
    if not pending:
        return
    if backups is not None and migrations().applied(db):
        copy = backups / f"before-{pending[0]}.sqlite"
        if not copy.exists():
            copy_to(db, copy)
        reach("migration.backed_up")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    try:
        migrations().apply(db)
    except Exception as error:
        failed = _pending(db, path)[0]
        hint = "the ledger is as it was before that step, and its copy lies in backups/; report this"
        raise LedgerError("migrate ledger", str(path), f"{failed}: {error}", hint) from error


def integrity_faults(db: Database) -> list[str]:
    """What SQLite finds wrong with pages, indexes and references."""
    found = [str(row[0]) for row in db.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]
    for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall():
        found.append(f"row {rowid} of {table} refers to a row of {parent} that isn't there")
    return found
