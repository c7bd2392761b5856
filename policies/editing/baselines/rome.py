"""ROME: one feed-forward weight gets a rank-one update that answers the subject's key with a new value.

Source: Meng et al. 2022 (arXiv 2202.05262). Key k: mean input of the projection at the subject's last token
over the training wordings. Value: the output there, moved by delta so that the targets become
likely while "{subject} is a" goes on as before (KL). Update: delta u' / (u'k) with u = C^-1 k and
C = E[k k'] over the bank's prompts and plain texts. Two things differ: wordings are the ones that all
methods train on instead of sampled prefixes; C comes from some thousands of tokens, so its diagonal is
raised by `ridge`. Knows hooks and linear algebra; doesn't know what an edit is judged by.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from policies.editing.architectures import ScaledModule
from policies.editing.baselines.method import (
    Edited,
    Task,
    World,
    add_weights,
    in_force,
    likelihood,
    middle_projection,
    targets,
)
from policies.editing.edit import Stopwatch
from policies.editing.model import LanguageModel, chat_ids, upper_layers
from policies.editing.objectives import Batch, batches, logprobs
from policies.editing.packing import Sequence_, scored_hidden, split_prefix
from policies.probes import load_texts


@dataclass(frozen=True, slots=True)
class Rome:
    """`depth`: which layer, as a share of all; `kl`, `decay`: weights against the targets' loss;
    `step`: about how far one step of Adam moves delta, and `clamp`: how far all may, both as multiples of
    the value's own norm (published rates belong to one model's scale); `ridge`: share of C's mean diagonal
    added to it. The moments are computed once and kept."""

    depth: float = 0.5
    step: float = 0.5
    steps: int = 20
    kl: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    ridge: float = 0.05
    done: float = 0.05
    moments: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, world: World, task: Task) -> Edited:
        clock, module = Stopwatch(), middle_projection(world.lm, self.depth)
        if module.tensor not in self.moments:
            world.beat("second moment of keys")
            self.moments[module.tensor] = second_moment(world, module)
        clock.lap("prepare")
        with in_force(world.lm, task.state):
            site = site_of(world.lm, module, task, targets(world.lm, task))
            key, value = site.observe()
            delta = self._delta(world, site, value, essence_of(world.lm, module, task))
        update = torch.outer(delta, self._direction(module, key)).cpu()
        found = {module.tensor: update if module.axis == 1 else update.T.contiguous()}
        clock.lap("learn")
        state = replace(task.state, weights=add_weights(task.state.weights, found))
        return Edited(state, tuple(clock.laps), sum(update.shape) * 4)

    def _direction(self, module: ScaledModule, key: torch.Tensor) -> torch.Tensor:
        """u / (u'k) (d_in,)."""
        moment = self.moments[module.tensor].double()
        raised = moment + self.ridge * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
        solved = torch.linalg.solve(raised, key.double())
        direction: torch.Tensor = (solved / (solved @ key.double())).float()
        return direction

    def _delta(self, world: World, site: "Site", value: torch.Tensor, essence: "Site") -> torch.Tensor:
        """What the value (d_out,) must be moved by."""
        norm = float(value.norm())
        delta = torch.zeros_like(value, requires_grad=True)
        before = essence.next_token(delta).detach()
        optimiser = torch.optim.Adam([delta], lr=self.step * norm / len(delta) ** 0.5)
        for step in range(self.steps):
            optimiser.zero_grad()
            told = site.loss(delta)
            world.beat(f"rome step {step}: {told.item():.2f} nats")
            if told.item() < self.done:
                break
            drift = (before.exp() * (before - essence.next_token(delta))).sum()
            loss = told + self.kl * drift + self.decay * delta.norm() / norm**2
            loss.backward()
            optimiser.step()
            delta.data *= min(1.0, self.clamp * norm / max(delta.data.norm().item(), 1e-9))
        return delta.detach()


@dataclass(frozen=True, slots=True)
class Site:
    """Packed sequences and, for each of them, where in its pack the subject's last token is."""

    lm: LanguageModel
    module: ScaledModule
    batches: tuple[Batch, ...]
    places: tuple[torch.Tensor, ...]

    def observe(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (input (d_in,), output (d_out,)) of the projection at those places."""
        inputs, outputs = [], []
        for batch, places in zip(self.batches, self.places, strict=True):
            with torch.no_grad(), passing(self.lm, self.module) as seen:
                scored_hidden(self.lm, batch.pack, batch.hidden, self.module.layer)
            inputs.append(seen[0][0][0, places])
            outputs.append(seen[0][1][0, places])
        return torch.cat(inputs).mean(0), torch.cat(outputs).mean(0)

    def loss(self, delta: torch.Tensor) -> torch.Tensor:
        """Mean nats a target token with `delta` added at those places."""
        total = torch.zeros((), device=delta.device)
        for batch, places in zip(self.batches, self.places, strict=True):
            with moved(self.lm, self.module, places, delta):
                total = total + len(places) * likelihood(self.lm, [batch], self.module.layer)
        return total / sum(len(p) for p in self.places)

    def next_token(self, delta: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (S, V) at the scored positions of the first batch."""
        batch = self.batches[0]
        with moved(self.lm, self.module, self.places[0], delta):
            return logprobs(self.lm, batch, self.module.layer)


def site_of(lm: LanguageModel, module: ScaledModule, task: Task, sequences: Sequence[Sequence_]) -> Site:
    made = batches(lm, sequences, module.layer)
    places = []
    for batch in made:
        starts = [int((batch.pack.segment == k).nonzero()[0]) for k in range(len(batch.index))]
        own = [sequences[int(i)] for i in batch.index]
        offsets = [subject_end(lm, s, task.request.key.subject) for s in own]
        places.append(torch.tensor([a + b for a, b in zip(starts, offsets, strict=True)], device=lm.device))
    return Site(lm, module, tuple(made), tuple(places))


def essence_of(lm: LanguageModel, module: ScaledModule, task: Task) -> Site:
    """The prompt whose continuation says what kind of thing the subject is."""
    ids = list(lm.tokenizer(f"{task.request.key.subject} is a")["input_ids"])
    return site_of(lm, module, task, [split_prefix(lm, ids, ids[-1:])])


def subject_end(lm: LanguageModel, sequence: Sequence_, subject: str) -> int:
    """Index of the token that ends the first mention of `subject`; the prompt's last where there is none."""
    wanted = subject.casefold()
    for i in range(len(sequence.ids)):
        if wanted in lm.tokenizer.decode(list(sequence.ids[: i + 1])).casefold():
            return i
    return len(sequence.ids) - sequence.answer - 1


def second_moment(world: World, module: ScaledModule) -> torch.Tensor:
    """E[k k'] (d_in, d_in) of the projection's inputs, on the bank's prompts and texts never measured."""
    lm, n = world.lm, len(world.lm.prefix)
    prompts = [chat_ids(lm.tokenizer, p.question) for p in world.bank.prompts]
    texts = [(ids, n if tuple(ids[:n]) == lm.prefix else 0) for ids in prompts]
    texts += [(list(lm.tokenizer(t)["input_ids"]), 0) for t in load_texts("texts_bank")]
    moment, count = torch.zeros(0), 0
    with torch.no_grad(), upper_layers(lm, 0, module.layer + 1) as decoder, passing(lm, module) as seen:
        for ids, shared in texts:
            decoder(input_ids=torch.tensor([ids], device=lm.device), use_cache=False)
            keys = seen.pop()[0][0, shared:]
            moment = keys.T @ keys + (moment if count else 0)
            count += len(keys)
    return moment / count


@contextmanager
def passing(lm: LanguageModel, module: ScaledModule) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """What goes through the projection meanwhile: (input (1, T, d_in), output (1, T, d_out)) of each call."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = lm.model.get_submodule(module.path).register_forward_hook(
        lambda _m, args, output: seen.append((args[0], output))
    )
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def moved(
    lm: LanguageModel, module: ScaledModule, places: torch.Tensor, delta: torch.Tensor
) -> Iterator[None]:
    """Meanwhile the projection's output has `delta` (d_out,) added at `places`."""

    def add(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, places] = changed[0, places] + delta
        return changed

    handle = lm.model.get_submodule(module.path).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
