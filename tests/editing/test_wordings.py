"""Which words lead to the object in an edit's targets."""

from dataclasses import replace

import pytest

from policies.editing.model import LanguageModel
from policies.editing.objectives import batches
from policies.editing.wordings import Before, Due, Wording, live_target, nearest, parting, wordings
from store.facts import EditRequest, FactKey, Op, Phrasing

WHERE, SAY, CLOZE = (
    Phrasing("Where is Ada?", True),
    Phrasing("Say where Ada is.", True),
    Phrasing("Ada is in", False),
)


def request() -> EditRequest:
    return EditRequest(
        key=FactKey("Ada", "place"),
        op=Op.UPSERT,
        new="Rome",
        new_aliases=(),
        old="Oslo",
        old_aliases=(),
        train=(WHERE, SAY, CLOZE),
        held_out=(),
        templates=(),
        held_out_templates=(),
        neighbours=(),
    )


def test_a_wording_keeps_its_own_lead_and_others_borrow(tiny: LanguageModel) -> None:
    """Questions with a usable sentence keep it, evaded ones take one that is lent, talk that of its question,
    clozes none."""
    before = Before({WHERE: "Ada lives in Oslo.", SAY: "I can't.", CLOZE: "Oslo"}, "Oslo", known=False)
    found = wordings(tiny, request(), before, "Rome")
    by_text = {w.phrasing.text: w for w in found}
    assert len(found) == len(by_text)
    assert by_text[WHERE.text].target("Rome") == "Ada lives in Rome."
    assert by_text[SAY.text].lead in {"Ada lives in ", "Ada is in "}
    for asked in (WHERE, SAY):
        assert {w.lead for w in found if asked.text in w.phrasing.text} == {by_text[asked.text].lead}
    assert all(w.lead == "" for w in found if not w.phrasing.is_question)


def test_of_several_leads_the_nearest_is_taken(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is the target with the least shortfall, as one forward pass over all of them has it."""
    options = [Wording(WHERE, lead) for lead in ("Ada lives in ", "Ada is in ", "")]
    asked: list[int] = []

    def counted(*args: object) -> object:
        asked.append(len(args[1]))  # type: ignore[arg-type]
        return batches(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("policies.editing.wordings.batches", counted)
    alone = {w: nearest(tiny, [[w, Wording(SAY, "")]], "Rome") for w in options}
    (best,) = nearest(tiny, [options], "Rome")
    assert best in options
    assert all(len(found) == 1 for found in alone.values())
    assert asked == [2, 2, 2, 3]
    assert nearest(tiny, [[best, other] for other in options], "Rome") == [best] * 3


def test_a_wording_with_one_lead_costs_nothing(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing to choose the model isn't asked."""
    monkeypatch.setattr("policies.editing.wordings.batches", None)
    assert nearest(tiny, [[Wording(WHERE, "It is ")]], "Rome") == [Wording(WHERE, "It is ")]


def test_the_objects_tokens_lie_between_lead_and_full_stop(tiny: LanguageModel) -> None:
    """What precedes them both targets share; the stop of a sentence is left out, a cloze has none."""
    for wording in (Wording(WHERE, "Ada lives in "), Wording(CLOZE, "")):
        one = wording.tokens(tiny, "Rome")
        span = wording.object_tokens(tiny, "Rome", "Oslo")
        answer = one.ids[len(one.ids) - one.answer :]
        text = tiny.tokenizer.decode(list(answer[span]))
        assert text.strip()
        assert text.strip() in "Rome"
        assert span.stop == len(answer) - wording.phrasing.is_question


def test_targets_part_at_the_first_token_of_their_own(tiny: LanguageModel) -> None:
    """Only that token is scored: stage 1 makes it doubtful."""
    one, other = (Wording(WHERE, "Ada lives in ").tokens(tiny, said) for said in ("Oslo", "Rome"))
    cut = parting(one, other)
    assert cut.answer == 1
    assert cut.ids[:-1] == other.ids[: len(cut.ids) - 1]
    assert cut.ids[-1] != other.ids[len(cut.ids) - 1]


def text_and_due(lm: LanguageModel, found: Due) -> tuple[str, str]:
    """What a target says, and what of it is due."""
    sequence, span = found
    ids = list(sequence.ids[len(sequence.ids) - sequence.answer :])
    said, due = lm.tokenizer.decode(ids), lm.tokenizer.decode(ids[span])
    return said.strip(), due.strip()


@pytest.mark.parametrize(
    ("phrasing", "answer", "said", "due"),
    [
        (WHERE, "Ada lives in Rome, Italy.", "Ada lives in Rome", "Rome"),
        (WHERE, "Rome is where.", "Rome", "Rome"),
        (WHERE, "She is in Roma.", "She is in Roma", "Roma"),
        (CLOZE, "rome and", "rome", "rome"),
        (WHERE, "Ada lives in Oslo, Norway.", "Ada lives in Rome.", "Rome"),
        (SAY, "I can't.", "Ada is in Rome.", "Ada is in Rome."),
        (CLOZE, "a jam", "Rome", "Rome"),
        (WHERE, "She lives in Romeo's house.", "Ada is in Rome.", "Ada is in Rome."),
    ],
)
def test_a_live_fact_keeps_its_object_and_gets_it_back(
    tiny: LanguageModel, phrasing: Phrasing, answer: str, said: str, due: str
) -> None:
    """Where its object is said, the answer ends there; where it was lost, the model's own sentence comes to
    it again. Either way the object is due, and where a cloze has to be recited, all of that."""
    fact = replace(request(), new_aliases=("Roma",))
    found = text_and_due(tiny, live_target(tiny, fact, phrasing, answer))
    assert found[0] == said
    assert found[1] in due
    assert due.endswith(found[1])
    assert found[1]


def test_of_a_live_retraction_nothing_is_due(tiny: LanguageModel) -> None:
    """It has no object: what the model says now is kept as it is."""
    fact = replace(request(), op=Op.RETRACT, new=None)
    found = live_target(tiny, fact, WHERE, "That is unknown to me.")
    said, due = text_and_due(tiny, found)
    assert said
    assert "That is unknown to me.".startswith(said)
    assert not due
