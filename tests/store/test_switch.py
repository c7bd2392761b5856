"""Which edits and values are live after promotions and rollbacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import LedgerError
from store.facts import FactKey, Generation
from store.ledger import Ledger
from tests.store.builders import NOW, drop, later, opened, serve, update

PERU, CHAD = FactKey("Peru", "capital"), FactKey("Chad", "capital")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three live generations: Peru=A (edit 1), Chad=X (edit 2), Peru=B (edit 3)."""
    with opened(tmp_path) as ledger:
        for i, (subject, value) in enumerate([("Peru", "A"), ("Chad", "X"), ("Peru", "B")], start=1):
            drop(ledger, update(subject, value), name=f"{i}", now=later(i * 10))
            assert serve(ledger, i, later(i * 10)) == i
        yield ledger


def states(ledger: Ledger) -> list[str]:
    return [str(edit.state) for edit in ledger.edits()]


def values(ledger: Ledger) -> dict[str, str | None]:
    return {key.subject: fact.value for key, fact in ledger.facts().items()}


def test_promotion_makes_the_newest_edit_of_each_fact_live(ledger: Ledger) -> None:
    """The older edit of a fact is still in the weights' sum, and superseded."""
    assert states(ledger) == ["superseded", "live", "live"]
    assert values(ledger) == {"Peru": "B", "Chad": "X"}
    assert [edit.id for edit in ledger.live_facts()] == [1, 2, 3]
    assert [row.state for row in ledger.generations()] == ["retired", "retired", "retired", "live"]
    assert ledger.facts()[PERU].live_edit == 3


def test_rolling_back_brings_edits_and_values_back(ledger: Ledger) -> None:
    """What the target holds is live again; what only the left one held is rolled back."""
    live = ledger.roll_back(1, now=later(50), reason="bad", trigger="manual")
    assert (live.number, live.state) == (1, "live")
    assert states(ledger) == ["live", "rolled_back", "rolled_back"]
    assert values(ledger) == {"Peru": "A", "Chad": None}
    assert ledger.generation(3).state == "rolled_back"
    ledger.roll_back(3, now=later(60), reason="it was fine", trigger="manual")
    assert states(ledger) == ["superseded", "live", "live"]
    assert values(ledger) == {"Peru": "B", "Chad": "X"}


def test_back_to_the_base(ledger: Ledger) -> None:
    """The base holds no edit: every value is unknown again, and what is wanted stays."""
    ledger.roll_back(0, now=later(50), reason="bad", trigger="manual")
    assert values(ledger) == {"Peru": None, "Chad": None}
    assert ledger.facts()[PERU].wanted == "B"
    assert ledger.live_facts() == []


def test_a_generation_less_one_edit(ledger: Ledger) -> None:
    """Promoting a generation without an edit of the middle rolls that edit back, and only it."""
    ledger.insert_generation(Generation(4, 3, "building", "w", "t", (1, 3), later(50)), later(50))
    ledger.promote(4, now=later(50), reason="less edit 2", rolled_back=True)
    assert states(ledger) == ["superseded", "rolled_back", "live"]
    assert values(ledger) == {"Peru": "B", "Chad": None}
    assert ledger.generation(3).state == "rolled_back"


def test_a_generation_that_replaces_an_edit(ledger: Ledger) -> None:
    """Leaving out an edit whose fact has a newer live one leaves it superseded."""
    ledger.insert_generation(Generation(4, 3, "building", "w", "t", (2, 3), later(50)), later(50))
    ledger.promote(4, now=later(50), reason="tidied")
    assert states(ledger) == ["superseded", "live", "live"]


def test_the_past_can_be_asked(ledger: Ledger) -> None:
    """For each moment the ledger knows which generation was live then."""
    ledger.roll_back(1, now=later(50), reason="bad", trigger="manual")
    moments = [-1, 0, 10, 19, 20, 49, 50, 1000]
    found = [ledger.generation_as_of(later(moment)) for moment in moments]
    assert [row.number if row else None for row in found] == [None, 0, 1, 1, 2, 3, 1, 1]
    assert [span["generation"] for span in ledger.live_spans()] == [0, 1, 2, 3, 1]
    assert len(ledger.live_spans(1)) == 2


def test_served_history_names_generations(ledger: Ledger) -> None:
    """Served values have the generation and edit that served them, one open span at most."""
    ledger.roll_back(0, now=later(50), reason="bad", trigger="manual")
    served = [row for row in ledger.fact_history(PERU) if row["kind"] == "served"]
    assert [(row["value"], row["generation"], row["edit_id"]) for row in served] == [("A", 1, 1), ("B", 3, 3)]
    assert all(row["recorded_to"] for row in served)


def test_a_live_retraction_has_no_value_and_an_edit(ledger: Ledger) -> None:
    """A retracted fact is served as nothing, by an edit."""
    drop(ledger, update("Chad", None), name="4")
    serve(ledger, 4)
    fact = ledger.facts()[CHAD]
    assert (fact.value, fact.live_edit) == (None, 4)


def test_what_cannot_be_made_live(ledger: Ledger) -> None:
    """Only a building generation is promoted, only one that was live is rolled back to."""
    with pytest.raises(LedgerError, match="it is live"):
        ledger.roll_back(3, now=NOW, reason="r", trigger="t")
    with pytest.raises(LedgerError, match="it is retired"):
        ledger.promote(1, now=NOW, reason="r")
    ledger.insert_generation(Generation(4, 3, "building", "", None, (1,), NOW), NOW)
    with pytest.raises(LedgerError, match="it is building"):
        ledger.roll_back(4, now=NOW, reason="r", trigger="t")
    with pytest.raises(LedgerError, match="building to live"):
        ledger.set_generation_state(4, "live", NOW, "r")
    with pytest.raises(LedgerError, match="live to retired"):
        ledger.set_generation_state(3, "retired", NOW, "r")
    with pytest.raises(LedgerError, match="can't begin as live"):
        ledger.insert_generation(Generation(5, 3, "live", "", None, (), NOW), NOW)


def test_a_generation_row_is_completed_and_closed(ledger: Ledger) -> None:
    """Fields are set while it is built; a dropped one is quarantined and its number stays taken."""
    ledger.insert_generation(Generation(4, 3, "building", "", None, (1,), NOW), NOW)
    row = ledger.set_generation_state(
        4, "building", NOW, "files are complete", weights_sha256="w4", theta_blob="t4", edits=(1, 2)
    )
    assert (row.weights_sha256, row.theta_blob, row.edits) == ("w4", "t4", (1, 2))
    assert ledger.set_generation_state(4, "quarantined", NOW, "torn").state == "quarantined"
    assert ledger.next_generation_number() == 5
    assert ledger.pin(2, True, now=NOW).pinned


def test_blobs_in_use_are_known(ledger: Ledger) -> None:
    """Deltas of edits and thetas of generations are what a sweep must keep."""
    assert ledger.referenced_blobs() == {f"{kind}{i}" for kind in ("delta", "theta") for i in (1, 2, 3)}


def test_every_switch_is_audited_with_its_trigger(ledger: Ledger) -> None:
    """A rollback leaves an event with both numbers and who asked, then one for each moved edit."""
    ledger.roll_back(2, now=later(50), reason="bad", trigger="manual")
    switch, *moves = ledger.audit_events(3)
    assert (switch["event"], switch["subject"]) == ("generation.rollback", "generation:2")
    assert switch["detail"] == {
        "from": 3, "to": 2, "left": "rolled_back", "edits": 2, "reason": "bad", "trigger": "manual",
    }  # fmt: skip
    assert [move["event"] for move in moves] == ["edit.live", "edit.rolled_back"]
    assert ledger.integrity() == []
