"""Bounds on margins and the fit that meets them, on a tiny random Llama."""

from dataclasses import replace

import pytest
import torch

from policies.editing.adapters import MERGED, STAGE, AdapterStack
from policies.editing.architectures import scaled_modules
from policies.editing.fit import FitOptions, Metric, NoProgressError, Problem, approach, fit, see
from policies.editing.model import LanguageModel, NotFiniteError, prompt_ids
from policies.editing.objectives import (
    Answers,
    doubted,
    kept,
    margins,
    restricted_head,
    token_logprobs,
    wanted,
)
from policies.editing.packing import Sequence_, scored_hidden, split_prefix
from policies.editing.wordings import parting
from store.facts import Phrasing

FIRST = 2
NONE = torch.zeros(0, dtype=torch.long)


def sequence(lm: LanguageModel, question: str, answer: list[int]) -> Sequence_:
    return split_prefix(lm, prompt_ids(lm, Phrasing(question, True)), answer)


@pytest.fixture
def stack(tiny: LanguageModel) -> AdapterStack:
    return AdapterStack(tiny, scaled_modules(tiny, FIRST))


def held(stack: AdapterStack, *asked: Sequence_) -> Answers:
    return kept(stack, asked, NONE, torch.Generator().manual_seed(0))[0]


def problem(stack: AdapterStack, want: Answers, keep: Answers) -> Problem:
    metric = Metric(torch.zeros(1, stack.size), eps=1.0, shrink=0.0)
    return Problem(stack, metric, want, keep, FitOptions(pulls=(1e-4,)), torch.zeros(stack.size))


def test_a_restricted_head_gives_the_margins_of_the_whole_one(stack: AdapterStack) -> None:
    """Log odds agree with those over the whole vocabulary when all of it is let in, and a head with
    only the likeliest rivals is smaller."""
    made = wanted(stack, [sequence(stack.lm, "Where is Ada?", [5, 6, 7])], NONE, goal=1.0)
    size, (batch,) = stack.lm.model.get_output_embeddings().weight.shape[0], made.batches
    with torch.no_grad():
        hidden = scored_hidden(stack.lm, batch.pack, batch.hidden, FIRST)
        head, _greedy = restricted_head(stack, batch, hidden, torch.arange(size))
        whole = margins(token_logprobs(stack.lm, batch, FIRST))
    assert torch.allclose(head.margins(hidden), whole, atol=1e-4)
    assert made.heads[0].weight.shape[0] < size


def test_kept_answers_are_not_short_where_the_model_is_as_it_was(stack: AdapterStack) -> None:
    """Nothing is lost before anything moved, and something is once the scales have."""
    made = held(stack, sequence(stack.lm, "Where is Ada?", [5, 6]))
    assert float(made.look(stack).shortfall.max()) < 1e-4
    stack.set(STAGE, torch.full((stack.size,), 0.5))
    assert float(made.look(stack).shortfall.max()) > 1e-4


def test_what_earlier_edits_did_to_kept_answers_is_made_good(stack: AdapterStack) -> None:
    """Where something is merged, a margin that fell since the base is short by that much, one that rose is
    not, and both adapters are left as they were."""
    asked = [sequence(stack.lm, "Where is Ada?", [token]) for token in (5, 9, 50, 100, 200)]
    every = torch.arange(stack.lm.model.get_output_embeddings().weight.shape[0])

    def kept_now() -> tuple[Answers, torch.Tensor]:
        made = kept(stack, asked, every, torch.Generator().manual_seed(0))[0]
        return made, torch.cat(made.bounds)

    _, base = kept_now()
    parent = torch.linspace(-0.5, 0.5, stack.size)
    stack.set(MERGED, parent)
    made, bounds = kept_now()
    with torch.no_grad():
        now = torch.cat([margins(token_logprobs(stack.lm, b, FIRST)) for b in made.batches])
    assert torch.allclose(bounds, torch.maximum(base, now), atol=1e-4)
    assert torch.allclose(made.look(stack).shortfall, (base - now).clamp(min=0), atol=1e-4)
    assert (base - now).max() > 0.005
    assert (now - base).max() > 0.005
    assert torch.allclose(stack.scales(MERGED), parent, atol=1e-6)
    assert not stack.scales(STAGE).any()


def test_tokens_that_are_due_need_a_margin_whatever_they_have(stack: AdapterStack) -> None:
    """The others keep what they have."""
    asked = [sequence(stack.lm, "Where is Ada?", [5, 6, 7]), sequence(stack.lm, "Who is Bob?", [9])]
    plain = held(stack, *asked)
    due = [slice(1, None), slice(0)]
    made = kept(stack, asked, NONE, torch.Generator().manual_seed(0), due, goal=1.0)[0]
    was, now = torch.cat(plain.bounds), torch.cat(made.bounds)
    assert (was < 0).all()
    owed = torch.tensor([False, True, True, False])
    assert torch.equal(now, torch.where(owed, torch.ones(4), was))


def test_a_look_is_linearised_by_its_exact_gradient(stack: AdapterStack, generator: torch.Generator) -> None:
    """The gradient of the loss agrees with finite differences in theta."""
    made = wanted(stack, [sequence(stack.lm, "Where is Ada?", [5, 6])], NONE, goal=1.0)
    _rows, gradient = made.look(stack).linearise(cap=3.0)
    direction, step, losses = torch.randn(stack.size, generator=generator), 1e-3, []
    for sign in (1, -1):
        stack.set(STAGE, sign * step * direction)
        losses.append(made.look(stack).loss(cap=3.0))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(gradient @ direction), abs=0.05)


def test_a_fit_raises_what_is_wanted_and_lowers_what_is_doubted(stack: AdapterStack) -> None:
    """A token gains odds and loses them again when doubted, kept answers hold, and the stage adapter
    is left at what was found."""
    asked = sequence(stack.lm, "Where is Ada?", [5])
    keep = held(stack, sequence(stack.lm, "Who is Bo?", [8, 9]))
    want = wanted(stack, [asked], NONE, goal=1.0)
    zero = torch.zeros(stack.size)
    short = float(want.look(stack).shortfall.max())
    found = fit(problem(stack, want, keep), zero, 30)
    assert found.gap < short - 0.5
    assert found.damage < FitOptions().damage
    assert float(want.look(stack).shortfall.max()) == pytest.approx(found.gap, abs=1e-3)
    stack.set(STAGE, zero)
    doubt = doubted(stack, [asked], NONE, goal=1.0)
    fit(problem(stack, doubt, keep), zero, 10)
    assert float(doubt.look(stack).shortfall.max()) < 1.0, "at zero it is the goal's 1 nat short"


def test_far_steps_look_at_one_batch_in_turn(stack: AdapterStack) -> None:
    """Answers of several batches all come nearer, though each step looks at one of them, and the stage
    adapter is left at what was found."""
    asked = [sequence(stack.lm, f"Where is Ada {'now' * i}?", [5]) for i in range(9)]
    want, keep = wanted(stack, asked, NONE, goal=1.0), held(stack, sequence(stack.lm, "Who is Bo?", [8, 9]))
    assert len(want.parts()) > 1
    short, asking = want.look(stack).shortfall, problem(stack, want, keep)
    found = approach(asking, torch.zeros(stack.size), 10)
    now = want.look(stack)
    assert bool((now.shortfall < short - 0.5).all())
    assert now.gap == pytest.approx(asking.gap(found), abs=1e-3)


def test_a_batch_is_expected_to_be_as_it_was_looked_at(stack: AdapterStack) -> None:
    """Where nothing moved the remembered gradient is the exact one; far along what made an answer short the
    other way, nothing is left of it."""
    asked = [sequence(stack.lm, "Where is Ada?", [5, 6])]
    want, zero = wanted(stack, asked, NONE, goal=1.0), torch.zeros(stack.size)
    seen = see(problem(stack, want, held(stack, *asked)), want, zero, cap=3.0, weight=2.0)
    stack.set(STAGE, zero)
    _rows, exact = want.look(stack).linearise(cap=3.0)
    gradient, rows = seen.at(zero)
    assert torch.allclose(gradient, 2 * exact, atol=1e-4)
    assert len(rows) == 1
    gradient, rows = seen.at(-1e3 * rows[0])
    assert len(rows) == 0
    assert not bool(gradient.any())


def test_a_fit_that_breaks_down_says_so(stack: AdapterStack) -> None:
    """Scales that aren't finite end in an error, not in an edit."""
    asked = sequence(stack.lm, "Where is Ada?", [5])
    want, keep = wanted(stack, [asked], NONE, goal=1.0), held(stack, asked)
    nowhere = torch.full((stack.size,), float("nan"))
    with pytest.raises(NoProgressError, match="finite"):
        fit(problem(stack, want, keep), nowhere, 5)
    with pytest.raises((NoProgressError, NotFiniteError), match="finite"):
        approach(problem(stack, want, keep), nowhere, 5)


def test_a_doubted_answer_is_scored_where_it_parts_from_the_new_one(tiny: LanguageModel) -> None:
    """Words that both answers begin with aren't doubted."""
    old, new = sequence(tiny, "Where?", [5, 6, 7]), sequence(tiny, "Where?", [5, 8])
    found = parting(old, new)
    assert found.ids[-2:] == (5, 6)
    assert found.answer == 1
    assert parting(old, replace(old, ids=old.ids[:-1])).ids[-1] == 6, "one is the beginning of the other"
