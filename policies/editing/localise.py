"""Where a fact lives: attribution to modules, checked by causal patching.

Attribution: gradient times log scale, |sum over phrasings of d log p(answer) / d theta| summed over a
module's coordinates (first order: what scaling that module's activations would do). Patching: the
module's activations at the position that predicts the object are replaced with those of another
subject's prompt of the same wording; the fall of log p(answer) is the module's causal effect (Meng et
al. 2022, arXiv 2202.05262). Knows modules and probabilities; doesn't know how an edit is made.
"""

import random
from collections.abc import Sequence

import torch

from policies.editing.adapters import AdapterStack
from policies.editing.objectives import Batch, token_logprobs
from store.facts import ModuleScore

PATCHED = 6  # top modules that are checked by patching


def localise(stack: AdapterStack, facts: Batch, others: Batch | None) -> tuple[ModuleScore, ...]:
    """All modules with their attribution, strongest first; the top ones also patched.

    `facts` holds the edited subject's prompts with the answer that the model gives now; `others` the
    same wordings, in the same order, for other subjects.
    """
    with stack.recording() as recorder:
        gradient = recorder.gradient(token_logprobs(stack.lm, facts, stack.first).sum()).cpu()
    strength = [float(gradient[part].abs().sum()) for part in stack.slices]
    order = sorted(range(len(strength)), key=lambda i: (-strength[i], i))
    effects = patch(stack, order[:PATCHED], facts, others) if others else {}
    return tuple(ModuleScore(stack.modules[i].path, strength[i], effects.get(i)) for i in order)


def patch(stack: AdapterStack, modules: Sequence[int], facts: Batch, others: Batch) -> dict[int, float]:
    """Mean fall of log p (nats) of the answer when a module is fed the other subjects' activations."""
    places, donors = answer_positions(facts), answer_positions(others)
    count = min(len(places), len(donors))
    effects = {}
    with torch.no_grad():
        clean = token_logprobs(stack.lm, facts, stack.first).sum()
        with stack.recording() as recorder:
            token_logprobs(stack.lm, others, stack.first)
            donated = [a[0, donors[:count]].clone() for a in recorder.activations if a is not None]
        for i in modules:
            handle = stack.replace_activation(i, places[:count], donated[i])
            try:
                patched = token_logprobs(stack.lm, facts, stack.first).sum()
            finally:
                handle.remove()
            effects[i] = float(clean - patched) / max(1, count)
    return effects


def answer_positions(batch: Batch) -> torch.Tensor:
    """For each sequence the position that predicts its first scored token."""
    owner = batch.pack.owner
    starts = torch.ones_like(owner, dtype=torch.bool)
    starts[1:] = owner[1:] != owner[:-1]
    return batch.pack.scored[starts]


def frozen_coordinates(
    stack: AdapterStack, scores: Sequence[ModuleScore], share: float
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """(mask (P,) of coordinates that stay, paths of the chosen modules): the strongest modules that
    together carry `share` of the attribution are chosen."""
    total = sum(s.attribution for s in scores)
    chosen: list[str] = []
    carried = 0.0
    for score in scores:
        if chosen and carried >= share * total:
            break
        chosen.append(score.module)
        carried += score.attribution
    return _all_but(stack, chosen), tuple(chosen)


def random_coordinates(stack: AdapterStack, count: int, seed: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The same for `count` modules drawn by chance: the baseline that localisation has to beat."""
    chosen = random.Random(seed).sample([m.path for m in stack.modules], count)
    return _all_but(stack, chosen), tuple(chosen)


def _all_but(stack: AdapterStack, chosen: Sequence[str]) -> torch.Tensor:
    return torch.cat([torch.full((m.size,), m.path not in set(chosen)) for m in stack.modules])
