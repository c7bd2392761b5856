"""A real `edit` job of several edits on the tiny model: own vectors, one candidate, measured once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from policies.batches import OF_ONE_FACT
from policies.editing import jobs, merge
from policies.editing.architectures import scaled_modules
from policies.editing.bank import Bank, BankPrompt, Question, bank_rows, write
from policies.editing.model import load
from store.facts import EditRequest, FactKey, Phrasing, Suite
from store.wire import to_wire
from tests.editing.families import request

pytestmark = pytest.mark.slow

SHARED = {Suite.UNRELATED, Suite.LIVE_FACTS, Suite.OVER_REFUSAL, Suite.KL_DRIFT, Suite.PERPLEXITY}


def about(subject: str) -> EditRequest:
    made = request()
    asked = tuple(Phrasing(p.text.replace(made.key.subject, subject), p.is_question) for p in made.train)
    return replace(made, key=FactKey(subject, "city"), train=asked, held_out=asked)


ADA, BOB = about("Ada"), about("Bob")


@pytest.fixture
def base(tiny_dir: Path, tmp_path: Path) -> Path:
    """The tiny Llama as a base, with one prompt in its bank and one question for the gates."""
    lm = load(tiny_dir)
    modules = scaled_modules(lm, 2)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    gate = (Question("What is H2O?", "H2O", "water", ()),)
    kept = (BankPrompt("What is two and two?", "two", "four"),)
    write(tmp_path / "cache", Bank(kept, bank_rows(lm, modules, kept, lambda _stage: None), gate, ()))
    return tmp_path


def run(
    base: Path, name: str, *asked: EditRequest, parent: Path | None = None, live: tuple[EditRequest, ...] = ()
) -> tuple[Path, dict[str, Any], list[str]]:
    """The job's out folder, its result and the stages that it told of."""
    staging, out = base / f"{name}-staging", base / f"{name}-out"
    staging.mkdir()
    out.mkdir()
    said: list[str] = []
    job = {
        "kind": "edit", "dtype": "float32", "device": "cpu", "base": str(base / "base"),
        "cache": str(base / "cache"), "staging": str(staging), "out": str(out),
        "parent_theta": str(parent) if parent else None, "live": [to_wire(each) for each in live],
        "edits": [{"request": to_wire(each), "recipe": "unguarded"} for each in asked],
    }  # fmt: skip
    return out, jobs.run(job, said.append), said


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_finds_what_single_edits_find(base: Path) -> None:
    """Bit for bit the same vectors and the same model as one edit after the other."""
    both, found, said = run(base, "both", ADA, BOB)
    assert [each["status"] for each in found["edits"]] == ["edited", "edited"]
    ada, _, _ = run(base, "ada", ADA)
    bob, _, _ = run(base, "bob", BOB, parent=ada / jobs.THETA, live=(ADA,))
    assert same(both / jobs.DELTA.format(0), ada / jobs.DELTA.format(0))
    assert same(both / jobs.DELTA.format(1), bob / jobs.DELTA.format(0))
    assert same(both / jobs.THETA, bob / jobs.THETA)
    shard = merge.EDITABLE_SHARD
    assert (base / "both-staging" / shard).read_bytes() == (base / "bob-staging" / shard).read_bytes()
    assert any(stage.startswith("2 of 2, learn step") for stage in said)


def test_suites_of_a_fact_are_each_edits_and_those_of_the_model_are_asked_once(base: Path) -> None:
    """Every gate of every edit has exactly one reading, about its own subject where it is about one."""
    _, found, said = run(base, "both", ADA, BOB)
    assert {reading["suite"] for reading in found["readings"]} == SHARED
    for each, asked in zip(found["edits"], (ADA, BOB), strict=True):
        suites = [reading["suite"] for reading in each["readings"]]
        assert sorted(suites) == sorted(OF_ONE_FACT)
        (efficacy,) = (r for r in each["readings"] if r["suite"] == Suite.EFFICACY)
        assert {a["prompt"] for a in efficacy["answers"]} == {p.text for p in asked.train}
    assert said.count("measure drift") == 1
    assert SHARED.isdisjoint(OF_ONE_FACT)
    assert set(Suite) == SHARED | OF_ONE_FACT
