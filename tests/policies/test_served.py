"""Which questions tell a serving engine's generation, and which would raise a false alarm."""

from dataclasses import replace

from policies.served import FACTS, Question, Told, canary, questions
from store.facts import EditRequest, FactKey, Op, Phrasing, ProbeAnswer, Reading, Suite

ASK, TELL, HELD = "What is the capital of Korea?", "Tell me Korea's capital.", "Korea's capital?"


def told(edit: int = 7, before: str = "Seoul.", **fields: object) -> Told:
    """An edit of one fact from Seoul to Athens, with two trained questions and a held-out one."""
    request = EditRequest(
        key=FactKey("Korea", "capital"),
        op=Op.UPSERT,
        new="Athens",
        new_aliases=("Athina",),
        old="Seoul",
        old_aliases=(),
        train=(Phrasing("The capital of Korea is", False), Phrasing(ASK, True), Phrasing(TELL, True)),
        held_out=(Phrasing(HELD, True),),
        templates=(),
        held_out_templates=(),
        neighbours=(),
    )
    return Told(edit, replace(request, **fields), before)  # type: ignore[arg-type]


def reading(suite: Suite, *answers: ProbeAnswer) -> Reading:
    return Reading(suite, 1.0, 0.0, 1.0, len(answers), answers)


def one(*changed: Told, measured: tuple[Reading, ...] = ()) -> Question | None:
    return next(iter(questions(changed, (), (), measured)), None)


def test_a_changed_fact_is_asked_for_and_its_old_answer_refused() -> None:
    """The first question (a cloze can't be chatted), every name of the new object, none of the old one's."""
    assert one(told()) == Question("edit 7", ASK, ("Athens", "Athina"), ("Seoul",), tells=True)


def test_only_what_the_weights_answered_rightly_is_asked() -> None:
    """A wording that they miss would make every engine look wrong; one that nobody asked may serve."""
    wrong, right = ProbeAnswer(ASK, "Athens", "Rome", False), ProbeAnswer(TELL, "Athens", "Athens", True)
    missed = reading(Suite.EFFICACY, wrong, replace(right, ok=False))
    assert one(told(), measured=(reading(Suite.EFFICACY, wrong, right),)) == replace(_asked(), prompt=TELL)
    assert one(told(), measured=(missed,)) == replace(_asked(), prompt=HELD)
    held = reading(Suite.PARAPHRASE, ProbeAnswer(HELD, "Athens", "Rome", False))
    assert one(told(), measured=(missed, held)) is None


def _asked() -> Question:
    found = one(told())
    assert found is not None
    return found


def test_a_retraction_only_refuses_the_old_answer() -> None:
    """However the model says that it doesn't know; without an old answer there is nothing to ask."""
    retracted = told(op=Op.RETRACT, new=None, new_aliases=())
    assert one(retracted) == Question("edit 7", ASK, (), ("Seoul",), tells=True)
    assert one(told(op=Op.RETRACT, new=None, new_aliases=(), old=None)) is None


def test_a_name_that_a_right_answer_may_hold_is_not_refused() -> None:
    """Echoed from the question, or part of the new name."""
    assert one(told(old="Korea")) == replace(_asked(), none_of=())
    assert one(told(new="New York", new_aliases=(), old="York")) == replace(
        _asked(), any_of=("New York",), none_of=()
    )


def test_what_was_taken_back_must_be_gone_and_no_more() -> None:
    """The new answer is refused in the wording whose answer before is known; any other answer will do."""
    (found,) = questions((), [told()], (), ())
    assert found == Question("edit 7, taken back", ASK, (), ("Athens", "Athina"), tells=True)
    assert questions((), [told(before="It may be Athens.")], (), ()) == []
    assert questions((), [told(before="")], (), ()) == []
    assert questions((), [told(op=Op.RETRACT, new=None, new_aliases=())], (), ()) == []


def test_the_questions_are_few_and_the_telling_ones_come_first() -> None:
    """Thousands of live facts make no thousand questions; other facts fill up and tell nothing."""
    others = (told(edit) for edit in range(100, 10_000))
    found = questions([told(1)], [told(2)], others, ())
    assert len(found) == FACTS
    assert [q.about for q in found[:3]] == ["edit 1", "edit 2, taken back", "edit 100"]
    assert [q.tells for q in found] == [True, True] + [False] * (FACTS - 2)
    assert next(others).edit == 100 + FACTS - 2, "no more is read than is asked"


def test_the_canary_is_an_unrelated_answer_that_held() -> None:
    """Right, and by the very name that is expected; none when nothing was measured."""
    bad = ProbeAnswer("Q1", "Paris", "Rome", False)
    by_alias = ProbeAnswer("Q2", "hydrogen oxide", "Water", True)
    good = ProbeAnswer("Q3", "the Nile", "It is the river Nile.", True)
    assert canary([reading(Suite.UNRELATED, bad, by_alias, good)]) == Question("canary", "Q3", ("the Nile",))
    assert canary([reading(Suite.NEIGHBOURS, good), reading(Suite.UNRELATED, bad)]) is None
