"""What can be asked of a ledger comes back as it was written."""

import pytest

from store.audit import START
from store.errors import FactFileError, LedgerError
from store.facts import (
    AnswerKind,
    EditState,
    FactKey,
    Judgement,
    Latent,
    LatentAnswer,
    LatentReading,
    ModuleScore,
    Op,
    Outcome,
    ProbeAnswer,
    Reading,
    Suite,
    SuiteVerdict,
    Verdict,
)
from store.ledger import Ledger
from store.wire import from_wire
from tests.store.builders import NOW, drop, later, serve, update

PERU = FactKey("Peru", "capital")


def test_history_holds_what_was_wanted_and_when(ledger: Ledger) -> None:
    """Each wanted value has its valid time and its recorded span; the open one is the newest."""
    drop(ledger, update("Peru", "A", effective_at=later(-100)))
    drop(ledger, update("Peru", "B"), name="b", now=later(10))
    drop(ledger, update("Peru", None), name="c", now=later(20))
    spans = [(row["op"], row["value"], row["valid_from"][11:19], row["recorded_to"] is None)
             for row in ledger.fact_history(FactKey("PERU", "capital"))]  # fmt: skip
    assert spans == [
        ("upsert", "A", "11:58:20", False),
        ("upsert", "B", "12:00:10", False),
        ("retract", None, "12:00:20", True),
    ]  # fmt: skip
    assert ledger.fact_history(FactKey("Nowhere", "capital")) == []


def test_outcomes_and_readings_come_back(ledger: Ledger) -> None:
    """What was measured is stored with verdicts and answers; an unmeasured suite has no value."""
    drop(ledger, update("Peru", "Lima"))
    answer = ProbeAnswer("Capital of Peru?", "Lima", "Lima.", True, AnswerKind.NEW)
    reading = Reading(Suite.EFFICACY, 1.0, 0.7, 1.0, 6, (answer,))
    judgement = Judgement(Verdict.ERROR, "unmeasured", (
        SuiteVerdict(Suite.EFFICACY, Verdict.PASS, "1.00 >= 0.98", reading),
        SuiteVerdict(Suite.NEIGHBOURS, Verdict.ERROR, "never measured", None),
    ))  # fmt: skip
    outcome = Outcome(
        ledger.edit(1), EditState.HELD, "why", None, judgement, "Cusco", "Lima", (("learn", 1.5),),
        (ModuleScore("model.layers.1", 0.5, None),), 12.5,
    )  # fmt: skip
    ledger.record_outcome(outcome, now=NOW)
    (stored,) = ledger.outcomes(1)
    assert (stored["verdict"], stored["seconds"], stored["freshness_seconds"]) == (
        "error",
        [["learn", 1.5]],
        12.5,
    )
    assert stored["localisation"] == [{"module": "model.layers.1", "attribution": 0.5, "effect": None}]
    first, second = ledger.readings(edit_id=1)
    assert (first["verdict"], first["n"], first["answers"][0]["kind"]) == ("pass", 6, "new")
    assert (second["verdict"], second["value"], second["answers"]) == ("error", None, [])
    assert ledger.readings(generation=7) == []


def test_only_served_generations_have_readings_to_go_by(ledger: Ledger) -> None:
    """A candidate that was turned away tells nothing of what is served; answers are left out."""
    drop(ledger, update("Peru", "Lima"))
    assert (ledger.newest_outcome(), ledger.generation_readings()) == (0, {})
    answers = (ProbeAnswer("2 + 2?", "4", "4", True),)
    read = Reading(Suite.UNRELATED, 0.9, 0.8, 0.95, 60, answers)
    unread = SuiteVerdict(Suite.KL_DRIFT, Verdict.ERROR, "not measured", None)
    judged = Judgement(Verdict.PASS, "", (SuiteVerdict(Suite.UNRELATED, Verdict.PASS, "", read), unread))
    serve(ledger, 1)
    for state, number in ((EditState.HELD, None), (EditState.LIVE, 1)):
        outcome = ledger.record_outcome(Outcome(ledger.edit(1), state, "", number, judged, "", ""), now=NOW)
    assert ledger.newest_outcome() == outcome
    assert ledger.generation_readings() == {1: [Reading(Suite.UNRELATED, 0.9, 0.8, 0.95, 60)]}


def test_what_is_left_of_the_old_answer_comes_back(ledger: Ledger) -> None:
    """Measures come back in their order with answers of before and after; NaN comes back as None."""
    drop(ledger, update("Peru", "Lima"))
    answer = LatentAnswer("Are you sure?", "It is Cusco.", "Lima.", AnswerKind.OLD, AnswerKind.NEW)
    found = (
        LatentReading(Latent.PRESSURE, 1.0, 0.0, 1, (answer,)),
        LatentReading(Latent.OLD_RANK, 1.0, float("nan"), 0),
    )
    outcome = Outcome(ledger.edit(1), EditState.HELD, "r", None, None, "", "", soft_forgetting=found)
    number = ledger.record_outcome(outcome, now=NOW)
    first, second = ledger.soft_forgetting(1)
    assert (first["outcome_id"], first["measure"], first["before"], first["after"], first["n"]) == (
        number, "pressure", 1.0, 0.0, 1,
    )  # fmt: skip
    assert from_wire(LatentAnswer, first["answers"][0]) == answer
    assert (second["measure"], second["after"], second["answers"]) == ("old_rank", None, [])
    assert ledger.readings(edit_id=1) == [], "it is no reading: nothing judges it"
    assert ledger.soft_forgetting(2) == []


def test_history_names_the_file_that_a_value_came_with(ledger: Ledger) -> None:
    """What was wanted and what is served are both traced to the file that said so."""
    drop(ledger, update("Peru", "Lima"), name="first.jsonl")
    serve(ledger, 1)
    drop(ledger, update("Peru", "Cusco"), name="second.jsonl", now=later(9))
    found = [(row["kind"], row["value"], row["file"]) for row in ledger.fact_history(PERU)]
    assert found == [
        ("wanted", "Lima", "first.jsonl"), ("served", "Lima", "first.jsonl"),
        ("wanted", "Cusco", "second.jsonl"),
    ]  # fmt: skip


def test_state_counts_name_every_state(ledger: Ledger) -> None:
    """States without edits count 0, so that a gauge never keeps an old number."""
    drop(ledger, update("Peru", "Lima"))
    counts = ledger.state_counts()
    assert set(counts) == set(EditState)
    assert counts[EditState.PENDING] == 1
    assert ledger.edits([EditState.HELD]) == []
    assert len(ledger.edits([EditState.PENDING], FactKey("PERU", "capital"))) == 1


def test_many_keys_are_looked_up_at_once(ledger: Ledger) -> None:
    """Asking for many keys reads all facts and gives only those asked for, in any case."""
    drop(ledger, update("Peru", "Lima"), update("Chad", None))
    keys = [FactKey(f"S{i}", "capital") for i in range(2_000)]
    assert ledger.facts([*keys, FactKey("PERU", "capital")]).keys() == {PERU}
    assert ledger.facts([FactKey("chad", "CAPITAL")])[FactKey("Chad", "capital")].wanted_op is Op.RETRACT
    assert ledger.facts([]) == {}


def test_what_is_not_there_is_an_error(ledger: Ledger) -> None:
    """Asking for one edit, generation or order that isn't there says so."""
    for ask in (lambda: ledger.edit(9), lambda: ledger.generation(9), lambda: ledger.intent(9)):
        with pytest.raises(LedgerError, match="there is none"):
            ask()


def test_last_times_are_those_of_good_ends(ledger: Ledger) -> None:
    """A refused file and a failed edit move nothing; what never happened is left out."""
    assert ledger.last_times() == {"publish": NOW}
    drop(ledger, update("Peru", "Cusco"), now=later(10))
    ledger.record_bad_file("sha", "bad.csv", 1, FactFileError("parse", "bad.csv", "no"), now=later(20))
    number = serve(ledger, 1, later(30))
    ledger.roll_back(0, now=later(40), reason="undo", trigger="manual")
    assert number == 1
    assert ledger.last_times() == {"ingest": later(10), "publish": later(40)}


def test_a_setting_knows_when_it_was_changed(ledger: Ledger) -> None:
    """The newest change counts, and a setting that was never made has no time."""
    assert ledger.setting_changed_at("paused") is None
    ledger.set_setting("paused", True, now=NOW)
    ledger.set_setting("paused", False, now=later(5))
    assert ledger.setting_changed_at("paused") == later(5)


def test_the_audit_can_be_followed_in_pieces(ledger: Ledger) -> None:
    """Piece by piece it comes to the same end as all at once."""
    drop(ledger, update("Peru", "Cusco"))
    link, steps = START, 0
    while (step := ledger.follow_audit(link, 2))[0] != link:
        link, broken = step
        assert broken is None
        steps += 1
    assert steps > 1
    assert link.id == ledger.audit_events(1)[0]["id"]
    assert link.hash == ledger.audit_events(1)[0]["hash"]
