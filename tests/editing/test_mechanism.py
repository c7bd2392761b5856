"""Packing, adapters and folding on a tiny random Llama."""

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from policies.editing import merge
from policies.editing.adapters import MERGED, STAGE, AdapterStack
from policies.editing.architectures import ScaledModule, scaled_modules
from policies.editing.model import LanguageModel, load, prompt_ids
from policies.editing.objectives import batches, token_logprobs
from policies.editing.packing import pack, split_prefix
from store.facts import Phrasing

FIRST = 2
QUESTIONS = ("What is the capital of France?", "Who wrote Hamlet?", "Name a colour.")


def sequences(lm: LanguageModel) -> list:  # type: ignore[type-arg]
    answers = [[5, 6, 7], [8, 9], [10]]
    return [
        split_prefix(lm, prompt_ids(lm, Phrasing(q, True)), a)
        for q, a in zip(QUESTIONS, answers, strict=True)
    ]


def test_a_pack_gives_each_sequence_the_logits_that_it_has_alone(tiny: LanguageModel) -> None:
    """Sharing the prefix, packing and caching the lower layers change no log-probability."""
    batch = batches(tiny, sequences(tiny), FIRST)[0]
    with torch.no_grad():
        packed = token_logprobs(tiny, batch, FIRST)
        for i, s in enumerate(sequences(tiny)):
            prefix = list(tiny.prefix) if s.has_prefix else []
            ids = torch.tensor([prefix + list(s.ids)])
            logits = tiny.model(ids).logits[0, -s.answer - 1 : -1].log_softmax(-1)
            alone = logits.gather(1, ids[0, -s.answer :, None])[:, 0]
            assert torch.allclose(packed[batch.pack.owner == i], alone, atol=1e-5)


def test_no_sequence_of_a_pack_sees_another(tiny: LanguageModel) -> None:
    """The mask of a pack is open only to the prefix and to a sequence's own past."""
    made = pack(tiny, sequences(tiny))
    open_ = made.mask[0, 0] == 0
    for i, row in enumerate(open_):
        seen = set(made.segment[row].tolist())
        assert seen <= {-1, int(made.segment[i])}
        assert int(row.nonzero().max()) == i


def test_recorded_gradients_are_the_derivative_by_log_scales(
    tiny: LanguageModel, generator: torch.Generator
) -> None:
    """The product of activations and their gradients agrees with finite differences in theta."""
    stack = AdapterStack(tiny, scaled_modules(tiny, FIRST))
    batch = batches(tiny, sequences(tiny), FIRST)[0]
    with stack.recording() as recorder:
        gradient = recorder.gradient(token_logprobs(tiny, batch, FIRST).sum())
    direction = torch.randn(stack.size, generator=generator)
    step = 1e-3
    values = []
    for sign in (1, -1):
        stack.set(STAGE, sign * step * direction)
        with torch.no_grad():
            values.append(float(token_logprobs(tiny, batch, FIRST).double().sum()))
    assert abs((values[0] - values[1]) / (2 * step) - float(gradient @ direction)) < 2e-2


def test_removing_the_adapters_leaves_the_model_as_it_was(tiny: LanguageModel) -> None:
    """After `remove` no module, weight or output differs from before, bit for bit."""
    ids = torch.tensor([prompt_ids(tiny, Phrasing(QUESTIONS[0], True))])
    before, names = tiny.model(ids).logits, [n for n, _ in tiny.model.named_modules()]
    stack = AdapterStack(tiny, scaled_modules(tiny, FIRST))
    stack.set(STAGE, torch.full((stack.size,), 0.3))
    assert not torch.equal(tiny.model(ids).logits, before)
    stack.remove()
    assert torch.equal(tiny.model(ids).logits, before)
    assert [n for n, _ in tiny.model.named_modules()] == names


def some_theta(modules: tuple[ScaledModule, ...], generator: torch.Generator) -> merge.Theta:
    return {m.tensor: torch.randn(m.size, generator=generator) * 0.2 for m in modules}


def test_a_fold_equals_the_adapters_and_peft_loads_the_export(
    tiny_dir: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    """Folded files, active adapters and the exported adapter on the base agree within 1e-4."""
    lm = load(tiny_dir)
    modules = scaled_modules(lm, FIRST)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    theta = some_theta(modules, generator)
    merge.materialize(tmp_path / "base", theta, tmp_path / "gen")
    ids = torch.tensor([prompt_ids(lm, Phrasing(QUESTIONS[0], True))])
    served = load(tmp_path / "gen").model(ids).logits
    stack = AdapterStack(lm, modules)
    stack.set(MERGED, merge.join_theta(modules, theta))
    assert torch.allclose(lm.model(ids).logits, served, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with_adapter = PeftModel.from_pretrained(base, str(tmp_path / "gen" / "adapter"))
    assert torch.allclose(with_adapter(ids).logits, served, atol=1e-4)


def test_a_generation_is_rebuilt_bit_for_bit(
    tiny_dir: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    """Two folds of one theta are byte-equal, share the fixed shard with the base, and leave it alone."""
    modules = scaled_modules(load(tiny_dir), FIRST)
    base = tmp_path / "base"
    merge.write_base(tiny_dir, base, modules)
    kept = (base / merge.EDITABLE_SHARD).read_bytes()
    theta = some_theta(modules, generator)
    for name in ("a", "b"):
        merge.materialize(base, theta, tmp_path / name)
    first, second = ((tmp_path / n / merge.EDITABLE_SHARD).read_bytes() for n in "ab")
    assert first == second != kept
    assert (base / merge.EDITABLE_SHARD).read_bytes() == kept
    assert (base / merge.FIXED_SHARD).stat().st_ino == (tmp_path / "a" / merge.FIXED_SHARD).stat().st_ino


def test_a_delta_file_keeps_its_two_stages(tmp_path: Path) -> None:
    """What is written as unlearn and learn is read back as their sum."""
    one, two = {"x.weight": torch.tensor([1.0, 2.0])}, {"x.weight": torch.tensor([0.5, 0.0])}
    merge.write_delta(tmp_path / "d", one, two)
    assert torch.equal(merge.read_delta(tmp_path / "d")["x.weight"], torch.tensor([1.5, 2.0]))
