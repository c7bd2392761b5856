"""What of an answer about another subject is kept: as far as the object, and firm ones first."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.editing import memo
from policies.editing.bank import Bank, Question
from policies.editing.measure import answers
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel
from policies.editing.neighbours import ROUND, Told, around, as_far_as, ask_about, asked_about, told, up_to
from store.facts import FactKey, Phrasing
from tests.editing.families import request

QUESTION, CLOZE = Phrasing("Where is {subject}?", True), Phrasing("{subject} is in", False)


@pytest.mark.parametrize(
    ("text", "objects", "kept"),
    [
        (
            "Vega is in the constellation of Lyra, a small one.",
            {"lyra"},
            ("Vega is in the constellation of Lyra", "Lyra"),
        ),
        ("It is Mexico City in Mexico.", {"mexico"}, ("It is Mexico City", "Mexico City")),
        ("It is Rome. Rome is old.", {"rome"}, ("It is Rome", "Rome")),
        ("It has number 42, I think.", {"42"}, ("It has number 42", "42")),
        ("It is a binary star.", {"lyra"}, ("", "")),
        ("It is the city.", {"city"}, ("", "")),
        ("", {"lyra"}, ("", "")),
    ],
)
def test_an_answer_is_cut_off_after_its_object(text: str, objects: set[str], kept: tuple[str, str]) -> None:
    """The whole name stays, what follows goes; an answer that never comes to an object is none."""
    assert as_far_as(text, objects) == kept


def test_a_live_facts_answer_is_cut_off_after_its_object() -> None:
    """Whole words in any case; an answer without the object has no such end."""
    assert up_to("She plays the grand Piano, and well.", "grand piano") == "She plays the grand Piano"
    assert up_to("She lives in Romeo's Rome.", "Rome") == "She lives in Romeo's Rome"
    assert up_to("She lives in Oslo.", "Rome") is None


def test_answers_that_two_wordings_give_come_first() -> None:
    """Firm ones before those whose object only other subjects' clozes name; talk without an object comes
    last, and a word of the prompt is no object."""
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
    bo, ada, di = (next(q for name, q, _ in asked if name == n) for n in ("Bo", "Ada", "Di"))
    cy = next(q for name, q, _ in asked if name == "Cy")
    assert told(asked, given) == [
        Told("Bo", bo, "Bo is in Bern", 2, "Bern"),
        Told("Ada", ada, "Ada is in Oslo", 1, "Oslo"),
        Told("Cy", cy, "That is a good question", 0),
        Told("Di", di, "Di is Di", 0),
    ]


def test_a_names_wordings_dont_depend_on_the_other_names() -> None:
    """What was asked once is never asked in other words; a kind that is missing is replaced by the other."""
    more = Phrasing("Tell me of {subject}.", True)
    names = [f"N{i}" for i in range(20)]
    both = asked_about(names, [QUESTION, more, CLOZE])
    assert both[7:8] == asked_about(names[7:8], [QUESTION, more, CLOZE])
    assert {q.text.replace(n, "{subject}") for n, q, _ in both} == {QUESTION.text, more.text}
    assert all(c == Phrasing(f"{n} is in", False) for n, _, c in both)
    assert asked_about(["A"], [CLOZE]) == [("A", Phrasing("A is in", False), Phrasing("A is in", False))]
    assert asked_about(["A"], []) == []


def test_names_are_asked_in_rounds_until_enough_are_sure(tiny: LanguageModel, tmp_path: Path) -> None:
    """A first round that says enough is the only one; what was asked is never asked again."""
    stages: list[str] = []
    remembered = Memo(tmp_path / "said.json")
    names = [f"Name{i}" for i in range(ROUND + 3)]
    first = ask_about(tiny, remembered, names, [QUESTION, CLOZE], 0, stages.append)
    assert {t.subject for t in first} <= set(names[:ROUND])
    again: list[str] = []
    assert ask_about(tiny, Memo(tmp_path / "said.json"), names, [QUESTION, CLOZE], 0, again.append) == first
    assert stages
    assert not again


def test_facts_that_are_live_judged_or_measured_are_not_kept(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live fact of another relation is no reason to leave its subject out."""

    def same_of_everybody(_base: LanguageModel, phrasings: Sequence[Phrasing], **_how: object) -> list[str]:
        return [f"{'I say ' if p.is_question else ''}Rome, yes" for p in phrasings]

    monkeypatch.setattr(memo, "answers", same_of_everybody)
    bank = Bank((), torch.zeros(0, 1), (Question("What is the capital of Italy?", "Italy", "Rome", ()),), ())
    names = ("Bo", "Measured", "Italy", "Measured too", "Cy", "Measured as well", "Di")
    asked = replace(request(), templates=(QUESTION, CLOZE), neighbours=names)
    live = (
        replace(asked, key=FactKey("Bo", "Place")),
        replace(asked, key=FactKey("Cy", "mother")),
    )
    found = around(tiny, bank, asked, live, 5, lambda _stage: None)
    assert [(t.subject, t.answer, t.sure) for t in found] == [
        ("Cy", "I say Rome", 2),
        ("Di", "I say Rome", 2),
    ]
    assert len(around(tiny, bank, asked, live, 1, lambda _stage: None)) == 1


def test_a_broken_memo_is_started_over(tiny: LanguageModel, tmp_path: Path) -> None:
    """It only holds what can be asked again."""
    file = tmp_path / "said.json"
    file.write_text("{")
    said = Memo(file).answers(tiny, [QUESTION], max_new_tokens=4)
    assert (
        Memo(file).answers(tiny, [QUESTION], max_new_tokens=4)
        == said
        == answers(tiny, [QUESTION], max_new_tokens=4)
    )
