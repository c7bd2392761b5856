"""Approvals in the ledger, what it tells of a source's traffic, and older ledgers that know neither."""

from pathlib import Path

import pytest
from sqlite_utils.migrations import Migrations

from store import connection, schema
from store.errors import LedgerError
from store.facts import EditState, Outcome, Priority
from store.ledger import Ledger
from tests.store.builders import NOW, drop, later, opened, serve, update


def test_an_approval_is_noted_once_for_each_user(ledger: Ledger) -> None:
    """With time and audit event; the same user, by whatever name, is refused, and then nothing is written."""
    drop(ledger, update("Peru", "Lima"), update("Chad", "Lima"))
    ledger.approve([1], actor="1001:ada", now=NOW)
    event = ledger.newest_event()
    for again in ("1001:ada", "1001:lovelace", "1001"):
        with pytest.raises(LedgerError, match="approved it before"):
            ledger.approve([2, 1], actor=again, now=NOW)
    assert ledger.newest_event() == event
    ledger.approve([2, 1, 2], actor="100:bob", now=later(1))
    found = {edit: [row["actor"] for row in rows] for edit, rows in ledger.approvals([1, 2, 3]).items()}
    assert found == {1: ["1001:ada", "100:bob"], 2: ["100:bob"]}
    assert [e["detail"] for e in ledger.audit_events(subject="edit:2")][-1] == {"actor": "100:bob"}
    assert ledger.integrity() == []


def test_only_what_waits_can_be_approved(ledger: Ledger) -> None:
    """An edit that is done, or that isn't there, is an error."""
    drop(ledger, update("Peru", "Lima"))
    serve(ledger, 1)
    with pytest.raises(LedgerError, match="it is live"):
        ledger.approve([1], actor="1001:ada", now=NOW)
    with pytest.raises(LedgerError, match="there is none"):
        ledger.approve([9], actor="1001:ada", now=NOW)


def test_traffic_is_told_by_source_and_moment(ledger: Ledger) -> None:
    """What files asked for and what was begun since a time; the ledger's own repetitions don't count."""
    drop(ledger, update("Peru", "Lima", source="a"), update("Chad", "Lima", source="b"))
    drop(ledger, update("Mali", "Lima", source="a"), now=later(60), name="b.jsonl")
    assert sorted(ledger.drops_since(NOW)) == [("a", NOW, 1), ("a", later(60), 1), ("b", NOW, 1)]
    assert ledger.drops_since(later(1)) == [("a", later(60), 1)]
    for seconds in (70, 80):
        held = Outcome(ledger.edit(1), EditState.HELD, "", None, None, "", "")
        ledger.record_outcome(held, now=later(seconds))
    assert ledger.begun_since(NOW) == [(1, "a", later(70))]
    assert ledger.begun_since(later(70)) == [(1, "a", later(80))]
    serve(ledger, 1)
    again = ledger.repeat(1, reason="lost", now=later(90))
    assert again.repeats == 1
    assert ledger.drops_since(later(61)) == []


def test_due_edits_leave_out_what_waits(ledger: Ledger) -> None:
    """However many wait, the first that doesn't is found at once."""
    drop(ledger, *(update(name, "Lima") for name in ("Peru", "Chad", "Mali")))
    assert [edit.id for edit in ledger.due_edits(NOW, 1, without=[1, 2])] == [3]


def test_due_edits_are_counted_by_priority(ledger: Ledger) -> None:
    """All of them, without those that wait and those whose time hasn't come."""
    drop(ledger, *(update(name, "Lima") for name in ("Peru", "Chad", "Mali")))
    drop(
        ledger,
        update("Cuba", "Lima", priority=Priority.HIGH),
        update("Fiji", "Lima", effective_at=later(60)),
    )
    assert ledger.due_counts(NOW, without=[2]) == {Priority.HIGH: 1, Priority.NORMAL: 2}
    assert ledger.due_counts(later(60)) == {Priority.HIGH: 1, Priority.NORMAL: 4}


def before_approvals() -> Migrations:
    """The migrations before the table of approvals."""
    steps = Migrations("palimpsest")

    @steps()
    def m001_first_ledger(db: object) -> None:
        schema._run(db, schema._FIRST)  # type: ignore[arg-type]

    @steps()
    def m002_soft_forgetting(db: object) -> None:
        schema._run(db, schema._SOFT_FORGETTING)  # type: ignore[arg-type]

    return steps


def test_an_older_ledger_learns_approvals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its edits are kept and can be approved; none of them counts as a repetition."""
    monkeypatch.setattr(connection, "migrations", before_approvals)
    with opened(tmp_path) as old:
        drop(old, update("Peru", "Lima"))
    monkeypatch.undo()
    with Ledger.open(tmp_path / "ledger.sqlite", backups=tmp_path / "backups") as ledger:
        assert (ledger.edit(1).new, ledger.edit(1).repeats) == ("Lima", None)
        ledger.approve([1], actor="0:root", now=NOW)
        assert list(ledger.approvals([1])) == [1]
        assert ledger.integrity() == []
    assert (tmp_path / "backups" / "before-m003_approvals.sqlite").is_file()
