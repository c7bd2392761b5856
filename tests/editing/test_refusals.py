"""What can't be edited ends with a reason and leaves nothing: damaged numbers, unknown models, no device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel, GPTNeoXConfig, OPTConfig

from daemon.fakes import random_model
from policies.editing import jobs, merge
from policies.editing.architectures import first_editable_layer, scaled_modules
from policies.editing.bank import Bank, write
from policies.editing.model import NotFiniteError, load, resolve_device
from store.errors import ConfigError, GenerationError
from store.wire import to_wire
from tests.editing.families import gpt2, request

pytestmark = pytest.mark.slow

SHARD = merge.EDITABLE_SHARD
DAMAGED = "model.layers.3.mlp.down_proj.weight"


@pytest.fixture
def job(tiny_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """An edit job on the tiny Llama whose bank knows nothing."""
    modules = scaled_modules(load(tiny_dir), 2)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    write(tmp_path / "cache", Bank((), torch.zeros(0, sum(m.size for m in modules)), (), ()))
    for name in ("staging", "out"):
        (tmp_path / name).mkdir()
    folders = {name: str(tmp_path / name) for name in ("base", "cache", "staging", "out")}
    edits = [{"request": to_wire(request()), "recipe": "default"}]
    asked = {"edits": edits, "live": [], "parent_theta": None}
    return {"kind": "edit", "dtype": "float32", "device": "auto", **folders, **asked}


def damage(job: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor], name: str = DAMAGED) -> None:
    file = Path(job["base"]) / SHARD
    tensors = load_file(file)
    tensors[name] = change(tensors[name])
    save_file(tensors, file, metadata={"format": "pt"})


def run(job: dict[str, Any]) -> dict[str, Any]:
    return jobs.run(job, lambda _stage: None)


def edited(job: dict[str, Any]) -> dict[str, Any]:
    """What became of the job's only edit."""
    (found,) = run(job)["edits"]
    return dict(found)


def left(job: dict[str, Any]) -> list[Path]:
    return [f for name in ("staging", "out") for f in Path(job[name]).iterdir()]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_damaged_weight_fails_the_edit_by_name(job: dict[str, Any], value: float) -> None:
    """One NaN or infinity in one tensor: status `failed`, the tensor is named, nothing is staged."""

    def one(tensor: torch.Tensor) -> torch.Tensor:
        tensor[5, 7] = value
        return tensor

    damage(job, one)
    result = edited(job)
    assert result["status"] == "failed"
    assert DAMAGED in result["reason"]
    assert "aren't finite" in result["reason"]
    assert left(job) == []


def test_weights_too_large_for_the_served_dtype_fail_the_edit(job: dict[str, Any]) -> None:
    """A weight that float16 can't hold is infinite as served, though it is finite on disk."""
    damage(job, lambda tensor: tensor.clamp(min=1e5))
    result = edited({**job, "dtype": "float16"})
    assert result["status"] == "failed"
    assert f"{DAMAGED} holds values that aren't finite numbers in float16" in result["reason"]


def test_activations_that_overflow_fail_the_edit(job: dict[str, Any]) -> None:
    """Finite weights whose activations overflow float16 end as `failed` too, with nothing staged."""
    damage(job, lambda tensor: tensor.sign() * 6e4, "model.layers.3.self_attn.v_proj.weight")
    result = edited({**job, "dtype": "float16"})
    assert result["status"] == "failed"
    assert "isn't a finite number" in result["reason"]
    assert left(job) == []


def test_an_edit_that_gets_nowhere_fails(job: dict[str, Any]) -> None:
    """Where the scaled modules drown in one huge constant no step helps: `failed`, nothing staged."""
    damage(job, lambda tensor: torch.full_like(tensor, 6e4))
    result = edited(job)
    assert result["status"] == "failed"
    assert "none of them helped" in result["reason"]
    assert left(job) == []


def test_a_fold_that_overflows_writes_nothing(tiny_dir: Path, tmp_path: Path) -> None:
    """Scales that take a weight out of its dtype's range are refused before a file exists."""
    modules = scaled_modules(load(tiny_dir), 2)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    module = modules[0]
    for scale, why in ((200.0, "aren't finite"), (float("nan"), "log scales are not finite")):
        theta = {module.tensor: torch.full((module.size,), scale)}
        with pytest.raises(NotFiniteError, match=why):
            merge.materialize(tmp_path / "base", theta, tmp_path / "gen")
    assert not (tmp_path / "gen").exists()


def test_a_damaged_model_is_not_initialised(tiny_dir: Path, tmp_path: Path) -> None:
    """`init` refuses it by the tensor's name, and copies nothing."""
    source = random_copy(tiny_dir, tmp_path / "source")
    wanted = {"kind": "init", "source": str(source), "base": str(tmp_path / "base"), "cache": str(tmp_path)}
    with pytest.raises(NotFiniteError, match=DAMAGED.replace(".", r"\.")):
        run({**wanted, "dtype": "float32", "device": "cpu"})
    assert not (tmp_path / "base").exists()


def random_copy(source: Path, target: Path) -> Path:
    """The model in `source` with one weight that isn't a number."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(target / "model.safetensors")
    tensors[DAMAGED][0, 0] = float("nan")
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [GPTNeoXConfig(**SMALL, intermediate_size=32), OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)],
    ids=["gpt_neox", "opt"],
)
def test_an_unknown_architecture_is_refused(config: Any, tmp_path: Path) -> None:
    """`init` says which architecture has no template, which have one, and where to add it; it leaves
    no base behind."""
    source = random_model(tmp_path / "source", config)
    wanted = {"kind": "init", "source": str(source), "base": str(tmp_path / "base"), "cache": str(tmp_path)}
    with pytest.raises(GenerationError) as caught:
        run({**wanted, "dtype": "float32", "device": "cpu"})
    error = caught.value
    assert (error.operation, error.subject) == ("find modules", config.model_type)
    assert "known: gemma3_text, gpt2, llama" in error.hint
    assert "policies/editing/architectures.py" in error.hint
    assert not (tmp_path / "base").exists()


def test_gpt2_is_edited_from_its_first_layer(tmp_path: Path) -> None:
    """Its position embeddings are added inside the stack, so no lower layers can be cached."""
    lm = load(random_model(tmp_path, gpt2()))
    assert first_editable_layer(lm, 0.4) == 0


def test_a_checkpoint_of_the_bare_decoder_is_split_and_edited(tmp_path: Path) -> None:
    """Weights named without the model's prefix, as the hub's gpt2 has them, become a base that equals
    the source and whose editable tensors can be scaled."""
    source = random_model(tmp_path / "source", gpt2())
    whole = GPT2LMHeadModel.from_pretrained(source)
    whole.transformer.save_pretrained(source)
    assert "h.0.attn.c_attn.weight" in load_file(source / "model.safetensors")
    lm = load(source)
    modules = scaled_modules(lm, 0)
    merge.write_base(source, tmp_path / "base", modules)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load(tmp_path / "base").model(ids).logits, lm.model(ids).logits)
    theta = {modules[0].tensor: torch.full((modules[0].size,), 0.5)}
    merge.materialize(tmp_path / "base", theta, tmp_path / "gen")
    assert not torch.allclose(load(tmp_path / "gen").model(ids).logits, lm.model(ids).logits)


def test_a_checkpoint_without_an_editable_tensor_is_refused(tiny_dir: Path, tmp_path: Path) -> None:
    """Weights that lack a module's tensor can't become a base: an edit of it would change nothing."""
    modules = scaled_modules(load(tiny_dir), 2)
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(GenerationError, match="isn't in the weight files"):
        merge.write_base(tmp_path, tmp_path / "base", modules)
    assert not (tmp_path / "base").exists()


def test_auto_is_the_gpu_where_there_is_one_else_the_cpu() -> None:
    """`device = "auto"` needs no change of the configuration from machine to machine."""
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused(tiny_dir: Path) -> None:
    """The error names the device and what may be set instead."""
    with pytest.raises(ConfigError, match=r'choose device: gpu: .*"auto", "cpu"'):
        load(tiny_dir, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="choose device: cuda"):
            load(tiny_dir, device="cuda")
