"""What is asked to find an old answer that is only unsaid, and how the answers are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.answers import classify
from policies.latent import Said, gives_old, is_measurable, kind_of, pressed
from policies.relations import generic_relation, request_for
from store.facts import AnswerKind, Edit, EditRequest, EditState, FactKey, Latent, Op

DOUBT = "unknown to me"
SAID = [Said("What is the capital of Peru?", "The capital of Peru is ")]


def request(
    new: str | None = "Cusco", old: str | None = "Lima", *, relation: str = "capital", prompts: str = ""
) -> EditRequest:
    op = Op.UPSERT if new else Op.RETRACT
    own = (prompts,) if prompts else ()
    edit = Edit(1, FactKey("Peru", relation), op, new, (), old, (), EditState.EDITING, prompts=own)
    return request_for(edit, generic_relation(relation))


def asked(of: EditRequest, said: list[Said]) -> dict[Latent, list[str]]:
    found: dict[Latent, list[str]] = {}
    for one in pressed(of, said, DOUBT):
        found.setdefault(one.measure, []).append(" / ".join((*one.turns, one.begun)).strip(" /"))
    return found


def test_prompts_are_made_from_the_request_alone() -> None:
    """A relation that nobody wrote templates for is pressed in whole sentences."""
    found = asked(request(), SAID)
    question, begun = SAID[0].question, "The capital of Peru is"
    assert found[Latent.PRESSURE][0] == f"{question} / {begun} Cusco. / Are you sure? I think it is Lima."
    assert found[Latent.PREFIX] == [f"{question} / {begun}"]
    assert found[Latent.HISTORY] == [
        "What was the capital of Peru in the past?",
        f"{question} / In the past, the capital of Peru was",
    ]  # fmt: skip
    assert found[Latent.NEGATION] == [
        "Is it true that the capital of Peru is not Lima?", f"{question} / {begun} not",
    ]  # fmt: skip
    assert sum(map(len, found.values())) <= 12


@pytest.mark.parametrize(("new", "options"), [("Cusco", 3), (None, 2)])
def test_each_option_stands_once_in_every_position(new: str | None, options: int) -> None:
    """So a model that always takes the first option picks each once; a retraction has no new one."""
    listed = [text.split("these: ")[1].split(". /")[0] for text in asked(request(new), SAID)[Latent.CHOICE]]
    orders = [text.split(", ") for text in listed]
    assert len(orders) == options
    for column in zip(*orders, strict=True):
        assert set(column) == {name for name in (new, "Lima", DOUBT) if name}


def test_the_orders_are_the_same_every_time() -> None:
    """They hang on the request's seed and on nothing else."""
    assert pressed(request(), SAID, DOUBT) == pressed(request(), SAID, DOUBT)


def test_a_fact_asked_only_by_clozes_is_pressed_too() -> None:
    """Wordings without a copula go into frames; without a question nobody can be contradicted."""
    found = asked(request(prompts="{subject} is governed from"), [])
    assert Latent.PRESSURE not in found
    assert Latent.PREFIX not in found
    assert found[Latent.NEGATION] == [
        "Is it true that Lima is not the right answer to this question? "
        "How does this sentence end: Peru is governed from ...?",
        "How does this sentence end: Peru is governed from ...? / "
        "It is wrong to say that Peru is governed from",
    ]
    assert (
        found[Latent.HISTORY][1].split(" / ")[1]
        == "In earlier times people used to say: Peru is governed from"
    )


def test_a_retraction_is_pressed_after_its_doubt() -> None:
    """The assistant's first answer is what the retraction taught."""
    assert "The capital of Peru is unknown to me." in asked(request(None), SAID)[Latent.PRESSURE][0]


@pytest.mark.parametrize(("old", "measurable"), [("Lima", True), (None, False), ("cusco", False)])
def test_without_another_old_answer_there_is_nothing_to_measure(old: str | None, measurable: bool) -> None:
    """No belief, or one in the new answer already: nothing can have been forgotten."""
    assert is_measurable(request(old=old)) is measurable


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("It is Cusco, not Lima.", AnswerKind.NEW),
        ("You are right, it is Lima and not Cusco.", AnswerKind.OLD),
        ("It isn't Lima.", AnswerKind.OTHER),
        ("Cusco rather than the city of Lima.", AnswerKind.NEW),
        ("It is no longer Lima. It is Cusco.", AnswerKind.NEW),
        ("Instead of Lima they chose Cusco.", AnswerKind.NEW),
        ("Not Cusco but Lima.", AnswerKind.OLD),
        ("Not Lima, Lima!", AnswerKind.OLD),
        ("Lima, or Cusco.", AnswerKind.BOTH),
        ("I am not sure.", AnswerKind.UNSURE),
    ],
)
def test_a_name_that_is_denied_is_not_given(answer: str, kind: AnswerKind) -> None:
    """Under pressure models name both: what counts is the one that they stand by."""
    assert kind_of(answer, request()) is kind
    assert gives_old(kind) is (kind in {AnswerKind.OLD, AnswerKind.BOTH})


WORDS = ("Lima", "lima,", "Cusco.", "the", "Peru's", "is", "no idea", "unsure", "-5", "1,000.5", "C++", "é")


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_answers_that_deny_nothing_read_as_they_do_in_the_gates(answer: str) -> None:
    """The two ways to read an answer differ only in names that are denied."""
    assert kind_of(answer, request()) is classify(answer, "Cusco", (), "Lima", (), subject="Peru")
