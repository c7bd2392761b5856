"""What of the bank may hold an edit back, and what may never be in it."""

from dataclasses import replace

import pytest
import torch

from policies.editing import bank as banks
from policies.editing.bank import Bank, BankPrompt
from policies.editing.measure import answers
from policies.editing.model import LanguageModel
from policies.probes import Probe
from store.facts import EditRequest, FactKey, Op, Phrasing

REQUEST = EditRequest(
    key=FactKey("Ada", "capital"),
    op=Op.UPSERT,
    new="Rome",
    new_aliases=(),
    old="Oslo",
    old_aliases=(),
    train=(Phrasing("Where is Ada?", True),),
    held_out=(),
    templates=(),
    held_out_templates=(),
    neighbours=("Bo", "Cy", "Di"),
)
PROMPTS = (
    BankPrompt("What is two and two?", "two", "four"),
    BankPrompt("Who is Ada's mother?", "Ada", "Eve", "mother"),
    BankPrompt("What is the capital of Bo?", "Bo", "Bern", "capital"),
    BankPrompt("What is the capital of Cy?", "Cy", "Cork", "capital"),
    BankPrompt("Who is the mother of Cy?", "Cy", "Fay", "mother"),
)
BANK = Bank(PROMPTS, torch.arange(5.0)[:, None], (), ())


def test_an_edit_is_held_by_neither_its_subject_nor_a_neighbour_that_is_measured() -> None:
    """Of its own relation only trained neighbours stay; another relation's prompt about them does too."""
    assert BANK.for_edit(REQUEST, "capital") == [0, 2, 4]
    assert BANK.for_edit(replace(REQUEST, neighbours=()), "capital") == [0, 4]


def test_a_bank_apart_from_facts_asks_for_none_of_them() -> None:
    """Either way round; what else it knows of the same subjects stays, and rows go with their prompts."""
    left = BANK.apart_from([("In Cy, what is the capital?", "Cork"), ("Whose sum is four?", "two")])
    assert [p.subject for p in left.prompts] == ["Ada", "Bo", "Cy"]
    assert left.rows[:, 0].tolist() == [1.0, 2.0, 4.0]


def test_facts_that_probes_judge_are_in_no_bank(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour whose answer a gate or report probe asks for is left out, whichever way round it asks."""
    asked = [(f"r{i}", f"S{i}", f"What is the thing of S{i}?") for i in range(3)]
    given = ["It is Bern.", "Cork", "Rome, as I said."]
    monkeypatch.setattr(banks, "relation_questions", lambda: asked)
    monkeypatch.setattr(banks, "answers", lambda *_asked, **_how: given)
    judged = [
        Probe("a", "d", "S0", "Bern", (), ("?", "?")),
        Probe("b", "d", "Cork", "S1", (), ("?", "?")),
        Probe("c", "d", "S2", "Oslo", (), ("?", "?")),
    ]
    found = banks.relation_prompts(tiny, judged, lambda _stage: None)
    assert found == [BankPrompt(asked[2][2], "S2", given[2], "r2")]


def test_an_answer_is_the_same_alone_and_among_others(tiny: LanguageModel) -> None:
    """Answers that end early leave the batch without changing those that go on."""
    phrasings = [Phrasing(f"Where is {name}?", True) for name in ("Ada", "Bo", "the old house of Cy")]
    together = answers(tiny, phrasings, max_new_tokens=8)
    assert together == [answers(tiny, [p], max_new_tokens=8)[0] for p in phrasings]
