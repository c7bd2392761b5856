"""Soft forgetting measured on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.editing import latent, merge
from policies.editing.architectures import scaled_modules
from policies.editing.jobs import left_behind
from policies.editing.model import LanguageModel, chat_ids, decode, load, prompt_ids
from policies.editing.wordings import Before
from store.facts import AnswerKind, EditRequest, Latent, LatentReading, Op, Phrasing
from tests.editing.test_edit import FIRST, make_edit, request

SAID = Before({Phrasing("Where is Ada?", True): "Ada is in Oslo, far away."}, "Oslo", known=False)


def measured(lm: LanguageModel, asked: EditRequest) -> dict[Latent, LatentReading]:
    probes = latent.probes(lm, asked, SAID)
    assert probes is not None
    found = latent.ask(lm, probes)
    return {r.measure: r for r in latent.readings(probes, found, found)}


def test_every_measure_is_taken_and_twice_the_same(tiny: LanguageModel) -> None:
    """Nothing is drawn by chance, and a model compared with itself forgot nothing."""
    found = measured(tiny, request())
    assert set(found) == set(Latent)
    assert found == measured(tiny, request())
    assert all(r.before == r.after and r.n for r in found.values())
    assert found[Latent.OLD_RANK].n == 2, "one place for each training wording"
    assert all(a.before.startswith("O") for a in found[Latent.START].answers), "the begun answer is shown"


def test_rank_and_probability_are_those_of_a_plain_forward_pass(tiny: LanguageModel) -> None:
    """After the model's own sentence up to the object, old's first token has the rank that a sort gives."""
    probes = latent.probes(tiny, request(), SAID)
    assert probes is not None
    found = latent.ask(tiny, probes)
    contexts = [
        [*chat_ids(tiny.tokenizer, "Where is Ada?"), *tiny.tokenizer("Ada is in ")["input_ids"]],
        [*prompt_ids(tiny, Phrasing("Ada is in", False)), *tiny.tokenizer(" ")["input_ids"]],
    ]
    for context, old, new in zip(contexts, found.old, found.new, strict=True):
        p = tiny.model(torch.tensor([context])).logits[0, -1].softmax(-1)
        for token, name in ((old, "O"), (new, "R")):
            one = tiny.tokenizer(name)["input_ids"][0]
            assert p.argsort(descending=True).tolist().index(one) + 1 == token.rank
            assert token.p == pytest.approx(float(p[one]), rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "parted"), [("Oslo", "Osaka", "l"), ("York", "York City", "."), ("1809", "1922", "8")]
)
def test_a_place_ends_where_the_two_answers_part(
    tiny: LanguageModel, old: str, new: str, parted: str
) -> None:
    """What both objects begin with tells nothing, nor does a name that the other one only continues."""
    probes = latent.probes(tiny, replace(request(), old=old, new=new), replace(SAID, answers={}, old=old))
    assert probes is not None
    assert [decode(tiny, place.old.ids[-1:]) for place in probes.places] == [parted] * 2


def test_without_an_old_answer_nothing_is_asked(tiny: LanguageModel) -> None:
    """A model that believed nothing has nothing to forget."""
    assert latent.probes(tiny, replace(request(), old=None), replace(SAID, old=None)) is None
    assert latent.probes(tiny, replace(request(), old="rome"), SAID) is None


def test_a_retraction_has_no_new_answer_to_rank(tiny: LanguageModel) -> None:
    """What is left of the old one is measured all the same."""
    found = measured(tiny, request(Op.RETRACT))
    assert set(Latent) - set(found) == {Latent.NEW_RANK, Latent.NEW_PROBABILITY}
    assert {a.kind_before for r in found.values() for a in r.answers} <= set(AnswerKind) - {AnswerKind.NEW}


def test_a_conversation_begins_like_any_chat_prompt(tiny: LanguageModel) -> None:
    """Turns follow each other in the template's form, and the shared prefix is still shared."""
    ids = chat_ids(tiny.tokenizer, "Where?", "Here.", "Sure?")
    assert tuple(ids[: len(tiny.prefix)]) == tiny.prefix
    said = tiny.tokenizer.decode(ids)
    assert said.index("user\nWhere?") < said.index("assistant\nHere.") < said.index("user\nSure?")
    assert said.endswith("assistant\n")


def test_an_edit_pushes_the_old_answer_down_in_the_candidate_as_saved(
    tiny: LanguageModel, tiny_dir: Path, tmp_path: Path
) -> None:
    """Old falls and new rises from the generation before to the files that would be served."""
    modules = scaled_modules(tiny, FIRST)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    deltas = make_edit(tiny)
    theta = merge.split_theta(modules, deltas.unlearn + deltas.learn)
    merge.materialize(tmp_path / "base", theta, tmp_path / "staging")
    before = replace(SAID, answers={p: SAID.answers.get(p, "") for p in request().train})
    lm, candidate = load(tmp_path / "base"), load(tmp_path / "staging")
    found = {r.measure: r for r in left_behind(lm, tmp_path / "base", {}, candidate, request(), before)}
    assert found[Latent.OLD_PROBABILITY].after < found[Latent.OLD_PROBABILITY].before
    assert found[Latent.OLD_RANK].after > found[Latent.OLD_RANK].before
    assert found[Latent.NEW_RANK].after < found[Latent.NEW_RANK].before
    nothing = left_behind(
        lm, tmp_path / "base", {}, candidate, replace(request(), old=None), replace(before, old=None)
    )
    assert nothing == ()
