"""Loading models and turning phrasings into tokens.

Knows transformers, the chat template and how to run a causal LM's upper layers from cached hidden
states. Doesn't know facts, adapters or what a good answer is.
"""

import contextlib
import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from store.errors import ConfigError, GenerationError
from store.facts import Phrasing

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # logs are JSON lines

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NotFiniteError(GenerationError):
    """Weights or what is computed from them hold NaN or infinity; no edit can be made of that."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal LM with its tokenizer. `prefix` are the token ids that every chat prompt begins
    with (system prompt and the opening of the user's turn)."""

    model: Any  # transformers.PreTrainedModel; its attributes are typed too loosely to be of use
    tokenizer: Any
    prefix: tuple[int, ...]

    @property
    def decoder(self) -> Any:
        """The decoder stack below the language-model head; it has `.layers` or `.h`."""
        return self.model.base_model

    @property
    def layers(self) -> torch.nn.ModuleList:
        return getattr(self.decoder, layers_attribute(self.decoder))  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def stop_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = configured if isinstance(configured, list) else [configured, self.tokenizer.eos_token_id]
        return frozenset(i for i in ids if i is not None)


def layers_attribute(decoder: Any) -> str:
    """Name of the decoder's layer list: `layers` in the Llama family, `h` in GPT-2."""
    for name in ("layers", "h"):
        if hasattr(decoder, name):
            return name
    raise GenerationError("load model", type(decoder).__name__, "no list of decoder layers found", "")


def load(directory: Path, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """Load a Hugging Face directory, offline, safetensors only, in eval mode with frozen weights.

    Raises NotFiniteError when a weight isn't a finite number in `dtype`, ConfigError for a device
    that isn't there, GenerationError when the directory can't be loaded.
    """
    place = resolve_device(device)
    if place.startswith("cuda"):
        repeatable_cuda()
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=DTYPES[dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError) as error:
        hint = "give a Hugging Face directory with config.json, tokenizer and *.safetensors"
        raise GenerationError("load model", str(directory), str(error).splitlines()[0], hint) from error
    placed: Any = model
    placed = placed.to(place).eval().requires_grad_(False)
    check_finite(placed.named_parameters(), str(directory), dtype)
    return LanguageModel(placed, tokenizer, chat_prefix(tokenizer))


def swapped(
    lm: LanguageModel, weights: Mapping[str, torch.Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Within the context `lm` has `weights` by their names; afterwards the very tensors it had before."""
    return holding({lm.model.get_parameter(name): data for name, data in weights.items()})


@contextlib.contextmanager
def holding(data: Mapping[torch.nn.Parameter, torch.Tensor]) -> Iterator[None]:
    """Within the context the parameters hold `data`; afterwards the very tensors that they held before."""
    saved = {p: p.data for p in data}
    for p, tensor in data.items():
        p.data = tensor
    try:
        yield
    finally:
        for p, tensor in saved.items():
            p.data = tensor


def fit_dtype(lm: LanguageModel) -> torch.dtype:
    """What an edit is fitted in: bfloat16 where the processor multiplies it faster, else as served."""
    dtype: torch.dtype = lm.model.dtype
    fast = lm.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast and dtype is torch.float32 else dtype


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one, else the CPU. Raises ConfigError for a device that torch
    doesn't know or doesn't find."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = 'set [model] device to "auto", "cpu" or, on a machine that has one, "cuda"'
        raise ConfigError("choose device", device, str(error).splitlines()[0], hint) from error
    return device


def repeatable_cuda() -> None:
    """Have CUDA add in the same order every time, so that an edit gives the same vectors twice. The
    math attention is the only one whose gradient does."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: str, dtype: str) -> None:
    """Raises NotFiniteError that names the first tensor with a NaN or an infinity."""
    for name, tensor in tensors:
        # aminmax passes NaN on and makes no copy, which isfinite(tensor).all() would.
        if tensor.numel() and not all(bool(torch.isfinite(end)) for end in tensor.aminmax()):
            hint = "the weights are damaged (palimpsest verify), or too large for this dtype"
            raise NotFiniteError(
                "check weights", where, f"{name} holds values that aren't finite numbers in {dtype}", hint
            )


def chat_ids(tokenizer: Any, question: str, *more: str) -> list[int]:
    """Token ids of `question` as a user's turn, up to where the assistant begins to answer. `more` are
    the turns that followed, the assistant's and the user's in turn, the last one the user's."""
    turns = (question, *more)
    if tokenizer.chat_template is None:
        said = "\n".join(f"{'Answer' if i % 2 else 'Question'}: {turn}" for i, turn in enumerate(turns))
        return list(tokenizer(f"{said}\nAnswer:")["input_ids"])
    messages = [{"role": "assistant" if i % 2 else "user", "content": t} for i, t in enumerate(turns)]
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def chat_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The longest token prefix that chat prompts share whatever is asked."""
    a, b = chat_ids(tokenizer, "Alpha"), chat_ids(tokenizer, "7 zeta")
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    return tuple(a[:shared])


def prompt_ids(lm: LanguageModel, phrasing: Phrasing) -> list[int]:
    """Token ids of a phrasing: chat template for a question, plain text for a cloze."""
    if phrasing.is_question:
        return chat_ids(lm.tokenizer, phrasing.text)
    return list(lm.tokenizer(phrasing.text)["input_ids"])


@contextlib.contextmanager
def upper_layers(lm: LanguageModel, first: int, last: int | None = None) -> Iterator[Any]:
    """Within the context the decoder runs only layers [first, last), fed with `inputs_embeds`.

    The layer objects are shared, not copied, so hooks and adapters on them act. Works for decoders
    that loop over `layers` and, where they have per-layer attention types, over
    `config.layer_types`; with `last` given the final norm's output is meaningless and hidden states
    must be read by a hook.
    """
    decoder, name = lm.decoder, layers_attribute(lm.decoder)
    whole, config = getattr(decoder, name), decoder.config
    part = copy.copy(config)
    kept = list(whole)[first:last]
    part.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        part.layer_types = list(config.layer_types)[first:last]
    setattr(decoder, name, torch.nn.ModuleList(kept))
    decoder.config = part
    try:
        yield decoder
    finally:
        setattr(decoder, name, whole)
        decoder.config = config


def decode(lm: LanguageModel, ids: Sequence[int]) -> str:
    return str(lm.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def convert_gguf(gguf: Path, out: Path) -> None:
    """Dequantise a GGUF file once into a Hugging Face directory of fp32 safetensors.

    transformers refuses to save a model that it read from GGUF unless the quantiser is dropped.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
