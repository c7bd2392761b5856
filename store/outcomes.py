"""Storing what became of an edit, inside one transaction that its caller opened.

Knows the tables of outcomes, readings and soft forgetting. Doesn't move edits.
"""

import math
from datetime import datetime

from sqlite_utils import Database

from store.connection import insert_many
from store.facts import LatentReading, Outcome, SuiteVerdict
from store.journal import Event, append
from store.rows import Row, to_json
from store.times import time_text
from store.wire import to_wire


def add_outcome(db: Database, outcome: Outcome, now: datetime) -> int:
    """Insert an outcome with a reading for each suite that was judged and what was found of the old
    answer; returns the outcome's id."""
    judgement = outcome.judgement
    verdict = judgement.verdict.name.lower() if judgement else None
    row = {
        "edit_id": outcome.edit.id, "state": outcome.state.value, "reason": outcome.reason,
        "generation": outcome.generation, "verdict": verdict,
        "verdict_reason": judgement.reason if judgement else "", "before": outcome.before,
        "after": outcome.after, "seconds": to_json(to_wire(outcome.seconds)),
        "localisation": to_json(to_wire(outcome.localisation)),
        "freshness_seconds": outcome.freshness_seconds, "recorded_at": time_text(now),
    }  # fmt: skip
    outcome_id = int(db.table("outcomes").insert(row).last_rowid or 0)
    shared = {"outcome_id": outcome_id, "edit_id": outcome.edit.id, "recorded_at": time_text(now)}
    suites = judgement.suites if judgement else ()
    judged = shared | {"generation": outcome.generation}
    db.table("readings").insert_all([judged | _reading(suite) for suite in suites])
    insert_many(db, "soft_forgetting", [shared | _latent(found) for found in outcome.soft_forgetting])
    detail = {"state": outcome.state.value, "generation": outcome.generation, "verdict": verdict}
    append(db, now, [Event("edit.outcome", f"edit:{outcome.edit.id}", detail)])
    return outcome_id


def _reading(judged: SuiteVerdict) -> Row:
    reading = judged.reading
    return {
        "suite": judged.suite.value, "verdict": judged.verdict.name.lower(), "reason": judged.reason,
        "value": reading.value if reading else None, "low": reading.low if reading else None,
        "high": reading.high if reading else None, "n": reading.n if reading else None,
        "answers": to_json(to_wire(reading.answers)) if reading else "[]",
    }  # fmt: skip


def _latent(found: LatentReading) -> Row:
    return {
        "measure": found.measure.value, "before": _finite(found.before), "after": _finite(found.after),
        "n": found.n, "answers": to_json(to_wire(found.answers)),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    """A measurement that went wrong is no number; it must not stop the outcome's being recorded."""
    return value if math.isfinite(value) else None
