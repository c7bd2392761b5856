"""What an edit should and should not change, as residuals of a least-squares problem.

Wanted: log p(target | prompt) of every training phrasing reaches a goal. Kept: every token of a
retained answer keeps its margin, the log odds against all other tokens, up to `KEPT_MARGIN`; a
greedy answer can only change where a margin falls below zero, and unlike log-probabilities margins
don't saturate. Knows tokens and logits; doesn't know adapters' parametrisation or step control.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from policies.editing.adapters import AdapterStack
from policies.editing.model import LanguageModel
from policies.editing.packing import Pack, Sequence_, chunks, lower_hidden, pack, scored_logits

KEPT_MARGIN = 3.0  # nats


@dataclass(frozen=True, slots=True)
class Batch:
    """A pack, the hidden states (T, D) entering the first editable layer, and which of the
    caller's sequences it holds (`index`, one for each segment)."""

    pack: Pack
    hidden: torch.Tensor
    index: torch.Tensor  # (segments,)

    @property
    def owner(self) -> torch.Tensor:
        """The caller's sequence of each scored token (S,)."""
        return self.index[self.pack.owner]


def batches(lm: LanguageModel, sequences: Sequence[Sequence_], first: int, tokens: int = 600) -> list[Batch]:
    """Pack `sequences` and run the layers below `first` once: no adapter reaches them."""
    made = []
    for picked in chunks(sequences, tokens):
        packed = pack(lm, [sequences[i] for i in picked])
        made.append(Batch(packed, lower_hidden(lm, packed, first), torch.tensor(picked, device=lm.device)))
    return made


def token_logprobs(lm: LanguageModel, batch: Batch, first: int) -> torch.Tensor:
    """log p of every scored token (S,)."""
    logits = scored_logits(lm, batch.pack, batch.hidden, first)
    return logits.log_softmax(-1).gather(1, batch.pack.targets[:, None])[:, 0]


def margins(logprobs: torch.Tensor) -> torch.Tensor:
    """Log odds log p - log(1 - p) of each token; clamped where fp32 can't tell p from 1."""
    return logprobs - torch.log1p(-logprobs.exp().clamp(max=1 - 1e-6))


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals (n,) in nats, their rows (n, P) = -d residual / d theta, and the exact gradient (P,)
    of the loss that they make up. Rows lack the shared prefix's part, the gradient has it."""

    values: torch.Tensor
    rows: torch.Tensor
    gradient: torch.Tensor
    loss: float


@dataclass(slots=True)
class Wanted:
    """Training phrasings with their targets: residual i is how far log p(target_i) is below `goal`.

    The loss is quadratic up to `cap` nats and linear beyond (Huber): an answer that is still far away
    pulls no harder than that.
    """

    batches: list[Batch]
    count: int
    goal: float
    cap: float

    def residuals(self, stack: AdapterStack, first: int) -> Residuals:
        gaps = torch.zeros(self.count)
        rows, gradient = torch.zeros(self.count, stack.size), torch.zeros(stack.size)
        for batch in self.batches:
            with stack.recording() as recorder:
                logprobs = token_logprobs(stack.lm, batch, first)
                said = logprobs.new_zeros(len(batch.index)).index_add_(0, batch.pack.owner, logprobs)
                gap = (self.goal - said.detach()).clamp(min=0)
                weight = gap.clamp(min=0.1, max=self.cap)
                own, whole = recorder.rows((weight * said).sum(), batch.pack.segment, len(batch.index))
                at = batch.index.cpu()
                gaps[at] = gap.cpu()
                rows[at] = (own / weight[:, None]).cpu()
                gradient -= whole.cpu()
        short = gaps.clamp(max=self.cap)
        loss = float((short * (gaps - short / 2)).sum())
        return Residuals(gaps.clamp(max=self.cap), rows, gradient, loss)


@dataclass(slots=True)
class Kept:
    """Retained answers; `floors` holds for each batch the margin (S,) that each token must keep.
    Residual i is the root of its summed squared shortfalls."""

    batches: list[Batch]
    count: int
    floors: list[torch.Tensor]

    @classmethod
    def at_present(
        cls, stack: AdapterStack, sequences: Sequence[Sequence_], first: int, tokens: int = 600
    ) -> "Kept":
        """Keep what the model answers now."""
        made = batches(stack.lm, sequences, first, tokens)
        with torch.no_grad():
            floors = [margins(token_logprobs(stack.lm, b, first)).clamp(max=KEPT_MARGIN) for b in made]
        return cls(made, len(sequences), floors)

    def damage(self, stack: AdapterStack, first: int) -> torch.Tensor:
        """How far each sequence's margins are below their floors (n,), nats."""
        damage = torch.zeros(self.count)
        with torch.no_grad():
            for batch, floor in zip(self.batches, self.floors, strict=True):
                damage[batch.index.cpu()] = self._squares(stack, batch, floor, first).sqrt().cpu()
        return damage

    def residuals(self, stack: AdapterStack, first: int) -> Residuals:
        damage = torch.zeros(self.count)
        rows, gradient = torch.zeros(self.count, stack.size), torch.zeros(stack.size)
        for batch, floor in zip(self.batches, self.floors, strict=True):
            with stack.recording() as recorder:
                squares = self._squares(stack, batch, floor, first)
                own, whole = recorder.rows(squares.sum() / 2, batch.pack.segment, len(batch.index))
                hurt = squares.detach().sqrt()
                at = batch.index.cpu()
                damage[at] = hurt.cpu()
                rows[at] = -(own / hurt.clamp(min=0.05)[:, None]).cpu()
                gradient += whole.cpu()
        return Residuals(damage, rows, gradient, float(damage.square().sum() / 2))

    def _squares(self, stack: AdapterStack, batch: Batch, floor: torch.Tensor, first: int) -> torch.Tensor:
        short = (floor - margins(token_logprobs(stack.lm, batch, first))).clamp(min=0)
        return short.new_zeros(len(batch.index)).index_add_(0, batch.pack.owner, short.square())


def retention_rows(
    stack: AdapterStack, batch_list: Sequence[Batch], count: int, first: int, generator: torch.Generator
) -> torch.Tensor:
    """One row (P,) a sequence: sum over its answer tokens of s_t * w_t * d margin_t / d theta with
    random signs s_t, so that row'row is an unbiased piece of sum_t w_t^2 (d margin_t)(d margin_t)'.
    w_t = 1 / max(1, margin_t / 2): a wide margin may move more."""
    rows = torch.zeros(count, stack.size)
    for batch in batch_list:
        with stack.recording() as recorder:
            margin = margins(token_logprobs(stack.lm, batch, first))
            signs = torch.randint(0, 2, margin.shape, generator=generator).to(margin) * 2 - 1
            weight = 1 / (margin.detach().abs() / 2).clamp(min=1)
            objective = (signs * weight * margin).sum()
            found, _ = recorder.rows(objective, batch.pack.segment, len(batch.index))
            rows[batch.index.cpu()] = found.cpu()
    return rows
