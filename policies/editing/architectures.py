"""Which modules IA3 may scale in each family of models: data, not code.

Knows module names and which side of a weight a scale acts on. Doesn't know facts or training.
Source of the choice of modules: Liu et al. 2022 (IA3, arXiv 2205.05638): keys, values and the inner
activations of the feed-forward block.
"""

from dataclasses import dataclass
from typing import Any

import torch

from policies.editing.model import LanguageModel, layers_attribute
from store.errors import GenerationError


@dataclass(frozen=True, slots=True)
class Template:
    """Module paths inside one decoder layer. Feed-forward modules have their input scaled, the
    others their output. `fused` says which share of the output rows may move (a fused projection
    keeps its query rows)."""

    attention: tuple[str, ...]
    feedforward: tuple[str, ...]


LLAMA = Template(("self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",))
TEMPLATES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma3_text": LLAMA,
    "phi3": Template(("self_attn.qkv_proj",), ("mlp.down_proj",)),
    "gpt2": Template(("attn.c_attn",), ("mlp.c_proj",)),
}


@dataclass(frozen=True, slots=True)
class ScaledModule:
    """One module that IA3 may scale: its path in the model, its weight tensor's name, the axis of
    that tensor that the vector scales and the vector's length."""

    path: str
    layer: int
    feedforward: bool
    axis: int
    size: int

    @property
    def tensor(self) -> str:
        return f"{self.path}.weight"


def template_for(model_type: str) -> Template:
    if model_type not in TEMPLATES:
        hint = f"known: {', '.join(sorted(TEMPLATES))}; add a template to policies/editing/architectures.py"
        raise GenerationError("find modules", model_type, "no module template for this architecture", hint)
    return TEMPLATES[model_type]


def scaled_modules(lm: LanguageModel, first: int) -> tuple[ScaledModule, ...]:
    """Every module of layers >= `first` that IA3 may scale, in layer order."""
    template = template_for(lm.decoder.config.model_type)
    root = f"{lm.model.base_model_prefix}.{layers_attribute(lm.decoder)}"
    found = []
    for index, layer in enumerate(lm.layers):
        if index < first:
            continue
        for path in template.attention + template.feedforward:
            feedforward = path in template.feedforward
            module = layer.get_submodule(path)
            weight = base_weight(module)
            # nn.Linear keeps (out, in), GPT-2's Conv1D (in, out).
            transposed = type(base_module(module)).__name__ == "Conv1D"
            axis = int(feedforward != transposed)
            found.append(ScaledModule(f"{root}.{index}.{path}", index, feedforward, axis, weight.shape[axis]))
    return tuple(found)


def base_module(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def base_weight(module: Any) -> torch.Tensor:
    return base_module(module).weight  # type: ignore[no-any-return]


def first_editable_layer(lm: LanguageModel, share: float) -> int:
    """The lowest layer that may be edited: the upper `share` of the stack. GPT-2 adds its position
    embeddings to `inputs_embeds`, so its lower layers can't be cached and the stack starts at 0."""
    if lm.decoder.config.model_type == "gpt2":
        return 0
    count = len(lm.layers)
    return count - max(1, round(share * count))
