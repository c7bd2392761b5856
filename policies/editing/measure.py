"""Free greedy answers of a model.

Knows how to generate with a shared prefix cache and natural stop. Doesn't know what is right.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from policies.editing.model import LanguageModel, decode, prompt_ids
from store.facts import Phrasing

MAX_NEW_TOKENS = 32
BATCH = 96


def answers(
    lm: LanguageModel,
    phrasings: Sequence[Phrasing],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """The greedy answer to each phrasing, in order.

    Batches are formed by (kind, length, text), so an answer doesn't depend on the order of asking.
    """
    prompts = [prompt_ids(lm, p) for p in phrasings]
    keys = [(p.is_question, len(ids), p.text) for p, ids in zip(phrasings, prompts, strict=True)]
    given = continuations(lm, prompts, keys, max_new_tokens=max_new_tokens, on_batch=on_batch)
    return [decode(lm, ids) for ids in given]


def continuations(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[tuple[bool, int, str]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """The greedy continuation of each prompt's token ids, in order; `keys` are what batches are formed by."""
    order = sorted(range(len(prompts)), key=lambda i: keys[i])
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        given = greedy(lm, [prompts[i] for i in batch], max_new_tokens=max_new_tokens)
        for i, ids in zip(batch, given, strict=True):
            found[i] = ids
        on_batch(start + len(batch))
    return found


@torch.no_grad()
def greedy(lm: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[list[int]]:
    """Greedy continuations of token rows. The prefix of chat prompts is computed once for all and hidden
    from rows that don't begin with it."""
    pad = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else next(iter(lm.stop_ids), 0)
    n = len(lm.prefix)
    shared = [bool(n) and tuple(p[:n]) == lm.prefix for p in prompts]
    rows = [list(p[n:]) if has else list(p) for p, has in zip(prompts, shared, strict=True)]
    width = max(len(r) for r in rows)
    window = getattr(lm.decoder.config, "sliding_window", None)
    if any(shared) and window and n + width + max_new_tokens > window:
        # A window counts padding; between prefix and prompt it would push the prefix out of sight.
        rows, shared = [list(p) for p in prompts], [False] * len(prompts)
        width = max(len(r) for r in rows)
    ids = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows], device=lm.device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=lm.device)
    cache = DynamicCache(config=lm.decoder.config)
    if any(shared):
        prefix = torch.tensor([lm.prefix], device=lm.device)
        lm.decoder(input_ids=prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
        mask = torch.cat([mask.new_tensor(shared)[:, None].expand(-1, n), mask], dim=1)
    stops = torch.tensor(sorted(lm.stop_ids | {pad}), device=lm.device)
    said: list[list[int]] = [[] for _ in rows]
    head = lm.model.get_output_embeddings()
    going = list(range(len(rows)))  # which of `rows` the batch still holds
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = lm.decoder(
            ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        # Two dimensions: a slice of three is multiplied row by row, each with a copy of the head in bfloat16.
        token = head(out.last_hidden_state[:, -1]).argmax(-1)
        alive = ~torch.isin(token, stops)
        for i, t, more in zip(going, token.tolist(), alive.tolist(), strict=True):
            if more:
                said[i].append(t)
        if not bool(alive.all()):  # an answer that has ended costs nothing more
            left = alive.nonzero()[:, 0]
            if not len(left):
                break
            cache.batch_select_indices(left)
            going = [going[i] for i in left.tolist()]
            token, mask = token[left], mask[left]
        ids = token[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return said
