"""Free greedy answers of a model.

Knows how to generate with a shared prefix cache and natural stop. Doesn't know what is right.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from policies.editing.model import LanguageModel, decode, prompt_ids
from store.facts import Phrasing

MAX_NEW_TOKENS = 32
BATCH = 32


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
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(len(rows))
        ids = torch.cat([prefix.expand(len(rows), -1), ids], dim=1)
        mask = torch.cat([torch.ones_like(ids[:, : prefix.shape[1]]), mask], dim=1)
    out = lm.model.generate(
        ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        use_cache=True,
    )
    stops = lm.stop_ids | {pad}
    return [trim(row, stops) for row in out[:, ids.shape[1] :].tolist()]


def trim(ids: Sequence[int], stops: frozenset[int]) -> list[int]:
    """`ids` up to the first stop token."""
    end = next((k for k, i in enumerate(ids) if i in stops), len(ids))
    return list(ids[:end])
