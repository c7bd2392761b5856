"""What every editing method of the bench has in common: what it is given, what it leaves behind.

A method gets a model with the pristine base's weights, a `Task`, and returns a new `State`; it leaves
the model bit for bit as it found it. All of them train on the same wordings; the editor alone knows the
objects of neighbours, so its targets may follow the model's own sentence where the others' borrow one.
Knows tensors and texts; doesn't know any one method, or how a state is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from transformers.pytorch_utils import Conv1D

from policies.editing import merge
from policies.editing.architectures import ScaledModule, scaled_module, template_for
from policies.editing.bank import Bank
from policies.editing.jobs import check_unlearned, folded_weights
from policies.editing.model import LanguageModel, layers_attribute, swapped
from policies.editing.objectives import Batch, token_logprobs
from policies.editing.packing import Sequence_
from policies.editing.wordings import Before, wordings
from store.facts import EditRequest, Phrasing, Reading


@dataclass(frozen=True, slots=True)
class World:
    """What stays the same for all cases: the base, its directory and what it knows."""

    lm: LanguageModel
    base: Path
    bank: Bank
    beat: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact as a sentence that can be put in a prompt."""

    subject: str
    sentence: str


@dataclass(frozen=True, slots=True)
class State:
    """What edits made of the base so far: log scales `theta` of `modules`, `weights` to be added
    (tensor name -> fp32, of that tensor's shape), `facts` to be put in prompts. With `everywhere` all
    facts stand before every question, else those whose subject the question names."""

    theta: Mapping[str, torch.Tensor] = field(default_factory=dict)
    modules: tuple[ScaledModule, ...] = ()
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    everywhere: bool = False

    def norm(self) -> float:
        """|theta|, or the Frobenius norm of all that is added to weights; 0 where neither is."""
        parts = [*self.theta.values(), *self.weights.values()]
        return float(torch.stack([p.double().square().sum() for p in parts]).sum().sqrt()) if parts else 0.0

    def norm_of(self) -> str:
        return "log scales" if self.theta else "weight deltas" if self.weights else "nothing"

    def wrap(self, phrasing: Phrasing) -> Phrasing:
        """What is asked for `phrasing`: the facts that apply, then its text."""
        text = phrasing.text.casefold()
        said = [f.sentence for f in self.facts if self.everywhere or f.subject.casefold() in text]
        return replace(phrasing, text=" ".join([*said, phrasing.text]))


@dataclass(frozen=True, slots=True)
class Task:
    """One edit: on top of `state`, where `live` are the requests edited before."""

    request: EditRequest
    before: Before
    state: State = field(default_factory=State)
    live: tuple[EditRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Edited:
    """The state after an edit; seconds of each stage; `size`, bytes to keep for this edit alone;
    `doubt`, over-refusal with stage 1 alone in force, None where there is no stage 1."""

    state: State
    seconds: tuple[tuple[str, float], ...]
    size: int
    doubt: Reading | None = None


class Method(Protocol):
    """Edits one fact. Raises NoProgressError when it can't; the state then stays as it was."""

    def __call__(self, world: World, task: Task, /) -> Edited: ...


def in_force(lm: LanguageModel, state: State) -> AbstractContextManager[None]:
    """Within the context `lm` has the state's weights; afterwards the very tensors it had before.

    Scales multiply first and deltas are added to the result, both in fp32, as a generation's fold does.
    """
    weights = folded_weights(lm, state.modules, state.theta)
    for name, added in state.weights.items():
        held = weights.get(name, lm.model.get_parameter(name).data)
        weights[name] = (held.float() + added.to(held.device)).to(held.dtype)
    return swapped(lm, weights)


def targets(lm: LanguageModel, task: Task) -> list[Sequence_]:
    """The wordings that the editor trains on, with the new object, in the editor's own order."""
    new = task.request.new or ""
    return [w.tokens(lm, new) for w in wordings(lm, task.request, task.before, new)]


def likelihood(lm: LanguageModel, batches: Sequence[Batch], first: int) -> torch.Tensor:
    """Mean negative log-probability (nats) of a scored token, over sequences of equal weight."""
    losses = []
    for batch in batches:
        logs = token_logprobs(lm, batch, first)
        count = torch.bincount(batch.pack.owner, minlength=len(batch.index)).to(logs)
        losses.append(-logs.new_zeros(len(batch.index)).index_add_(0, batch.pack.owner, logs) / count)
    return torch.cat(losses).mean()


def doubt_now(world: World, request: EditRequest) -> Reading:
    """Over-refusal of the model as it stands, on reported questions that it answered as the base."""
    return check_unlearned(world.lm, world.bank.report, request)


def projections(lm: LanguageModel) -> tuple[ScaledModule, ...]:
    """Every linear map of every decoder layer as IA3 would scale it, in layer order: the last one of
    a feed-forward block on its input, all others on their output."""
    template = template_for(lm.decoder.config.model_type)
    root = f"{lm.model.base_model_prefix}.{layers_attribute(lm.decoder)}"
    return tuple(
        replace(scaled_module(lm, template, f"{root}.{index}.{path}", index, path), fixed=0)
        for index, layer in enumerate(lm.layers)
        for path, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    )


def middle_projection(lm: LanguageModel, share: float) -> ScaledModule:
    """The last map of the feed-forward block at `share` of the depth."""
    index = min(len(lm.layers) - 1, round(share * len(lm.layers)))
    return next(m for m in projections(lm) if m.layer == index and m.feedforward)


def add_weights(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Deltas of both, summed where they share a tensor."""
    return merge.add_thetas([one, other])
