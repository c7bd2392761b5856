"""The ledger's tables and how they came to be: one migration after another, never edited.

Knows SQLite's definitions. Doesn't know what is written when.
"""

import sqlite3

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store.failpoints import reach

_FIRST = """
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'partial', 'rejected')),
    error TEXT,
    counts TEXT NOT NULL,
    received_at TEXT NOT NULL
) STRICT;
CREATE INDEX files_sha256 ON files (sha256);
CREATE UNIQUE INDEX files_accepted_once ON files (sha256) WHERE status <> 'rejected';

CREATE TABLE facts (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    relation TEXT NOT NULL,
    folded_subject TEXT NOT NULL,
    folded_relation TEXT NOT NULL,
    value TEXT,
    wanted TEXT,
    wanted_op TEXT NOT NULL CHECK (wanted_op IN ('upsert', 'retract')),
    aliases TEXT NOT NULL,
    version INTEGER,
    effective_at TEXT,
    source TEXT NOT NULL,
    live_edit INTEGER REFERENCES edits (id),
    updated_at TEXT NOT NULL,
    UNIQUE (folded_subject, folded_relation)
) STRICT;

CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES generations (number),
    state TEXT NOT NULL CHECK (state IN ('building', 'live', 'retired', 'rolled_back', 'quarantined')),
    weights_sha256 TEXT NOT NULL,
    theta_blob TEXT,
    created_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    pinned INTEGER NOT NULL CHECK (pinned IN (0, 1))
) STRICT;
CREATE UNIQUE INDEX generations_one_live ON generations (state) WHERE state = 'live';

CREATE TABLE edits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    fact_id INTEGER NOT NULL REFERENCES facts (id),
    file_id INTEGER REFERENCES files (id),
    op TEXT NOT NULL CHECK (op IN ('upsert', 'retract')),
    new TEXT,
    aliases TEXT NOT NULL,
    old TEXT,
    old_aliases TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'editing', 'judged', 'live', 'already_known',
        'rolled_back', 'held', 'failed', 'cancelled', 'superseded')),
    priority TEXT NOT NULL CHECK (priority IN ('high', 'normal', 'low')),
    prompts TEXT NOT NULL,
    paraphrases TEXT NOT NULL,
    source TEXT NOT NULL,
    version INTEGER,
    effective_at TEXT,
    dropped_at TEXT,
    attempt INTEGER NOT NULL,
    recipe TEXT NOT NULL,
    generation INTEGER, -- named before its row exists
    reason TEXT NOT NULL,
    delta_blob TEXT,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX edits_state ON edits (state, effective_at);
CREATE INDEX edits_fact ON edits (fact_id);

CREATE TABLE generation_edits (
    generation INTEGER NOT NULL REFERENCES generations (number),
    position INTEGER NOT NULL,
    edit INTEGER NOT NULL REFERENCES edits (id),
    PRIMARY KEY (generation, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE generation_spans (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations (number),
    live_from TEXT NOT NULL,
    live_until TEXT,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX generation_spans_from ON generation_spans (live_from);
CREATE UNIQUE INDEX generation_spans_one_open ON generation_spans (live_until IS NULL)
    WHERE live_until IS NULL;

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    file_id INTEGER NOT NULL REFERENCES files (id),
    line INTEGER NOT NULL,
    subject TEXT NOT NULL,
    relation TEXT NOT NULL,
    object TEXT,
    op TEXT NOT NULL,
    row_class TEXT NOT NULL,
    reason TEXT NOT NULL,
    edit_id INTEGER REFERENCES edits (id)
) STRICT;
CREATE INDEX records_file ON records (file_id);

-- Valid time: valid_from (when the value holds in the world). Recorded time: recorded_from to
-- recorded_to (when the ledger held it). kind 'wanted' is what files said, 'served' what was live.
CREATE TABLE fact_history (
    id INTEGER PRIMARY KEY,
    fact_id INTEGER NOT NULL REFERENCES facts (id),
    kind TEXT NOT NULL CHECK (kind IN ('wanted', 'served')),
    op TEXT NOT NULL CHECK (op IN ('upsert', 'retract')),
    value TEXT,
    valid_from TEXT NOT NULL,
    recorded_from TEXT NOT NULL,
    recorded_to TEXT,
    edit_id INTEGER REFERENCES edits (id),
    generation INTEGER,
    file_id INTEGER REFERENCES files (id),
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX fact_history_fact ON fact_history (fact_id, kind);
CREATE UNIQUE INDEX fact_history_one_open ON fact_history (fact_id, kind) WHERE recorded_to IS NULL;

CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY,
    edit_id INTEGER NOT NULL REFERENCES edits (id),
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    generation INTEGER,
    verdict TEXT,
    verdict_reason TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    seconds TEXT NOT NULL,
    localisation TEXT NOT NULL,
    freshness_seconds REAL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX outcomes_edit ON outcomes (edit_id);

CREATE TABLE readings (
    id INTEGER PRIMARY KEY,
    outcome_id INTEGER NOT NULL REFERENCES outcomes (id),
    edit_id INTEGER NOT NULL REFERENCES edits (id),
    generation INTEGER,
    suite TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    value REAL,
    low REAL,
    high REAL,
    n INTEGER,
    answers TEXT NOT NULL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX readings_edit ON readings (edit_id);
CREATE INDEX readings_generation ON readings (generation);

CREATE TABLE intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    result TEXT,
    finished_at TEXT
) STRICT;

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit events are never changed'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit events are never removed'); END;
-- INSERT OR REPLACE deletes; recursive_triggers makes that fire audit_no_delete. This one holds
-- without it.
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'audit events are never replaced'); END;
"""

# What is left of the old answer (`policies.latent`): shown, never judged, so it is no reading.
_SOFT_FORGETTING = """
CREATE TABLE soft_forgetting (
    id INTEGER PRIMARY KEY,
    outcome_id INTEGER NOT NULL REFERENCES outcomes (id),
    edit_id INTEGER NOT NULL REFERENCES edits (id),
    measure TEXT NOT NULL,
    before REAL,
    after REAL,
    n INTEGER NOT NULL,
    answers TEXT NOT NULL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX soft_forgetting_edit ON soft_forgetting (edit_id);
"""

# Who let a waiting edit through (`policies.sources`), and which edits are the ledger's own repetitions.
_APPROVALS = """
ALTER TABLE edits ADD COLUMN repeats INTEGER REFERENCES edits (id);
CREATE INDEX edits_dropped ON edits (dropped_at);
CREATE INDEX outcomes_recorded ON outcomes (recorded_at);
CREATE TABLE approvals (
    id INTEGER PRIMARY KEY,
    edit_id INTEGER NOT NULL REFERENCES edits (id),
    actor TEXT NOT NULL,
    approved_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX approvals_once ON approvals (edit_id, actor);
"""

# Which edits a batch that didn't pass left to be tried together (`policies.batches`).
_BATCHES = "ALTER TABLE edits ADD COLUMN batch INTEGER;"


def migrations() -> Migrations:
    """All migrations, oldest first. New ones go to the end; released ones never change."""
    steps = Migrations("palimpsest")

    @steps()
    def m001_first_ledger(db: Database) -> None:
        _run(db, _FIRST)

    @steps()
    def m002_soft_forgetting(db: Database) -> None:
        _run(db, _SOFT_FORGETTING)

    @steps()
    def m003_approvals(db: Database) -> None:
        _run(db, _APPROVALS)

    @steps()
    def m004_batches(db: Database) -> None:
        _run(db, _BATCHES)

    return steps


def _run(db: Database, script: str) -> None:
    """Run statements one by one: sqlite3's executescript would commit the open transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if _complete(statement):
            db.execute(statement)
            statement = ""
    if statement.strip():
        raise ValueError(f"an unfinished statement in a migration: {statement.strip()[:80]}")
    reach("migration.step")


def _complete(statement: str) -> bool:
    return statement.strip() != "" and sqlite3.complete_statement(statement)
