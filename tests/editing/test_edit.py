"""One whole edit on a tiny random model: both stages, nothing left behind."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policies.editing import edit as editor
from policies.editing import merge
from policies.editing.architectures import scaled_modules
from policies.editing.bank import Bank, BankPrompt, bank_rows
from policies.editing.edit import Deltas, ask_before, edit
from policies.editing.fit import NoProgressError, Problem, approach
from policies.editing.model import LanguageModel, load
from policies.editing.wordings import Before
from policies.recipe import DEFAULT, RECIPES, recipe_named
from store.errors import ConfigError
from store.facts import EditRequest, FactKey, Op, Phrasing, Reading

FIRST = 2


def request(op: Op = Op.UPSERT) -> EditRequest:
    train = (Phrasing("Where is Ada?", True), Phrasing("Ada is in", False))
    return EditRequest(
        key=FactKey("Ada", "place"),
        op=op,
        new=None if op is Op.RETRACT else "Rome",
        new_aliases=(),
        old="Oslo",
        old_aliases=(),
        train=train,
        held_out=(),
        templates=(Phrasing("Where is {subject}?", True),),
        held_out_templates=(Phrasing("Say where {subject} is.", True),),
        neighbours=("Bo", "Cy"),
    )


def make_edit(
    lm: LanguageModel,
    op: Op = Op.UPSERT,
    old: str = "Oslo",
    check: Callable[[], tuple[Reading, ...]] = tuple,
    merged: float = 0.0,
    live: tuple[EditRequest, ...] = (),
) -> Deltas:
    """The edit on top of a parent whose log scales are all `merged`."""
    modules = scaled_modules(lm, FIRST)
    prompts = (BankPrompt("What is two and two?", "two", "four"), BankPrompt("Where is Ada now?", "Ada", "x"))
    bank = Bank(prompts, bank_rows(lm, modules, prompts, lambda _stage: None), (), ())
    asked = replace(request(op), old=old)
    before = Before(dict.fromkeys(asked.train, "I can't say."), old, known=False)
    parent = torch.full((sum(m.size for m in modules),), merged)
    return edit(
        lm,
        modules,
        bank,
        parent,
        asked,
        before,
        DEFAULT,
        lambda _stage: None,
        live=live,
        check_unlearned=check,
    )


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What each stage with far steps sets out to solve, in order, as edits are made."""
    seen: list[Problem] = []

    def watched(problem: Problem, *rest: Any) -> torch.Tensor:
        seen.append(problem)
        return approach(problem, *rest)

    monkeypatch.setattr(editor, "approach", watched)
    return seen


def weights(lm: LanguageModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_an_edit_is_two_adapters_that_move_toward_their_goals(tiny: LanguageModel) -> None:
    """Both stages give non-zero vectors and the new answer becomes likelier than it was."""
    before = weights(tiny)
    deltas = make_edit(tiny)
    assert bool(deltas.unlearn.any())
    assert bool(deltas.learn.any())
    assert weights(tiny) == before, "edit computes deltas; it must leave the model as it was"
    assert {s for s, _ in deltas.seconds} == {
        "neighbours",
        "localise",
        "prepare",
        "unlearn",
        "check",
        "learn",
    }
    assert deltas.scores[0].effect is not None, "the strongest module is checked by patching"


def test_a_retraction_ends_after_stage_one(tiny: LanguageModel) -> None:
    """A retraction has an unlearn adapter and nothing to learn."""
    deltas = make_edit(tiny, Op.RETRACT)
    assert bool(deltas.unlearn.any())
    assert not bool(deltas.learn.any())


def test_a_retraction_keeps_what_the_bank_answers_but_for_live_facts(
    tiny: LanguageModel, problems: list[Problem]
) -> None:
    """Doubt spreads beyond a relation, so answers of the bank are kept; not those that live facts changed."""
    two = replace(request(), key=FactKey("two", "place"), train=())
    make_edit(tiny, Op.RETRACT)
    make_edit(tiny, Op.RETRACT, live=(two,))
    make_edit(tiny)
    counts = [p.kept.count for p in problems]
    assert counts[0] == counts[1] + 1, "of two prompts of the bank, one is about the edited subject"
    assert counts[2] == counts[1], "an update keeps its relation's answers alone"


def test_a_model_that_half_knows_the_new_answer_has_nothing_to_unlearn(tiny: LanguageModel) -> None:
    """The new answer is never made doubtful, even where the model was found to believe in it."""
    deltas = make_edit(tiny, old="rome")
    assert not bool(deltas.unlearn.any())
    assert bool(deltas.learn.any())


def test_the_same_edit_twice_gives_the_same_vectors(tiny: LanguageModel, tiny_dir: Path) -> None:
    """On one machine an edit is a function of its inputs, bit for bit."""
    first, second = make_edit(tiny), make_edit(load(tiny_dir))
    assert torch.equal(first.unlearn, second.unlearn)
    assert torch.equal(first.learn, second.learn)


def test_far_steps_are_shorter_in_a_model_that_was_edited_before(
    tiny: LanguageModel, problems: list[Problem]
) -> None:
    """Both stages start with more damping where earlier edits are in force than on the base."""
    make_edit(tiny)
    make_edit(tiny, merged=0.01)
    assert [p.options.rho for p in problems] == [DEFAULT.rho] * 2 + [DEFAULT.rho * DEFAULT.rho_edited] * 2
    assert DEFAULT.rho_edited > 1


def test_a_known_fact_needs_most_wordings_of_either_kind(tiny: LanguageModel) -> None:
    """A random model doesn't know the fact, and its belief is none."""
    found = ask_before(tiny, request())
    assert not found.known
    assert set(found.answers) == set(request().train)


def test_a_delta_for_another_model_is_refused(tiny: LanguageModel) -> None:
    """Vectors that name no editable tensor are an error, not silence."""
    with pytest.raises(Exception, match="no such editable tensor"):
        merge.join_theta(scaled_modules(tiny, FIRST), {"other.weight": torch.zeros(3)})


def test_recipes_are_named() -> None:
    """The ladder's recipes exist; an unknown one is refused with the known names."""
    assert set(RECIPES) >= {"default", "gentle"}
    with pytest.raises(ConfigError, match="known: default"):
        recipe_named("nonsense")


def test_a_fit_in_half_precision_judges_and_leaves_the_weights_as_served(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the stages and afterwards the weights are those that were there; vectors repeat."""
    monkeypatch.setattr(editor, "fit_dtype", lambda _lm: torch.bfloat16)
    before, seen = weights(tiny), []

    def check() -> tuple[Reading, ...]:
        seen.append({p.dtype for n, p in tiny.model.named_parameters() if "ia3_l" not in n})
        return ()

    first, second = (make_edit(tiny, check=check) for _ in range(2))
    assert weights(tiny) == before
    assert set(map(frozenset, seen)) == {frozenset({torch.float32})}
    assert torch.equal(first.learn, second.learn)


def test_an_edit_that_fails_in_half_precision_is_tried_as_served(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt decides; without a faster dtype there is only one."""
    tried: list[torch.dtype] = []

    class Stuck(editor._Editor):
        def run(self, check_unlearned: object) -> Deltas:
            tried.append(self.lm.model.dtype)
            raise NoProgressError("fit", "here", "stuck")

    monkeypatch.setattr(editor, "_Editor", Stuck)
    monkeypatch.setattr(editor, "fit_dtype", lambda _lm: torch.bfloat16)
    with pytest.raises(NoProgressError):
        make_edit(tiny)
    assert tried == [torch.bfloat16, torch.float32]
