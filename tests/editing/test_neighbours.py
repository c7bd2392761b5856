"""What of an answer about another subject is kept: as far as the object, and firm ones first."""

import pytest

from policies.editing.neighbours import Told, as_far_as, asked_about, told
from store.facts import Phrasing

QUESTION, CLOZE = Phrasing("Where is {subject}?", True), Phrasing("{subject} is in", False)


@pytest.mark.parametrize(
    ("text", "objects", "kept"),
    [
        (
            "Vega is in the constellation of Lyra, a small one.",
            {"lyra"},
            "Vega is in the constellation of Lyra",
        ),
        ("It is Mexico City in Mexico.", {"mexico"}, "It is Mexico City"),
        ("It is Rome. Rome is old.", {"rome"}, "It is Rome"),
        ("It has number 42, I think.", {"42"}, "It has number 42"),
        ("It is a binary star.", {"lyra"}, None),
        ("", {"lyra"}, None),
    ],
)
def test_an_answer_is_cut_off_after_its_object(text: str, objects: set[str], kept: str | None) -> None:
    """The whole name stays, what follows goes; an answer that never comes to an object is none."""
    assert as_far_as(text, objects) == kept


def test_answers_that_two_wordings_give_come_first() -> None:
    """Firm ones before those whose object only other subjects' clozes name; talk without an object is left
    out, and a word of the prompt is no object."""
    said = {
        "Where is Ada?": "Ada is in Oslo, far off.",
        "Where is Bo?": "Bo is in Bern, I say.",
        "Where is Cy?": "That is a good question.",
        "Where is Di?": "Di is Di.",
        "Ada is in": " Bern. Bern is",
        "Bo is in": " Bern, the",
        "Cy is in": " Oslo, I think",
        "Di is in": " Oslo, and Oslo",
    }
    asked = asked_about(["Ada", "Bo", "Cy", "Di"], [QUESTION, CLOZE])
    given = [(said[question.text], said[cloze.text]) for _, question, cloze in asked]
    bo = Phrasing("Where is Bo?", True)
    assert told(asked, given) == [
        Told("Bo", bo, "Bo is in Bern", True),
        Told("Ada", Phrasing("Where is Ada?", True), "Ada is in Oslo", False),
    ]


def test_wordings_are_taken_in_turn() -> None:
    """Every name has a question and a cloze; a kind that is missing is replaced by the other."""
    more = Phrasing("Tell me of {subject}.", True)
    assert asked_about(["A", "B"], [QUESTION, more, CLOZE]) == [
        ("A", Phrasing("Where is A?", True), Phrasing("A is in", False)),
        ("B", Phrasing("Tell me of B.", True), Phrasing("B is in", False)),
    ]
    assert asked_about(["A"], [QUESTION, more]) == [
        ("A", Phrasing("Where is A?", True), Phrasing("Tell me of A.", True))
    ]
    assert asked_about(["A"], []) == []
