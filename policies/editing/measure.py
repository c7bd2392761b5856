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
    n = len(lm.prefix)
    shared = [bool(n) and tuple(p[:n]) == lm.prefix for p in prompts]
    done = 0
    for kind in (False, True):
        group = [i for i in order if shared[i] is kind]
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            rows = [prompts[i][n:] if kind else prompts[i] for i in batch]
            for i, ids in zip(
                batch, greedy(lm, rows, with_prefix=kind, max_new_tokens=max_new_tokens), strict=True
            ):
                found[i] = ids
            done += len(batch)
            on_batch(done)
    return found


@torch.no_grad()
def greedy(
    lm: LanguageModel, rows: Sequence[Sequence[int]], *, with_prefix: bool, max_new_tokens: int
) -> list[list[int]]:
    """Greedy continuations of token rows (the shared prefix left out when `with_prefix`)."""
    pad = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else next(iter(lm.stop_ids), 0)
    width = max(len(r) for r in rows)
    window = getattr(lm.decoder.config, "sliding_window", None)
    if with_prefix and window and len(lm.prefix) + width + max_new_tokens > window:
        # A window counts padding; between prefix and prompt it would push the prefix out of sight.
        rows, with_prefix = [[*lm.prefix, *r] for r in rows], False
        width += len(lm.prefix)
    ids = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows], device=lm.device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=lm.device)
    cache = DynamicCache(config=lm.decoder.config)
    if with_prefix:
        prefix = torch.tensor([lm.prefix], device=lm.device)
        lm.decoder(input_ids=prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
        mask = torch.cat([mask.new_ones(len(rows), len(lm.prefix)), mask], dim=1)
    stops = torch.tensor(sorted(lm.stop_ids | {pad}), device=lm.device)
    said: list[list[int]] = [[] for _ in rows]
    going = list(range(len(rows)))  # which of `rows` the batch still holds
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = lm.model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        token = out.logits[:, -1].argmax(-1)
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
