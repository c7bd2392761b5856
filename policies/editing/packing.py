"""Packing many short prompts into one row that shares the chat prefix.

Every chat prompt begins with the same system prompt, about half of its tokens. A pack holds that
prefix once, then all the sequences side by side; a 4-D attention mask lets each see only the prefix
(if it is a chat prompt) and itself, and position ids continue from the prefix. No padding either:
together about a third of the cost of a padded batch. Knows tokens and masks; doesn't know adapters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from policies.editing.model import LanguageModel, layers_attribute, upper_layers


@dataclass(frozen=True, slots=True)
class Sequence_:
    """A prompt with an answer: `ids` without the shared prefix; `answer` counts the trailing tokens
    that are scored (each predicted from the position before it)."""

    ids: tuple[int, ...]
    answer: int
    has_prefix: bool


@dataclass(frozen=True, slots=True)
class Pack:
    """One packed row. `segment` (T,) names each token's sequence (-1: prefix); `scored` (S,) the
    positions whose next token is scored, `targets` (S,) those tokens, `owner` (S,) their sequence."""

    ids: torch.Tensor  # (T,)
    positions: torch.Tensor  # (T,)
    segment: torch.Tensor  # (T,)
    mask: torch.Tensor  # (1, 1, T, T), additive
    scored: torch.Tensor  # (S,)
    targets: torch.Tensor  # (S,)
    owner: torch.Tensor  # (S,)


def split_prefix(lm: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> Sequence_:
    """A sequence of `prompt` then `answer`; the shared prefix is cut off where the prompt has it."""
    n = len(lm.prefix)
    shared = n > 0 and tuple(prompt[:n]) == lm.prefix
    ids = tuple(prompt[n:] if shared else prompt) + tuple(answer)
    return Sequence_(ids, len(answer), shared)


def pack(lm: LanguageModel, sequences: Sequence[Sequence_]) -> Pack:
    """Pack sequences into one row; order is kept and `owner` indexes into it."""
    n = len(lm.prefix) if any(s.has_prefix for s in sequences) else 0
    ids, positions, segment = list(lm.prefix[:n]), list(range(n)), [-1] * n
    shares = [False] * n
    scored, targets, owner = [], [], []
    for i, s in enumerate(sequences):
        start = n if s.has_prefix else 0
        offset = len(ids)
        ids += s.ids
        positions += range(start, start + len(s.ids))
        segment += [i] * len(s.ids)
        shares += [s.has_prefix] * len(s.ids)
        for k in range(len(s.ids) - s.answer, len(s.ids)):
            scored.append(offset + k - 1)
            targets.append(s.ids[k])
            owner.append(i)
    device = lm.device
    seg = torch.tensor(segment, device=device)
    order = torch.arange(len(ids), device=device)
    visible = seg[:, None] == seg[None, :]
    visible |= torch.tensor(shares, device=device)[:, None] & (seg[None, :] == -1)
    visible &= order[None, :] <= order[:, None]
    dtype = lm.model.dtype
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )

    def tensor(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=device, dtype=torch.long)

    return Pack(
        tensor(ids), tensor(positions), seg, mask[None, None], tensor(scored), tensor(targets), tensor(owner)
    )


def chunks(sequences: Sequence[Sequence_], tokens: int = 600) -> Iterator[list[int]]:
    """Indices of `sequences` in order, cut so that a pack holds at most about `tokens` tokens."""
    batch: list[int] = []
    size = 0
    for i, s in enumerate(sequences):
        if batch and size + len(s.ids) > tokens:
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += len(s.ids)
    if batch:
        yield batch


def lower_hidden(lm: LanguageModel, p: Pack, first: int) -> torch.Tensor:
    """Hidden states (T, D) that enter layer `first`: what no adapter at or above it can change."""
    if first == 0:
        return lm.model.get_input_embeddings()(p.ids).detach()  # type: ignore[no-any-return]
    captured: list[torch.Tensor] = []
    name = layers_attribute(lm.decoder)
    with torch.no_grad(), upper_layers(lm, 0, first + 1) as decoder:
        layer = getattr(decoder, name)[first]

        def keep(
            _module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
        ) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])

        handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            decoder(
                input_ids=p.ids[None],
                attention_mask=attention(lm, p),
                position_ids=p.positions[None],
                use_cache=False,
            )
        finally:
            handle.remove()
    return captured[0][0]


def attention(lm: LanguageModel, p: Pack) -> object:
    """The mask in the form that the decoder takes: one for each kind of attention where it names
    kinds (Qwen, Gemma 3), else one for all layers, which Phi-3 and Mistral may limit to a window."""
    config = lm.decoder.config
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return windowed(p, window)
    return {kind: windowed(p, window if kind == "sliding_attention" else None) for kind in set(kinds)}


def windowed(p: Pack, window: int | None) -> torch.Tensor:
    """The pack's mask with nothing visible that lies `window` or more positions back."""
    if window is None or int(p.positions.max()) < window:
        return p.mask
    far = p.positions[:, None] - p.positions[None, :] >= window
    return p.mask.masked_fill(far, torch.finfo(p.mask.dtype).min)


def scored_hidden(lm: LanguageModel, p: Pack, hidden: torch.Tensor, first: int) -> torch.Tensor:
    """Final hidden states (S, D) at the scored positions, from the states (T, D) entering `first`."""
    with upper_layers(lm, first) as decoder:
        out = decoder(
            inputs_embeds=hidden[None],
            attention_mask=attention(lm, p),
            position_ids=p.positions[None],
            use_cache=False,
        ).last_hidden_state[0]
    return out[p.scored]  # type: ignore[no-any-return]
