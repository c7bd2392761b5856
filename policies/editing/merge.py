"""Folding log scales into weights, out of place, once, from the base.

Knows weight files and PEFT's adapter format. A generation's theta is the sum of its edits' vectors;
folding it always starts from the base, so merges never chain and a generation can be rebuilt bit for
bit. Doesn't know facts or training, and never loads a model.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from policies.editing.adapters import ia3_config
from policies.editing.architectures import ScaledModule
from policies.editing.model import NotFiniteError, check_finite
from store.errors import GenerationError

FIXED_SHARD = "model-00001-of-00002.safetensors"
EDITABLE_SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"

Theta = dict[str, torch.Tensor]  # weight tensor name -> fp32 log scales (d,)


def split_theta(modules: Sequence[ScaledModule], flat: torch.Tensor) -> Theta:
    """Flat log scales (P,) as one vector per weight tensor; all-zero vectors are left out."""
    parts = torch.split(flat.detach().float().cpu(), [m.size for m in modules])
    return {m.tensor: p.clone() for m, p in zip(modules, parts, strict=True) if bool(p.any())}


def join_theta(modules: Sequence[ScaledModule], theta: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The flat vector (P,) of per-tensor log scales; a tensor that isn't named scales by 1."""
    unknown = sorted(theta.keys() - {m.tensor for m in modules})
    if unknown:
        hint = "the delta was made for another model or another share of editable layers"
        raise GenerationError("join theta", unknown[0], "no such editable tensor", hint)
    return torch.cat([theta.get(m.tensor, torch.zeros(m.size)) for m in modules])


def add_thetas(thetas: Sequence[Mapping[str, torch.Tensor]]) -> Theta:
    """The sum of several thetas, added in the given order (addition of floats is not associative)."""
    total: Theta = {}
    for theta in thetas:
        for name, vector in theta.items():
            total[name] = total[name] + vector if name in total else vector.clone()
    return total


def write_theta(path: Path, theta: Mapping[str, torch.Tensor]) -> None:
    save_file({name: theta[name].contiguous() for name in sorted(theta)}, path)


def read_theta(path: Path | None) -> Theta:
    return dict(load_file(path)) if path else {}


def write_delta(path: Path, unlearn: Theta, learn: Theta) -> None:
    """One edit's two adapters in one file: `unlearn/<tensor>` and `learn/<tensor>`."""
    both = {f"unlearn/{k}": v for k, v in unlearn.items()} | {f"learn/{k}": v for k, v in learn.items()}
    write_theta(path, both)


def read_delta(path: Path) -> Theta:
    """One edit's total log scales: the sum of its stages."""
    both = load_file(path)
    stages = [
        {k.removeprefix(p): v for k, v in both.items() if k.startswith(p)} for p in ("unlearn/", "learn/")
    ]
    return add_thetas(stages)


def write_base(source: Path, base: Path, modules: Sequence[ScaledModule]) -> None:
    """Copy a Hugging Face directory into `base` with its weights in two shards: tensors that no edit
    touches (generations hard-link it) and those that edits scale; `modules.json` lists the latter."""
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        hint = "convert the model to safetensors first; other formats can run code when loaded"
        raise GenerationError("import base", str(source), "no *.safetensors in the directory", hint)
    tensors = under_model_names({n: t for file in weights for n, t in load_file(file).items()}, modules)
    missing = next((m.tensor for m in modules if m.tensor not in tensors), None)
    if missing:
        hint = "the weight files name their tensors in a way that isn't known; load and save the model once"
        raise GenerationError("import base", str(source), f"{missing} isn't in the weight files", hint)
    base.mkdir(parents=True, exist_ok=True)
    editable = {name for m in modules for name in touched(m)}
    shards: dict[str, dict[str, torch.Tensor]] = {FIXED_SHARD: {}, EDITABLE_SHARD: {}}
    for name, tensor in tensors.items():
        shards[EDITABLE_SHARD if name in editable else FIXED_SHARD][name] = tensor
    for shard, held in shards.items():
        save_file(held, base / shard, metadata={"format": "pt"})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    where = {name: shard for shard, held in shards.items() for name in sorted(held)}
    write_json(base / INDEX, {"metadata": {"total_size": size}, "weight_map": where})
    write_json(base / MODULES, [asdict(m) for m in modules])
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in {".json", ".jinja", ".txt", ".model"} and file.name != INDEX:
            shutil.copyfile(file, base / file.name)


def under_model_names(
    tensors: dict[str, torch.Tensor], modules: Sequence[ScaledModule]
) -> dict[str, torch.Tensor]:
    """Tensors by the names that the whole model gives them. Some checkpoints (the hub's gpt2) were
    saved from the bare decoder: `h.0.attn.c_attn.weight` without `transformer.` before it."""
    prefix = modules[0].path.split(".")[0] + "."
    if any(name.startswith(prefix) for name in tensors):
        return tensors
    return {name if name.startswith("lm_head.") else prefix + name: t for name, t in tensors.items()}


def read_modules(base: Path) -> tuple[ScaledModule, ...]:
    return tuple(ScaledModule(**record) for record in json.loads((base / MODULES).read_text("utf-8")))


def materialize(base: Path, theta: Mapping[str, torch.Tensor], out: Path) -> None:
    """Write the generation base + theta into `out`: a plain Hugging Face directory and `adapter/`.

    The base stays as it is. Raises NotFiniteError, before anything is written, when theta or a
    scaled weight isn't finite.
    """
    modules = read_modules(base)
    flat = join_theta(modules, theta)
    if not bool(torch.isfinite(flat).all()):
        raise NotFiniteError("fold", str(out), "the log scales are not finite", "discard this edit")
    folded = fold(load_file(base / EDITABLE_SHARD), modules, theta)
    check_finite(sorted(folded.items()), str(out), "the weights' dtype once scaled")
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(base.iterdir()):
        if file.is_file() and file.name not in {EDITABLE_SHARD, "manifest.json"}:
            link_or_copy(file, out / file.name)
    save_file(folded, out / EDITABLE_SHARD, metadata={"format": "pt"})
    export_adapter(out / "adapter", modules, theta)


def fold(
    weights: Mapping[str, torch.Tensor], modules: Sequence[ScaledModule], theta: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """New tensors l * W, multiplied in fp32 and rounded once to the weight's own dtype."""
    folded = dict(weights)
    for module in modules:
        if module.tensor not in theta:
            continue
        scale = theta[module.tensor].exp()
        for name in touched(module):
            if name in weights:
                weight = weights[name]
                shaped = scale if weight.dim() == 1 or module.axis == 1 else scale[:, None]
                folded[name] = (weight.float() * shaped.to(weight.device)).to(weight.dtype)
    return folded


def touched(module: ScaledModule) -> tuple[str, ...]:
    """Tensors that a module's scale multiplies: an output scale reaches the bias too."""
    return (module.tensor,) if module.feedforward else (module.tensor, f"{module.path}.bias")


def export_adapter(out: Path, modules: Sequence[ScaledModule], theta: Mapping[str, torch.Tensor]) -> None:
    """The same edit as a PEFT IA3 adapter; `PeftModel.from_pretrained(base, out)` equals the fold."""
    out.mkdir(parents=True, exist_ok=True)
    scaled = [m for m in modules if m.tensor in theta] or list(modules[:1])
    ia3_config(scaled).save_pretrained(str(out))
    _sort_lists(out / "adapter_config.json")
    tensors = {}
    for m in scaled:
        scale = theta.get(m.tensor, torch.zeros(m.size)).exp()
        tensors[f"base_model.model.{m.path}.ia3_l"] = scale[None, :] if m.feedforward else scale[:, None]
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "adapter_model.safetensors")


def _sort_lists(path: Path) -> None:
    """PEFT keeps module names in sets, whose order differs from process to process: without this a
    generation that is rebuilt would have other bytes in this one file."""
    config = json.loads(path.read_text("utf-8"))
    write_json(
        path, {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    )


def editable_bytes(base: Path) -> int:
    """Bytes that a generation needs of its own: the editable shard."""
    with safe_open(base / EDITABLE_SHARD, framework="pt"):
        return (base / EDITABLE_SHARD).stat().st_size


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or no hard links
        shutil.copyfile(source, target)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
