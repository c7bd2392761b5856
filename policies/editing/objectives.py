"""What an edit should and should not change, as shortfalls of token margins.

The margin of a token is its log odds against all other tokens: below zero another token may win a
greedy choice, above zero none can, and unlike log-probabilities margins don't saturate. Answers that
are kept, wanted or doubted differ only in the bound that each of their tokens' margins should
respect. Knows tokens and logits; doesn't know adapters' parametrisation or step control.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from policies.editing.adapters import MERGED, AdapterStack, Recorder
from policies.editing.model import LanguageModel
from policies.editing.packing import Pack, Sequence_, chunks, lower_hidden, pack, scored_hidden

KEPT_MARGIN = 3.0  # nats
PACK_TOKENS = 240
RIVALS = 50  # likeliest tokens at each position that stay in a restricted head

Bounds = Callable[["Present"], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """A pack, the hidden states (T, D) entering the first editable layer, and which of the
    caller's sequences it holds (`index`, one for each segment)."""

    pack: Pack
    hidden: torch.Tensor
    index: torch.Tensor  # (segments,)

    def sums(self, scored: torch.Tensor) -> torch.Tensor:
        """A number for each scored token (S,), summed by its segment (segments,)."""
        return scored.new_zeros(len(self.index)).index_add_(0, self.pack.owner, scored)


def batches(
    lm: LanguageModel, sequences: Sequence[Sequence_], first: int, tokens: int = PACK_TOKENS
) -> list[Batch]:
    """Pack `sequences` and run the layers below `first` once: no adapter reaches them."""
    made = []
    for picked in chunks(sequences, tokens):
        packed = pack(lm, [sequences[i] for i in picked])
        made.append(Batch(packed, lower_hidden(lm, packed, first), torch.tensor(picked, device=lm.device)))
    return made


def logprobs(lm: LanguageModel, batch: Batch, first: int) -> torch.Tensor:
    """log p of every token of the vocabulary (S, V) at the scored positions."""
    hidden = scored_hidden(lm, batch.pack, batch.hidden, first)
    logits: torch.Tensor = lm.model.get_output_embeddings()(hidden)
    return logits.float().log_softmax(-1)


def token_logprobs(lm: LanguageModel, batch: Batch, first: int) -> torch.Tensor:
    """log p of every scored token (S,)."""
    return logprobs(lm, batch, first).gather(1, batch.pack.targets[:, None])[:, 0]


def margins(logs: torch.Tensor) -> torch.Tensor:
    """Log odds log p - log(1 - p) of each token; clamped where fp32 can't tell p from 1."""
    return logs - torch.log1p(-logs.exp().clamp(max=1 - 1e-6))


@dataclass(frozen=True, slots=True)
class Head:
    """The rows of the output embedding that can matter at a batch's scored positions: a tenth of
    the whole head's cost. `targets` (S,) index into `weight` (C, D)."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    targets: torch.Tensor

    def margins(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        picked: torch.Tensor = logits.log_softmax(-1).gather(1, self.targets[:, None])[:, 0]
        return margins(picked)


@torch.no_grad()
def restricted_head(
    stack: AdapterStack, batch: Batch, hidden: torch.Tensor, also: torch.Tensor
) -> tuple[Head, torch.Tensor]:
    """(head over the present `RIVALS`, the targets and `also`; whether each target is the greedy choice
    (S,)), from the present final states (S, D)."""
    whole = stack.lm.model.get_output_embeddings()
    logits = whole(hidden).float()
    rivals = logits.topk(min(RIVALS, logits.shape[-1]), -1).indices.flatten()
    kept = torch.unique(torch.cat([rivals, batch.pack.targets, also.to(rivals)]))
    bias = None if whole.bias is None else whole.bias[kept]
    head = Head(whole.weight[kept], bias, torch.searchsorted(kept, batch.pack.targets))
    return head, logits.argmax(-1) == batch.pack.targets


@dataclass(frozen=True, slots=True)
class Present:
    """A batch as the model answers it now: each token's margin (S,), and whether it is the greedy choice."""

    batch: Batch
    head: Head
    recorder: Recorder
    margin: torch.Tensor
    greedy: torch.Tensor


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers with a bound (S,) for each token's margin: a floor, or with `sign` -1 a ceiling. `decisive`
    (S,): the tokens that tell whether an answer is given; the others lead to them."""

    batches: tuple[Batch, ...]
    heads: tuple[Head, ...]
    bounds: tuple[torch.Tensor, ...]
    decisive: tuple[torch.Tensor, ...]
    count: int
    sign: int = 1

    def parts(self) -> list["Answers"]:
        """Each batch by itself; shortfalls and rows keep their places among all."""
        every = zip(self.batches, self.heads, self.bounds, self.decisive, strict=True)
        return [
            replace(self, batches=(batch,), heads=(head,), bounds=(bound,), decisive=(deciding,))
            for batch, head, bound, deciding in every
        ]

    def look(self, stack: AdapterStack) -> "Look":
        """Shortfalls with the adapters as they are now, and all that their derivatives need."""
        shortfall, parts, gap = torch.zeros(self.count), [], 0.0
        every = zip(self.batches, self.heads, self.bounds, self.decisive, strict=True)
        for batch, head, bound, decisive in every:
            with stack.recording() as recorder:
                margin = head.margins(scored_hidden(stack.lm, batch.pack, batch.hidden, stack.first))
            short = (self.sign * (bound - margin)).clamp(min=0)
            squares = batch.sums(short.square())
            shortfall[batch.index.cpu()] = squares.detach().sqrt().cpu()
            parts.append((batch, recorder, squares))
            gap = max(gap, float(batch.sums((short.detach() * decisive).square()).max().sqrt()))
        return Look(shortfall, gap, parts, stack.size)


@dataclass(frozen=True, slots=True)
class Look:
    """`shortfall` (n,): for each answer the root of its tokens' summed squared shortfalls, nats; `gap`: the
    largest one by decisive tokens alone."""

    shortfall: torch.Tensor
    gap: float
    parts: list[tuple[Batch, Recorder, torch.Tensor]]
    size: int

    def loss(self, cap: float) -> float:
        """Huber: quadratic in a shortfall up to `cap` nats, linear beyond."""
        near = self.shortfall.clamp(max=cap)
        return float((near * (self.shortfall - near / 2)).sum())

    def weights(self, cap: float) -> torch.Tensor:
        """(n,): the share of its quadratic pull that `loss(cap)` leaves each answer."""
        return (cap / self.shortfall.clamp(min=1e-6)).clamp(max=1)

    def linearise(self, cap: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(Gauss-Newton rows (n, P), exact gradient (P,)) of `loss(cap)`. Rows lack the shared
        prefix's part, the gradient has it. Can be called once: it frees the graph."""
        count = len(self.shortfall)
        rows, gradient = torch.zeros(count, self.size), torch.zeros(self.size)
        weight = self.weights(cap)
        for batch, recorder, squares in self.parts:
            if not bool(squares.detach().any()):
                continue  # nothing is short: all its derivatives are zero
            w = weight[batch.index.cpu()].to(squares)
            own, whole = recorder.rows((w * squares).sum() / 2, batch.pack.segment, len(batch.index))
            short = squares.detach().sqrt().clamp(min=0.05)
            rows[batch.index.cpu()] = (own / (w.sqrt() * short)[:, None]).cpu()
            gradient += whole.cpu()
        return rows, gradient


def answers_bounded(
    stack: AdapterStack,
    sequences: Sequence[Sequence_],
    also: torch.Tensor,
    bounds: Bounds,
    sign: int = 1,
    spans: Sequence[slice] = (),
    *,
    graph: bool = False,
) -> Answers:
    """`bounds` is called with each batch; with a `graph` its margins can be differentiated."""
    made = batches(stack.lm, sequences, stack.first)
    heads, limits = [], []
    for batch in made:
        with stack.recording() as recorder, torch.set_grad_enabled(graph):
            hidden = scored_hidden(stack.lm, batch.pack, batch.hidden, stack.first)
            head, greedy = restricted_head(stack, batch, hidden, also)
            limits.append(bounds(Present(batch, head, recorder, head.margins(hidden), greedy)))
        heads.append(head)
    return Answers(
        batches=tuple(made),
        heads=tuple(heads),
        bounds=tuple(limits),
        decisive=tuple(marked(b, sequences, spans or [slice(None)] * len(sequences)) for b in made),
        count=len(sequences),
        sign=sign,
    )


def marked(batch: Batch, sequences: Sequence[Sequence_], spans: Sequence[slice]) -> torch.Tensor:
    """(S,): 1 for the scored tokens of a batch that are in the span of their sequence, else 0."""
    marks = []
    for i in batch.index.tolist():
        tokens = torch.zeros(sequences[i].answer)
        tokens[spans[i]] = 1.0
        marks.append(tokens)
    return torch.cat(marks).to(batch.index.device)


def kept(
    stack: AdapterStack,
    sequences: Sequence[Sequence_],
    also: torch.Tensor,
    generator: torch.Generator,
    due: Sequence[slice] = (),
    goal: float = 0.0,
) -> tuple[Answers, torch.Tensor]:
    """(answers that may not get worse, their retention rows (n, P) from the same forward passes).

    A margin's bound is what it is now or was in the base, whichever is more, and `KEPT_MARGIN` at most: what
    earlier edits did is made good. `due`: which of each sequence's tokens need a margin of `goal` whatever
    they have now; none without."""
    rows = torch.zeros(len(sequences), stack.size)
    due = due or [slice(0)] * len(sequences)

    def bound(now: Present) -> torch.Tensor:
        margin, owed = now.margin.detach(), marked(now.batch, sequences, due) > 0
        # Before the base is asked: that records its activations in place of these.
        rows[now.batch.index.cpu()] = signed_rows(now.batch, now.recorder, now.margin, generator)
        least = torch.where(owed, margin.clamp(min=goal), margin)
        return torch.maximum(least, base_margins(stack, now)).clamp(max=KEPT_MARGIN)

    return answers_bounded(stack, sequences, also, bound, graph=True), rows


@torch.no_grad()
def base_margins(stack: AdapterStack, now: Present) -> torch.Tensor:
    """The base's margins (S,) of a batch; those of now where nothing is merged."""
    with stack.without(MERGED) as differs:
        if not differs:
            return now.margin.detach()
        return now.head.margins(scored_hidden(stack.lm, now.batch.pack, now.batch.hidden, stack.first))


def wanted(
    stack: AdapterStack,
    sequences: Sequence[Sequence_],
    also: torch.Tensor,
    goal: float,
    spans: Sequence[slice] = (),
) -> Answers:
    """Answers to be given: margins of `goal` nats; tokens that are greedy choices already need not
    become surer than they are. `spans`: which of each sequence's scored tokens decide; all without."""

    def bound(now: Present) -> torch.Tensor:
        return torch.where(now.greedy, now.margin.clamp(max=goal), torch.full_like(now.margin, goal))

    return answers_bounded(stack, sequences, also, bound, spans=spans)


def doubted(stack: AdapterStack, sequences: Sequence[Sequence_], also: torch.Tensor, goal: float) -> Answers:
    """Answers to be given up: odds of at most exp(-goal), and exp(goal) times lower than now."""
    return answers_bounded(stack, sequences, also, lambda now: now.margin.clamp(max=0) - goal, sign=-1)


def retention_rows(
    stack: AdapterStack, batch_list: Sequence[Batch], count: int, generator: torch.Generator
) -> torch.Tensor:
    """`signed_rows` of all batches (count, P), against the whole vocabulary."""
    rows = torch.zeros(count, stack.size)
    for batch in batch_list:
        with stack.recording() as recorder:
            margin = margins(token_logprobs(stack.lm, batch, stack.first))
            rows[batch.index.cpu()] = signed_rows(batch, recorder, margin, generator)
    return rows


def signed_rows(
    batch: Batch, recorder: Recorder, margin: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """One row (P,) a sequence: sum over its answer tokens of s_t * w_t * d margin_t / d theta with
    random signs s_t, so that row'row is an unbiased piece of sum_t w_t^2 (d margin_t)(d margin_t)'.
    w_t = 1 / max(1, margin_t / 2): a wide margin may move more."""
    signs = torch.randint(0, 2, margin.shape, generator=generator).to(margin) * 2 - 1
    weight = 1 / (margin.detach().abs() / 2).clamp(min=1)
    found, _ = recorder.rows((signs * weight * margin).sum(), batch.pack.segment, len(batch.index))
    return found.cpu()
