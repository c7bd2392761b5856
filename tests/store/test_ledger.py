"""The ledger's files, facts, queue, orders and settings."""

import sqlite3
from pathlib import Path

import pytest

from store.diffing import diff
from store.errors import FactFileError, LedgerError
from store.facts import (
    EditState,
    FactKey,
    ModuleScore,
    Outcome,
    Priority,
    RowClass,
)
from store.ledger import Ledger
from store.transitions import LEGAL, is_legal
from tests.store.builders import NOW, drop, later, serve, update

PERU = FactKey("Peru", "capital")


def test_a_file_makes_facts_edits_records_and_events(ledger: Ledger) -> None:
    """One file: wanted values, one pending edit for each NEW or RETRACTED row, records, audit."""
    result = drop(ledger, update("Peru", "Lima", line=1, aliases=("Ciudad",)), update("Chad", None, line=2))
    assert [(row.line, row.row_class, row.edit_id) for row in result.rows] == [
        (1, RowClass.NEW, 1), (2, RowClass.RETRACTED, 2),
    ]  # fmt: skip
    assert [edit.state for edit in ledger.edits()] == [EditState.PENDING] * 2
    fact = ledger.facts()[PERU]
    assert (fact.wanted, fact.value, fact.aliases) == ("Lima", None, ("Ciudad",))
    assert [row["edit_id"] for row in ledger.file_rows(result.file_id)] == [1, 2]
    assert [event["event"] for event in ledger.audit_events(3)] == [
        "file.accepted", "edit.pending", "edit.pending",
    ]  # fmt: skip


def test_the_ledger_agrees_with_the_pure_view(ledger: Ledger) -> None:
    """What record_file writes diffs as unchanged: SQL and `diffing.apply` are of one mind."""
    rows = [update("Peru", "Lima", version=3, effective_at=NOW, source="s"), update("chad", None)]
    drop(ledger, *rows)
    assert {row.row_class for row in diff(rows, ledger.facts())} == {RowClass.UNCHANGED}


def test_the_same_bytes_change_nothing(ledger: Ledger) -> None:
    """Recording accepted bytes again gives the old result and writes nothing."""
    rows = diff([update("Peru", "Lima")], {})
    first = ledger.record_file("sha", "a.jsonl", 1, rows, now=NOW)
    events = ledger.audit_events(1000)
    again = ledger.record_file("sha", "b.jsonl", 1, rows, now=later(1))
    assert (again.duplicate, again.rows) == (True, first.rows)
    assert ledger.audit_events(1000) == events


def test_refused_bytes_may_come_again(ledger: Ledger) -> None:
    """A refused file is remembered with its error, and an accepted one of the same bytes wins."""
    error = FactFileError("parse fact file", "a.jsonl", "bad", code="syntax", line=3, column=4)
    ledger.record_bad_file("sha", "a.jsonl", 1, error, now=NOW)
    seen = ledger.file_seen("sha")
    assert seen is not None
    assert (seen["status"], seen["error"]["line"], seen["error"]["column"]) == ("rejected", 3, 4)
    ledger.record_file("sha", "a.jsonl", 1, diff([update("Peru", "Lima")], {}), now=NOW, partial=True)
    ledger.record_bad_file("sha", "a.jsonl", 1, error, now=NOW)
    assert (ledger.file_seen("sha") or {})["status"] == "partial"
    assert ledger.file_seen("other") is None


def test_stale_and_conflicting_rows_make_no_edit(ledger: Ledger) -> None:
    """They are recorded with their reason and change no fact."""
    drop(ledger, update("Peru", "Lima", version=2))
    result = drop(
        ledger, update("Peru", "Cusco", version=1), update("Chad", "A"), update("Chad", "B"), name="b"
    )
    assert [row.edit_id for row in result.rows] == [None] * 3
    assert list(ledger.facts()) == [PERU]
    assert ledger.facts()[PERU].wanted == "Lima"


def test_a_newer_value_supersedes_what_waits(ledger: Ledger) -> None:
    """Pending, held and failed edits give way to a newer one of the same fact; editing ones stay."""
    drop(ledger, update("Peru", "A"))
    drop(ledger, update("PERU", "B"), name="b")
    assert ledger.edit(1).state is EditState.SUPERSEDED
    assert ledger.edit(2).key == PERU
    ledger.transition(2, EditState.EDITING, reason="taken", now=NOW)
    drop(ledger, update("Peru", "C"), name="c")
    assert [edit.state for edit in ledger.edits()] == [
        EditState.SUPERSEDED, EditState.EDITING, EditState.PENDING,
    ]  # fmt: skip


def test_an_edit_knows_the_old_answer(ledger: Ledger) -> None:
    """`old` is what the file says, else what is served, with its aliases; else nobody knows."""
    drop(ledger, update("Peru", "Lima", aliases=("Ciudad",)))
    serve(ledger, 1)
    drop(ledger, update("Peru", "Cusco"), update("Chad", "X", old="Y", old_aliases=("Z",)), name="b")
    assert (ledger.edit(1).old, ledger.edit(1).old_aliases) == (None, ())
    assert (ledger.edit(2).old, ledger.edit(2).old_aliases) == ("Lima", ("Ciudad",))
    assert (ledger.edit(3).old, ledger.edit(3).old_aliases) == ("Y", ("Z",))


def test_the_queue_is_ordered_and_knows_the_future(ledger: Ledger) -> None:
    """Due edits come by priority, effective_at and id; future ones wait and are announced."""
    drop(
        ledger,
        update("A", "x", priority=Priority.LOW),
        update("B", "x", effective_at=later(-5)),
        update("C", "x", effective_at=later(60)),
        update("D", "x", priority=Priority.HIGH),
        update("E", "x", effective_at=later(30)),
    )
    assert [edit.key.subject for edit in ledger.due_edits(NOW, 10)] == ["D", "B", "A"]
    assert [edit.key.subject for edit in ledger.due_edits(NOW, 1)] == ["D"]
    assert ledger.next_due_after(NOW) == later(30)
    assert ledger.next_due_after(later(60)) is None
    assert len(ledger.due_edits(later(60), 10)) == 5


def test_transitions_set_fields_and_are_audited(ledger: Ledger) -> None:
    """A transition changes state, reason and fields, and leaves one event with its reason."""
    drop(ledger, update("Peru", "Lima"))
    edit = ledger.transition(
        1, EditState.EDITING, reason="taken", now=NOW, from_=EditState.PENDING,
        attempt=2, recipe="gentle", old="Cusco", old_aliases=("Q",),
    )  # fmt: skip
    assert (edit.attempt, edit.recipe, edit.old, edit.old_aliases) == (2, "gentle", "Cusco", ("Q",))
    (event,) = ledger.audit_events(1, subject="edit:1")
    assert event["detail"] == {"from": "pending", "to": "editing", "reason": "taken"}


@pytest.mark.parametrize("from_", list(EditState))
@pytest.mark.parametrize("to", list(EditState))
def test_only_legal_transitions_happen(ledger: Ledger, from_: EditState, to: EditState) -> None:
    """The ledger does exactly what the table of transitions allows, and says no to the rest."""
    drop(ledger, update("Peru", "Lima"))
    with ledger.write() as db:
        db.table("edits").update(1, {"state": from_.value})
    if is_legal(from_, to):
        assert ledger.transition(1, to, reason="because", now=NOW).state is to
    else:
        with pytest.raises(LedgerError, match=f"{from_} can't become {to}"):
            ledger.transition(1, to, reason="because", now=NOW)
        assert ledger.edit(1).state is from_


def test_no_transition_leads_into_live() -> None:
    """Only a switch of generations makes an edit live, or ends that."""
    assert all(EditState.LIVE not in targets for targets in LEGAL.values())
    assert LEGAL[EditState.LIVE] == frozenset()
    assert set(LEGAL) == set(EditState)


def test_from_is_checked(ledger: Ledger) -> None:
    """With `from_`, an edit in another state isn't moved."""
    drop(ledger, update("Peru", "Lima"))
    with pytest.raises(LedgerError, match="it is pending, not held"):
        ledger.transition(1, EditState.CANCELLED, reason="r", now=NOW, from_=EditState.HELD)


def test_requeue_and_retry(ledger: Ledger) -> None:
    """Cut-off work goes back as it was, retried work begins at attempt 0; others are refused."""
    drop(ledger, update("Peru", "Lima"))
    with pytest.raises(LedgerError, match="it is pending"):
        ledger.requeue(1, reason="r", now=NOW)
    ledger.transition(1, EditState.EDITING, reason="taken", now=NOW, attempt=2)
    assert ledger.requeue(1, reason="stopped", now=NOW).attempt == 2
    ledger.transition(1, EditState.HELD, reason="odd", now=NOW)
    retried = ledger.retry(1, reason="asked", now=NOW, recipe="gentle")
    assert (retried.state, retried.attempt, retried.recipe) == (EditState.PENDING, 0, "gentle")


def test_an_overtaken_edit_cannot_be_retried(ledger: Ledger) -> None:
    """Retrying an edit whose fact is wanted otherwise by now would undo the newer update."""
    drop(ledger, update("Peru", "Lima"))
    serve(ledger, 1)
    drop(ledger, update("Peru", "Cusco"), name="b")
    ledger.roll_back(0, now=NOW, reason="bad", trigger="manual")
    with pytest.raises(LedgerError, match="a newer update of this fact came since"):
        ledger.retry(1, reason="asked", now=NOW)


def test_repeat_makes_one_unfinished_copy(ledger: Ledger) -> None:
    """A lost fact is queued again once, however often that is asked."""
    drop(ledger, update("Peru", "Lima", aliases=("C",)))
    serve(ledger, 1)
    copy = ledger.repeat(1, reason="lost", now=later(5))
    assert (copy.id, copy.new, copy.aliases, copy.state) == (2, "Lima", ("C",), EditState.PENDING)
    assert (copy.dropped_at, copy.generation, copy.delta_blob) == (later(5), None, None)
    assert ledger.repeat(1, reason="lost", now=NOW) == copy


def test_already_known_is_noted_as_served(ledger: Ledger) -> None:
    """A fact the model knows by itself has its value, without an edit that makes it so."""
    drop(ledger, update("Peru", "Lima"))
    ledger.transition(1, EditState.EDITING, reason="taken", now=NOW)
    ledger.transition(1, EditState.ALREADY_KNOWN, reason="it says so", now=NOW)
    fact = ledger.facts()[PERU]
    assert (fact.value, fact.live_edit) == ("Lima", None)


def test_a_measurement_gone_wrong_is_recorded(ledger: Ledger) -> None:
    """NaN and infinities become null instead of stopping the outcome's being recorded."""
    drop(ledger, update("Peru", "Lima"))
    scores = (ModuleScore("m", float("nan"), float("inf")),)
    outcome = Outcome(ledger.edit(1), EditState.FAILED, "r", None, None, "", "", localisation=scores)
    ledger.record_outcome(outcome, now=NOW)
    assert ledger.outcomes(1)[0]["localisation"] == [{"module": "m", "attribution": None, "effect": None}]


def test_orders_are_done_once(ledger: Ledger) -> None:
    """An order stays open until it is finished with its result, and is finished once."""
    number = ledger.add_intent("rollback", {"to": 3}, now=NOW, actor="uid 0")
    assert [(order["kind"], order["args"]) for order in ledger.open_intents()] == [("rollback", {"to": 3})]
    ledger.finish_intent(number, {"ok": True}, NOW)
    assert ledger.open_intents() == []
    assert ledger.intent(number)["result"] == {"ok": True}
    with pytest.raises(LedgerError, match="finished already"):
        ledger.finish_intent(number, {}, NOW)


def test_settings_hold_any_json(ledger: Ledger) -> None:
    """A setting is replaced by the next one of its name; an unset one has the default."""
    assert ledger.get_setting("paused", False) is False
    ledger.set_setting("paused", True, now=NOW)
    ledger.set_setting("paused", {"by": "é"}, now=NOW)
    assert ledger.get_setting("paused") == {"by": "é"}


def test_a_failed_write_leaves_nothing(ledger: Ledger) -> None:
    """A transaction is whole or not at all."""
    rows = diff([update("Peru", "Lima")], {})
    with ledger.write() as db:
        db.execute("CREATE TRIGGER stop BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END")
    events = ledger.audit_events(1000)
    with pytest.raises(LedgerError, match="no"):
        ledger.record_file("sha", "a.jsonl", 1, rows, now=NOW)
    assert (ledger.facts(), ledger.edits(), ledger.audit_events(1000)) == ({}, [], events)


def test_writes_do_not_nest_and_readers_do_not_write(ledger: Ledger, tmp_path: Path) -> None:
    """One transaction at a time; a reading connection refuses every write, also raw ones."""
    with ledger.write(), pytest.raises(LedgerError, match="another one is open"):
        ledger.set_setting("a", 1, now=NOW)
    reader = Ledger.open_readonly(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match="reading only"):
        reader.set_setting("a", 1, now=NOW)
    with pytest.raises(sqlite3.OperationalError):
        reader._db.execute("DELETE FROM settings")


def test_a_reader_sees_what_was_committed(ledger: Ledger, tmp_path: Path) -> None:
    """A reader beside the writer sees each committed write, and also after the writer is gone."""
    with Ledger.open_readonly(tmp_path / "ledger.sqlite") as reader:
        drop(ledger, update("Peru", "Lima"))
        assert reader.edit(1).new == "Lima"
    ledger.close()
    with Ledger.open_readonly(tmp_path / "ledger.sqlite") as reader:
        assert reader.edit(1).new == "Lima"


def test_two_writers_take_turns(ledger: Ledger, tmp_path: Path) -> None:
    """A second connection adds its order beside the daemon, and the audit chain stays whole."""
    other = Ledger.open(tmp_path / "ledger.sqlite", backups=None)
    other.add_intent("pause", {}, now=NOW, actor="cli")
    ledger.set_setting("paused", True, now=NOW)
    other.add_intent("resume", {}, now=NOW, actor="cli")
    assert ledger.verify_audit() is None
