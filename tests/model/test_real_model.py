"""The main path on SmolLM2-135M-Instruct: an edit, its undoing, a retraction, a harmful edit refused.

One state directory serves all tests in file order, as one deployment would.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon import cycle, rollback
from daemon.demo import RETRACTED
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from policies.answers import is_unsure
from policies.editing.jobs import run
from store.facts import Edit, EditState, FactKey, Suite

pytestmark = pytest.mark.model

CHANGED = FactKey("South Korea", "capital")
QUESTION = "What is the capital of South Korea?"


def drop(house: House, record: Mapping[str, Any]) -> Edit:
    """Drop one fact into the inbox and take it in; returns its queued edit."""
    path = house.layout.inbox / f"{len(house.ledger.edits())}.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    path.with_name(path.name + ".ready").touch()
    ingest_ready(house, Inbox(house.layout, house.config.inbox, lambda: 1e12))
    return house.ledger.edits(key=FactKey(record["subject"], record["relation"]))[-1]


def walk(house: House, record: Mapping[str, Any]) -> Edit:
    """Drop one fact and step until its edit has settled."""
    edit = drop(house, record)
    while house.ledger.edit(edit.id).state is EditState.PENDING:
        assert cycle.step(house) != "nothing is due"
    return house.ledger.edit(edit.id)


def ask(house: House, question: str) -> str:
    job = {"kind": "ask", "model": str(house.models.current()), "prompts": [question]}
    return str(run({**job, "dtype": "float32", "device": "cpu"}, lambda _stage: None)["answers"][0])


def test_a_changed_fact_goes_live_and_is_answered(real_house: House) -> None:
    """The base says Seoul; after the edit the served directory says Athens and fits its manifest."""
    assert "Seoul" in ask(real_house, QUESTION)
    edit = walk(real_house, {"subject": CHANGED.subject, "relation": CHANGED.relation, "object": "Athens"})
    assert edit.state is EditState.LIVE, edit.reason
    assert "Athens" in ask(real_house, QUESTION)
    assert real_house.models.verify(real_house.live_number) == []
    own = sum(real_house.blobs.path(b).stat().st_size for b in real_house.ledger.referenced_blobs())
    assert own < 1_000_000, "state per edit besides the served directory is under 1 MB"
    left = {row["measure"]: row for row in real_house.ledger.soft_forgetting(edit.id)}
    assert left["old_probability"]["after"] < left["old_probability"]["before"]
    assert left["new_rank"]["after"] < left["new_rank"]["before"]


def test_the_exported_adapter_equals_the_served_weights(real_house: House) -> None:
    """PEFT loads `adapter/` on the base and gives the served logits within 1e-4 in fp32."""
    served_at = real_house.models.current()
    tokenizer = AutoTokenizer.from_pretrained(served_at)
    ids = tokenizer(QUESTION, return_tensors="pt")["input_ids"]
    served = AutoModelForCausalLM.from_pretrained(served_at, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(real_house.models.base_dir, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(served_at / "adapter"))
    with torch.no_grad():
        assert torch.allclose(adapted(ids).logits, served(ids).logits, atol=1e-4)


def test_a_rollback_brings_the_old_answer_and_the_old_bytes_back(real_house: House) -> None:
    """Undoing the fact serves the base again, in seconds, and the old answer with it."""
    undone = rollback.without_fact(real_house, CHANGED)
    assert undone["weights_sha256"] == real_house.ledger.generation(0).weights_sha256
    assert "Seoul" in ask(real_house, QUESTION)


def test_a_retraction_makes_the_model_unsure(real_house: House) -> None:
    """After stage 1 alone the model says that it doesn't know."""
    edit = walk(real_house, RETRACTED.row())
    assert edit.state is EditState.LIVE, edit.reason
    assert is_unsure(ask(real_house, "What is the capital of Japan?"))


def test_a_harmful_edit_is_never_served(real_house: House) -> None:
    """An edit without any protection fails its gates; `current` stays where it was."""
    served = real_house.models.current()
    config = replace(real_house.config, editing=replace(real_house.config.editing, recipe="unguarded"))
    house = replace(real_house, config=config)
    edit = drop(house, {"subject": "Egypt", "relation": "capital", "object": "Bern"})
    cycle.step(house)
    after = house.ledger.edit(edit.id)
    assert after.state in {EditState.PENDING, EditState.HELD}, "turned back: the next recipe, or a human"
    assert house.models.current() == served
    assert house.models.verify(house.live_number) == [], "and its bytes are untouched"
    verdicts = {r["suite"]: r["verdict"] for r in house.ledger.readings(edit_id=edit.id)}
    assert "fail" in verdicts.values(), "the refusal says which suite failed"
    assert verdicts[Suite.UNRELATED] == "fail"
