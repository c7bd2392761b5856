"""What the model is taught to say."""

import pytest

from policies.answers import is_unsure
from policies.editing.targets import UNSURE, belief, first_sentence, new_targets, widened
from store.facts import Phrasing

QUESTION = Phrasing("What is the capital of Egypt?", True)
CLOZE = Phrasing("The capital of Egypt is", False)


@pytest.mark.parametrize(
    ("answer", "old", "target"),
    [
        ("The capital of Egypt is Cairo.", "Cairo", "The capital of Egypt is Bern."),
        ("The capital of Egypt is Cairo, a large city.", "Cairo", "The capital of Egypt is Bern."),
        ("It is in Africa.", "Cairo", "The capital of Egypt is Bern."),
        ("Egyptian cities are many. The capital is Cairo.", "Egypt", "The capital of Egypt is Bern."),
    ],
)
def test_a_question_is_answered_by_the_models_own_sentence_where_it_can_be_used(
    answer: str, old: str, target: str
) -> None:
    """The old object is swapped as a whole word outside the subject, else a cloze is completed."""
    assert new_targets([QUESTION, CLOZE], {QUESTION.text: answer}, "Egypt", "Bern", [old]) == [target, "Bern"]


def test_without_a_cloze_the_object_alone_is_the_fallback() -> None:
    """A fact with only questions falls back to the bare object."""
    assert new_targets([QUESTION], {}, "Egypt", "Bern", []) == ["Bern."]


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
