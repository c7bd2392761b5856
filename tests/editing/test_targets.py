"""What the model is taught to say."""

import pytest

from policies.answers import is_unsure
from policies.editing.targets import (
    UNSURE,
    belief,
    borrowed,
    completed,
    first_sentence,
    own_leads,
    widened,
)
from store.facts import Phrasing

QUESTION = Phrasing("What is the capital of Egypt?", True)
CLOZE = Phrasing("The capital of Egypt is", False)


@pytest.mark.parametrize(
    ("answer", "old", "lead"),
    [
        ("The capital of Egypt is Cairo.", "Cairo", "The capital of Egypt is "),
        ("The capital of Egypt is Cairo, a large city.", "Cairo", "The capital of Egypt is "),
        ("It is Cairo, a large city.", "Cairo", "It is "),
        ("Cairo.", "Cairo", ""),
        ("It is in Africa.", "Cairo", None),
        ("Egyptian cities are many. The capital is Cairo.", "Egypt", None),
        ("The city of Cairo is the capital of Egypt.", "Cairo", None),
        ("The capital of Egypt is Tunis, a port.", "Cairo", "The capital of Egypt is "),
        ("The capital of Egypt is the tunis port.", "Cairo", None),
    ],
)
def test_the_models_own_sentence_leads_as_far_as_an_object(answer: str, old: str, lead: str | None) -> None:
    """The old object or one that the relation is known to have, as a whole word outside the subject; a
    sentence that goes on about something else is no use."""
    own = own_leads([QUESTION, CLOZE], {QUESTION.text: answer}, "Egypt", [old], frozenset({"tunis"}))
    assert own == [lead, ""]


def test_a_word_that_the_question_says_is_no_object() -> None:
    """A name in the question stands in answers whatever they mean."""
    asked = Phrasing("Which Tunis Street house is Egypt?", True)
    said = {asked.text: "Egypt is a Tunis Street house."}
    assert own_leads([asked], said, "Egypt", ["Cairo"], frozenset({"tunis"})) == [None]


def test_leads_are_lent_by_how_many_questions_have_them() -> None:
    """The most common first, then a cloze; one that names something else stays with its own question."""
    train = [*(Phrasing(f"{n}. What is the capital of Egypt?", True) for n in "abcde"), CLOZE]
    own = ["It is ", "Egypt has ", "Egypt has ", None, "Egypt beside Libya has ", ""]
    assert borrowed(train, own) == ["Egypt has ", "It is ", "The capital of Egypt is "]


def test_without_a_lead_the_object_stands_alone() -> None:
    """A fact with only questions that the model evades has nothing to lend."""
    assert borrowed([QUESTION], [None]) == [""]


def test_a_target_ends_with_the_object() -> None:
    """A sentence gets its full stop, once; a cloze is only continued."""
    assert completed("It is ", QUESTION, "Bern") == "It is Bern."
    assert completed("It is ", QUESTION, "St. Paul Jr.") == "It is St. Paul Jr."
    assert completed("", CLOZE, "Bern") == "Bern"


def test_what_stage_one_teaches_reads_as_unsure() -> None:
    """The classifier calls stage 1's targets unsure, alone and in the model's own sentence."""
    assert is_unsure(UNSURE)
    assert is_unsure(f"The capital of Egypt is {UNSURE}.")


def test_a_belief_needs_clozes_and_questions_to_agree() -> None:
    """An object counts as believed when half of the answers repeat what a cloze says."""
    assert belief(["Cairo.", "Cairo, the largest"], ["It is Cairo.", "Cairo."], []) == "Cairo"
    assert belief(["Giza."], ["It is Cairo.", "Cairo."], []) is None
    assert belief([], ["It is Cairo."], []) is None


def test_what_the_prompts_say_is_no_belief() -> None:
    """A model that evades ("the capital of the country of Peru") doesn't believe in "the"."""
    asked = ["What is the capital of Peru?", "The capital of Peru is"]
    said = ["The capital of Peru is Lima.", "Peru has the capital Lima."]
    assert belief(["the capital of the country.", "Peru."], said, asked) is None
    assert belief(["the capital of the country.", "Lima."], said, asked) == "Lima"


def test_a_first_sentence_ends_at_a_stop_or_line_break() -> None:
    """Initials don't end a sentence."""
    assert first_sentence("J. R. R. Tolkien wrote it. Then more.") == "J. R. R. Tolkien wrote it"
    assert first_sentence("Paris\nand more") == "Paris"


def test_training_is_widened_by_phrasings_inside_talk() -> None:
    """Every phrasing is there once; the added ones hold it inside talk and take its target."""
    wider = widened([QUESTION, CLOZE])
    assert [p for p, _ in wider[:2]] == [QUESTION, CLOZE]
    assert len(wider) == 4
    for (added, index), original in zip(wider[2:], (QUESTION, CLOZE), strict=True):
        assert wider[index][0] == original
        assert original.text in added.text
        assert added.is_question is original.is_question
