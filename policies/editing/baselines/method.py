"""What every editing method of the bench has in common: what it is given, what it leaves behind.

A method gets a model with the pristine base's weights, a `Task`, and returns a new `State`; it leaves
the model bit for bit as it found it. All of them train on the same wordings with the same targets.
Knows tensors and texts; doesn't know any one method, or how a state is measured.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.pytorch_utils import Conv1D

from policies.editing import merge
from policies.editing.architectures import ScaledModule, template_for
from policies.editing.bank import Bank, answer_sequence
from policies.editing.edit import TARGET_TOKENS, Before
from policies.editing.jobs import UNLEARN_CHECK
from policies.editing.model import LanguageModel, layers_attribute
from policies.editing.objectives import Batch, token_logprobs
from policies.editing.packing import Sequence_
from policies.editing.suites import readings, refusals, unrelated_questions
from policies.editing.targets import new_targets, widened
from store.facts import EditRequest, Phrasing, Reading, Suite

CHECK = "check"  # a stage that is measuring, not editing: its seconds don't count


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


@contextlib.contextmanager
def in_force(lm: LanguageModel, state: State) -> Iterator[None]:
    """Within the context `lm` has the state's weights; afterwards the very tensors it had before.

    Scales multiply first and deltas are added to the result, both in fp32, as a generation's fold does.
    """
    scaled = [m for m in state.modules if m.tensor in state.theta]
    names = {n for m in scaled for n in merge.touched(m)} | state.weights.keys()
    parameters = {n: p for n, p in lm.model.named_parameters() if n in names}
    saved = {n: p.data for n, p in parameters.items()}
    for name, tensor in merge.fold(saved, scaled, state.theta).items():
        added = state.weights.get(name)
        parameters[name].data = (
            tensor if added is None else (tensor.float() + added.to(tensor.device)).to(tensor.dtype)
        )
    try:
        yield
    finally:
        for name, tensor in saved.items():
            parameters[name].data = tensor


def phrased(task: Task, said_instead: str) -> list[tuple[Phrasing, str]]:
    """The wordings that the editor trains on, each with its target: `said_instead` as the object."""
    request, before = task.request, task.before
    given = {p.text: a for p, a in before.answers.items()}
    new = {n.casefold() for n in (request.new, *request.new_aliases) if n}
    named = (before.old, request.old, *request.old_aliases)
    old = list(dict.fromkeys(n for n in named if n and n.casefold() not in new))
    targets = new_targets(request.train, given, request.key.subject, said_instead, old)
    asked = widened(request.train)
    return [(p, targets[i]) for p, i in (*asked[::2], *asked[1::2])]


def training(lm: LanguageModel, task: Task, said_instead: str) -> list[Sequence_]:
    """The same as tokens, in the editor's own order."""
    return [answer_sequence(lm, p, t, limit=TARGET_TOKENS) for p, t in phrased(task, said_instead)]


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
    asked = unrelated_questions(world.bank.report, request, Suite.UNRELATED)[:UNLEARN_CHECK]
    return refusals(Suite.OVER_REFUSAL_UNLEARN, readings(world.lm, asked, [Suite.UNRELATED]))


def projections(lm: LanguageModel) -> tuple[ScaledModule, ...]:
    """Every linear map of every decoder layer as IA3 would scale it, in layer order: the last one of
    a feed-forward block on its input, all others on their output."""
    inner = template_for(lm.decoder.config.model_type).feedforward
    root = f"{lm.model.base_model_prefix}.{layers_attribute(lm.decoder)}"
    found = []
    for index, layer in enumerate(lm.layers):
        for path, module in layer.named_modules():
            if not isinstance(module, torch.nn.Linear | Conv1D):
                continue
            axis = int((path in inner) != isinstance(module, Conv1D))
            size = module.weight.shape[axis]
            found.append(ScaledModule(f"{root}.{index}.{path}", index, path in inner, axis, size))
    return tuple(found)


def middle_projection(lm: LanguageModel, share: float) -> ScaledModule:
    """The last map of the feed-forward block at `share` of the depth."""
    index = min(len(lm.layers) - 1, round(share * len(lm.layers)))
    return next(m for m in projections(lm) if m.layer == index and m.feedforward)


def add_weights(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Deltas of both, summed where they share a tensor."""
    return merge.add_thetas([one, other])


def unwrap(lm: LanguageModel, paths: Iterable[str]) -> None:
    """Put the base layers that PEFT wrapped back in their places; nothing is merged or unmerged."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        layer: Any = lm.model.get_submodule(path)
        setattr(lm.model.get_submodule(parent), name, layer.get_base_layer())
    if hasattr(lm.model, "peft_config"):
        del lm.model.peft_config
    lm.model._hf_peft_config_loaded = False
