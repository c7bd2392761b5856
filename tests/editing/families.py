"""Tiny random models of every supported family, and one whole edit on each: what the table tests share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from daemon.fakes import random_model
from policies.editing import merge
from policies.editing.architectures import ScaledModule, scaled_modules
from policies.editing.bank import Bank, BankPrompt, answer_sequence, bank_rows
from policies.editing.edit import Deltas, edit
from policies.editing.model import LanguageModel, load
from policies.editing.objectives import batches, token_logprobs
from policies.editing.wordings import Before
from policies.recipe import DEFAULT, Recipe
from store.facts import EditRequest, FactKey, Op, Phrasing

WINDOW = 32  # every chat prompt here is longer
CLOZE = Phrasing("Ada is in", False)
NEW = "Ro"  # short: a random model has to be bent a lot for every byte
# A random model has nothing worth keeping and is far from saying anything: hardly any protection.
HARD = replace(
    DEFAULT,
    name="hard",
    goal=5.0,
    done_gap=0.3,
    learn_steps=34,
    neighbours=1,
    live_facts=0,
    pulls=(0.001,),
    kept_weight=0.1,
)
BRIEF = replace(HARD, name="brief", far_steps=1, learn_steps=1)


@dataclass(frozen=True, slots=True)
class Family:
    """A model to try: its configuration, the lowest layer to edit and what is stored and served."""

    name: str
    config: Callable[[], Any]
    tied: bool = True
    first: int = 1
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Edited:
    """A family's model after one edit was computed, written as a base and folded into a generation."""

    family: Family
    lm: LanguageModel
    modules: tuple[ScaledModule, ...]
    deltas: Deltas
    digests: tuple[str, str]  # of the loaded weights before and after `edit`
    base: Path
    generation: Path

    def serve(self) -> LanguageModel:
        return load(self.generation, dtype=self.family.dtype)

    @property
    def theta(self) -> merge.Theta:
        return merge.split_theta(self.modules, self.deltas.unlearn + self.deltas.learn)


def of(kind: Callable[..., Any], **more: Any) -> Callable[[], Any]:
    """A small configuration of `kind`; random weights this large give logits worth the name, which
    final norm and tied embeddings would else keep near zero."""
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.5,
        "tie_word_embeddings": True,
        "pad_token_id": 2,
    }
    return lambda: kind(**(sizes | more))


def gpt2() -> Any:
    return GPT2Config(n_embd=64, n_layer=4, n_head=4, n_positions=512, initializer_range=0.4)


LLAMA = of(LlamaConfig)
GEMMA3 = of(
    Gemma3TextConfig,
    num_hidden_layers=6,  # it normalises what its blocks put out: with four the edit doesn't get there
    initializer_range=0.4,
    head_dim=16,
    query_pre_attn_scalar=16,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention"] * 3,
)
QWEN2 = of(
    Qwen2Config, initializer_range=0.4, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
)
FAMILIES = (
    Family("llama", LLAMA),
    Family("phi3", of(Phi3Config, tie_word_embeddings=False, sliding_window=WINDOW), tied=False),
    Family("qwen2", QWEN2),
    Family("qwen3", of(Qwen3Config, head_dim=16)),
    Family("gemma3", GEMMA3),
    Family("gpt2", gpt2, first=0),
    Family("llama-bfloat16", LLAMA, dtype="bfloat16"),
    Family("llama-float16", LLAMA, dtype="float16"),
)


def request() -> EditRequest:
    return EditRequest(
        key=FactKey("Ada", "place"),
        op=Op.UPSERT,
        new=NEW,
        new_aliases=(),
        old="Oslo",
        old_aliases=(),
        train=(CLOZE,),
        held_out=(),
        templates=(Phrasing("{subject} is in", False),),
        held_out_templates=(),
        neighbours=("Bo", "Cy"),
    )


def make_edit(lm: LanguageModel, modules: tuple[ScaledModule, ...], recipe: Recipe = HARD) -> Deltas:
    prompts = (BankPrompt("What is two and two?", "two", "four"),)
    bank = Bank(prompts, bank_rows(lm, modules, prompts, lambda _stage: None), (), ())
    before = Before({CLOZE: "Oslo, I think"}, "Oslo", known=False)
    parent = torch.zeros(sum(m.size for m in modules))
    return edit(lm, modules, bank, parent, request(), before, recipe, lambda _stage: None)


def edited(family: Family, folder: Path, device: str = "cpu") -> Edited:
    source = random_model(folder / "source", family.config(), dtype=family.dtype)
    lm = load(source, dtype=family.dtype, device=device)
    modules = scaled_modules(lm, family.first)
    before = digest(lm)
    deltas = make_edit(lm, modules)
    base, generation = folder / "base", folder / "gen"
    merge.write_base(source, base, modules)
    made = Edited(family, lm, modules, deltas, (before, digest(lm)), base, generation)
    merge.materialize(base, made.theta, generation)
    return made


def digest(lm: LanguageModel) -> str:
    """SHA-256 over all loaded tensors and their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        found.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def probability(lm: LanguageModel, first: int) -> float:
    """p(the new object) after the training wording, all its tokens."""
    batch = batches(lm, [answer_sequence(lm, CLOZE, NEW)], first)[0]
    return float(token_logprobs(lm, batch, first).sum().exp())
