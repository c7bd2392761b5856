"""What of an answer about another subject is kept: as far as the object, and firm ones first."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policies.editing import memo
from policies.editing.bank import Bank, Question
from policies.editing.measure import answers
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel
from policies.editing.neighbours import (
    CLOZE_TOKENS,
    ROUND,
    About,
    Told,
    around,
    as_far_as,
    ask_about,
    asked_about,
    spread,
    told,
)
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


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Ada plays a bass guitar, loudly.", ("Ada plays a bass guitar", "bass guitar")),
        ("Ada is a guitar player.", ("", "")),
        ("Ada is renowned.", ("", "")),
    ],
)
def test_an_object_in_small_letters_is_what_a_name_ends_with(text: str, kept: tuple[str, str]) -> None:
    """A word before another one only describes it."""
    assert as_far_as(text, {"guitar"}, small=True) == kept
    assert as_far_as(text, {"guitar"}) == ("", "")


def test_answers_that_two_wordings_give_come_first() -> None:
    """Firm ones before those whose object only other subjects' clozes name; talk without an object comes
    last, and neither a word of the prompt nor of a cloze's second sentence is an object."""
    said = {
        "Where is Ada?": "Ada is in Oslo, far off.",
        "Where is Bo?": "Bo is in Bern, I say.",
        "Where is Cy?": "That is a good question.",
        "Where is Di?": "Di is Di. She is.",
        "Ada is in": " Bern. Bern is",
        "Bo is in": " Bern, the",
        "Cy is in": " Oslo, I think",
        "Di is in": " Oslo. Good of Di. That She",
    }
    asked = asked_about(["Ada", "Bo", "Cy", "Di"], [QUESTION, CLOZE])
    given = {a.questions[0]: said[a.questions[0].text] for a in asked}
    endings = {a.clozes[0]: said[a.clozes[0].text] for a in asked}
    ada, bo, cy, di = (a.questions[0] for a in asked)
    assert told(asked, endings, given, ["Rome"]) == [
        Told("Bo", bo, "Bo is in Bern", 2, "Bern"),
        Told("Ada", ada, "Ada is in Oslo", 1, "Oslo"),
        Told("Cy", cy, "That is a good question", 0),
        Told("Di", di, "Di is Di", 0),
    ]


def test_objects_are_written_like_the_known_ones() -> None:
    """Where the edited fact's object is in small letters, so are the others'."""
    asked = asked_about(["Ada"], [QUESTION, CLOZE])
    (question,), (cloze,) = asked[0].questions, asked[0].clozes
    endings, said = {cloze: " the big garden. He"}, {question: "Ada is in the garden. He"}
    sure = Told("Ada", question, "Ada is in the garden", 2, "garden")
    assert told(asked, endings, said, ["kitchen"]) == [sure]
    assert told(asked, endings, said, ["Rome"]) == [replace(sure, sure=0, object="")]


def test_wordings_of_one_kind_are_told_apart_by_what_they_are_asked_for(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relation without questions asks its clozes as such too; a short ending isn't taken for an answer."""
    about = asked_about(["Ada"], [CLOZE, Phrasing("They saw {subject} in", False)])
    evaded = about[0].questions[0]

    def answered(_base: LanguageModel, phrasings: Sequence[Phrasing], **how: Any) -> list[str]:
        if how["max_new_tokens"] == CLOZE_TOKENS:
            return [" Rome" for _ in phrasings]
        return [" a place" if p == evaded else " the city of Rome" for p in phrasings]

    monkeypatch.setattr(memo, "answers", answered)
    found = ask_about(tiny, Memo(), about, ["Oslo"], 9, lambda _stage: None)
    assert [t.answer for t in found] == [" the city of Rome"]


def test_as_many_objects_as_there_are_come_before_one_of_them_again() -> None:
    """Among the equally sure; the order is else as it was."""
    said = ["Bern", "Bern", "bern", "Oslo"]
    found = [Told(str(i), QUESTION, "", 2, name) for i, name in enumerate(said)]
    found.append(Told("4", QUESTION, "", 1, "Rome"))
    assert [t.subject for t in spread([*found[4:], *found[:4]])] == ["0", "3", "1", "2", "4"]


def test_a_names_wordings_dont_depend_on_the_other_names() -> None:
    """What was asked once is never asked in other words; a kind that is missing is replaced by the other."""
    more = Phrasing("Tell me of {subject}.", True)
    names = [f"N{i}" for i in range(20)]
    both = asked_about(names, [QUESTION, more, CLOZE])
    assert both[7:8] == asked_about(names[7:8], [QUESTION, more, CLOZE])
    for a in both:
        assert {q.text.replace(a.subject, "{subject}") for q in a.questions} == {QUESTION.text, more.text}
    assert {a.questions[0].text.replace(a.subject, "{subject}") for a in both} == {QUESTION.text, more.text}
    assert all(a.clozes == (Phrasing(f"{a.subject} is in", False),) for a in both)
    alone = (Phrasing("A is in", False),)
    assert asked_about(["A"], [CLOZE]) == [About("A", alone, alone)]
    assert asked_about(["A"], []) == []


def test_a_subject_is_asked_in_other_words_until_it_is_sure(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that evade are, and the wording that came to an object is the one that is kept."""
    asked: list[str] = []

    def answered(_base: LanguageModel, phrasings: Sequence[Phrasing], **_how: object) -> list[str]:
        asked.extend(p.text for p in phrasings)
        evaded = {"Where is Ada?", "Tell me of Bo."}
        return ["Good question." if p.text in evaded else "It is Rome." for p in phrasings]

    monkeypatch.setattr(memo, "answers", answered)
    more = Phrasing("Tell me of {subject}.", True)
    about = asked_about(["Ada", "Bo", "Cy"], [QUESTION, more, CLOZE])
    found = ask_about(tiny, Memo(), about, ["Oslo"], 9, lambda _stage: None)
    assert {t.sure for t in found} == {2}
    evaded = [a.questions[0].text in {"Where is Ada?", "Tell me of Bo."} for a in about]
    assert len(asked) == 6 + sum(evaded)


def test_names_are_asked_in_rounds_until_enough_are_sure(tiny: LanguageModel, tmp_path: Path) -> None:
    """A first round that says enough is the only one; what was asked is never asked again."""
    stages: list[str] = []
    remembered = Memo(tmp_path / "said.json")
    names = [f"Name{i}" for i in range(ROUND + 3)]
    about = asked_about(names, [QUESTION, CLOZE])
    first = ask_about(tiny, remembered, about, ["Rome"], 0, stages.append)
    assert {t.subject for t in first} <= set(names[:ROUND])
    again: list[str] = []
    assert ask_about(tiny, Memo(tmp_path / "said.json"), about, ["Rome"], 0, again.append) == first
    assert stages
    assert not again


def test_talk_is_kept_only_where_nothing_comes_to_an_object(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held to evasions, other wordings of the edited fact would evade too; without any, nothing is held."""
    known = ["Bo"]

    def answered(_base: LanguageModel, phrasings: Sequence[Phrasing], **_how: object) -> list[str]:
        return ["Rome." if any(n in p.text for n in known) else "a good question" for p in phrasings]

    monkeypatch.setattr(memo, "answers", answered)
    bank = Bank((), torch.zeros(0, 1), (), ())
    names = ("Ada", "Measured", "Bo", "Measured too", "Cy")
    asked = replace(request(), new="Oslo", old="Bern", templates=(QUESTION, CLOZE), neighbours=names)
    kept = [t.subject for t in around(tiny, bank, asked, (), 9, lambda _stage: None)]
    assert kept == ["Bo"]
    known.clear()
    found = around(tiny, replace(bank, memo=Memo()), asked, (), 9, lambda _stage: None)
    assert [t.subject for t in found] == ["Ada", "Bo", "Cy"]


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
