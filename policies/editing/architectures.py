"""Which modules IA3 may scale in each family of models: data, not code.

Knows module names and which side of a weight a scale acts on. Doesn't know facts or training.
Source of the choice of modules: Liu et al. 2022 (IA3, arXiv 2205.05638): keys, values and the inner
activations of the feed-forward block.
"""

from dataclasses import dataclass
from typing import Any

from policies.editing.model import LanguageModel, layers_attribute
from store.errors import GenerationError


@dataclass(frozen=True, slots=True)
class Template:
    """Module paths inside one decoder layer. Feed-forward modules have their input scaled, the
    others their output. `fused` modules of the attention put out queries, keys and values side by
    side: their queries stay as they are, so that an edit means the same in every family."""

    attention: tuple[str, ...]
    feedforward: tuple[str, ...]
    fused: tuple[str, ...] = ()


LLAMA = Template(("self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",))
TEMPLATES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma3_text": LLAMA,
    "phi3": Template(("self_attn.qkv_proj",), ("mlp.down_proj",), fused=("self_attn.qkv_proj",)),
    "gpt2": Template(("attn.c_attn",), ("mlp.c_proj",), fused=("attn.c_attn",)),
}


@dataclass(frozen=True, slots=True)
class ScaledModule:
    """One module that IA3 may scale: its path in the model, the axis of its weight that the vector
    scales, the vector's length, and how many of its first coordinates always stay at 1."""

    path: str
    layer: int
    feedforward: bool
    axis: int
    size: int
    fixed: int = 0

    @property
    def tensor(self) -> str:
        return f"{self.path}.weight"

    @property
    def transposed(self) -> bool:
        """Whether the weight is kept (in, out), as GPT-2's Conv1D does; nn.Linear keeps (out, in)."""
        return self.axis != int(self.feedforward)


def template_for(model_type: str) -> Template:
    if model_type not in TEMPLATES:
        hint = f"known: {', '.join(sorted(TEMPLATES))}; add a template to policies/editing/architectures.py"
        raise GenerationError("find modules", model_type, "no module template for this architecture", hint)
    return TEMPLATES[model_type]


def scaled_modules(lm: LanguageModel, first: int) -> tuple[ScaledModule, ...]:
    """Every module of layers >= `first` that IA3 may scale, in layer order."""
    template = template_for(lm.decoder.config.model_type)
    root = f"{lm.model.base_model_prefix}.{layers_attribute(lm.decoder)}"
    paths = template.attention + template.feedforward
    return tuple(
        scaled_module(lm, template, f"{root}.{index}.{path}", index, path)
        for index in range(first, len(lm.layers))
        for path in paths
    )


def scaled_module(lm: LanguageModel, template: Template, full: str, layer: int, path: str) -> ScaledModule:
    """The module at `full`, which is `path` inside its layer. Raises GenerationError when there is none."""
    try:
        module = base_module(lm.model.get_submodule(full))
    except AttributeError as error:
        kind = lm.decoder.config.model_type
        hint = f"this {kind} model isn't built as others are; see policies/editing/architectures.py"
        raise GenerationError("find modules", full, "no such module in the model", hint) from error
    feedforward = path in template.feedforward
    axis = int(feedforward != (type(module).__name__ == "Conv1D"))
    size = module.weight.shape[axis]
    fixed = query_rows(lm, size) if path in template.fused else 0
    return ScaledModule(full, layer, feedforward, axis, size, fixed)


def query_rows(lm: LanguageModel, size: int) -> int:
    """How many of a fused projection's `size` outputs are queries; they come first."""
    config = lm.decoder.config
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return int(size * heads // (heads + 2 * shared))


def base_module(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def first_editable_layer(lm: LanguageModel, share: float) -> int:
    """The lowest layer that may be edited: the upper `share` of the stack. GPT-2 adds its position
    embeddings to `inputs_embeds`, so its lower layers can't be cached and the stack starts at 0.
    Raises GenerationError for an architecture without a template."""
    template_for(lm.decoder.config.model_type)
    if lm.decoder.config.model_type == "gpt2":
        return 0
    count = len(lm.layers)
    return count - max(1, round(share * count))
