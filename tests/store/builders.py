"""Short ways to say updates, rows and ledgers in tests."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from store.diffing import apply, diff
from store.facts import DiffRow, EditState, FactKey, FactRow, FactUpdate, Generation, Op
from store.ledger import Ledger
from store.results import FileResult

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def update(subject: str, wanted: str | None, **fields: object) -> FactUpdate:
    """An upsert of SUBJECT's capital, or a retraction when nothing is wanted."""
    op = Op.RETRACT if wanted is None else Op.UPSERT
    return FactUpdate(FactKey(subject, "capital"), wanted, op, **fields)  # type: ignore[arg-type]


def applied(rows: Iterable[DiffRow], current: Mapping[FactKey, FactRow]) -> dict[FactKey, FactRow]:
    """The ledger's view after rows, kept in a dict; what `Ledger.record_file` does in SQL."""
    view = {key.folded(): row for key, row in current.items()}
    for row in rows:
        folded = row.update.key.folded()
        changed = apply(row, view.get(folded))
        if changed is not None:
            view[folded] = changed
    return {row.key: row for row in view.values()}


def opened(folder: Path) -> Ledger:
    """A ledger whose base is live."""
    ledger = Ledger.open(folder / "ledger.sqlite", backups=folder / "backups")
    ledger.insert_generation(Generation(0, None, "live", "base", None, (), NOW), NOW)
    return ledger


def drop(ledger: Ledger, *updates: FactUpdate, now: datetime = NOW, name: str = "a.jsonl") -> FileResult:
    """Diff and record updates as one file."""
    sha256 = f"{name}-{len(ledger.audit_events(10_000))}"
    return ledger.record_file(sha256, name, 1, diff(updates, ledger.facts()), now=now)


def serve(ledger: Ledger, edit: int, now: datetime = NOW) -> int:
    """Walk a pending edit all the way to a live generation; returns its number."""
    number, live = ledger.next_generation_number(), ledger.live_generation()
    edits = (*(live.edits if live else ()), edit)
    ledger.transition(edit, EditState.EDITING, reason="taken", now=now)
    ledger.transition(edit, EditState.JUDGED, reason="passed", now=now, delta_blob=f"delta{edit}")
    parent = live.number if live else None
    ledger.insert_generation(Generation(number, parent, "building", "w", f"theta{number}", edits, now), now)
    ledger.promote(number, now=now, reason=f"edit {edit} passed")
    return number
