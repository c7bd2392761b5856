"""What of the bank may hold an edit back, and what may never be in it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.editing import bank
from policies.editing.architectures import scaled_modules
from policies.editing.bank import Bank, BankPrompt, Question
from policies.editing.measure import answers
from policies.editing.model import LanguageModel
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
    BankPrompt("Who is Ada's mother?", "Ada", "Eve"),
    BankPrompt("What is the capital of Bo?", "Bo", "Bern"),
    BankPrompt("What is the capital of Cy?", "Cy", "Cork"),
    BankPrompt("Who is the mother of Cy?", "Cy", "Fay"),
)
JUDGED = (Question("Where is Oslo?", "Oslo", "Norway", ()),)
BANK = Bank(PROMPTS, torch.arange(5.0)[:, None], JUDGED, ())


def test_an_edit_is_not_held_by_its_own_subject() -> None:
    """What mentions it must be free to change."""
    assert BANK.for_edit(REQUEST) == [0, 2, 3, 4]


def test_several_edits_are_held_by_none_of_their_subjects() -> None:
    """A live fact's subject leaves with the edited one."""
    live = replace(REQUEST, key=FactKey("cy", "mother"))
    assert BANK.for_edit(REQUEST, live) == [0, 2]


def test_a_judged_fact_is_known_either_way_round() -> None:
    """A gate's question and its answer in turn, whatever else is said of either."""
    assert BANK.judges("Oslo", "It lies in Norway, up north.")
    assert BANK.judges("norway", "The capital is Oslo.")
    assert not BANK.judges("Oslo", "It lies in Sweden.")
    assert not BANK.judges("Bergen", "It lies in Norway.")


def test_a_bank_apart_from_facts_asks_for_none_of_them() -> None:
    """Either way round; what else it knows of the same subjects stays, and rows go with their prompts."""
    left = BANK.apart_from([("In Cy, what is the capital?", "Cork"), ("Whose sum is four?", "two")])
    assert [p.subject for p in left.prompts] == ["Ada", "Bo", "Cy"]
    assert left.rows[:, 0].tolist() == [1.0, 2.0, 4.0]


def test_what_a_cache_knows_of_another_base_goes(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second `init` under the same name: its bank is taken, the remembered answers are forgotten."""
    monkeypatch.setattr(bank, "PROBES", 10)
    monkeypatch.setattr(bank, "SAMPLE", 1)
    modules, cache = scaled_modules(tiny, 2), tmp_path / "cache"

    def again(base: str) -> Bank:
        return bank.load_or_build(tiny, modules, tmp_path / "shared", cache, base, lambda _stage: None)

    first = again("one")
    first.memo.answers(tiny, [Phrasing("Where is Ada?", True)], max_new_tokens=2)
    assert again("one").prompts == first.prompts
    assert (cache / bank.SAID).exists()
    again("two")
    assert not (cache / bank.SAID).exists()
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_a_bank_from_before_goes_on_without_its_neighbours(tmp_path: Path) -> None:
    """Prompts with a relation, which earlier banks had, are left out with their rows."""
    bank.write(tmp_path, BANK)
    file = tmp_path / "bank.json"
    record = json.loads(file.read_text("utf-8"))
    record["prompts"] = [[*p, "capital" if "capital" in p[0] else ""] for p in record["prompts"]]
    file.write_text(json.dumps(record), "utf-8")
    found = bank.read(tmp_path)
    assert [p.subject for p in found.prompts] == ["two", "Ada", "Cy"]
    assert found.rows[:, 0].tolist() == [0.0, 1.0, 4.0]


def test_an_answer_is_the_same_alone_and_among_others(tiny: LanguageModel) -> None:
    """Answers that end early leave the batch without changing those that go on."""
    phrasings = [Phrasing(f"Where is {name}?", True) for name in ("Ada", "Bo", "the old house of Cy")]
    together = answers(tiny, phrasings, max_new_tokens=8)
    assert together == [answers(tiny, [p], max_new_tokens=8)[0] for p in phrasings]
