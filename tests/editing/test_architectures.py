"""Every supported family and dtype, one table: localise, edit, fold, export, take back, load again."""

import copy
import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from policies.editing import merge
from policies.editing.adapters import AdapterStack
from policies.editing.architectures import TEMPLATES, query_rows
from policies.editing.bank import answer_sequence
from policies.editing.measure import answers
from policies.editing.model import DTYPES, decode, load, prompt_ids
from policies.editing.objectives import batches, token_logprobs
from store.facts import Phrasing
from tests.editing.families import (
    BRIEF,
    CLOZE,
    FAMILIES,
    WINDOW,
    Edited,
    edited,
    make_edit,
    probability,
)

pytestmark = pytest.mark.slow

ASKED = (
    Phrasing("What is the capital of France, and since when has it been that?", True),
    Phrasing("Who wrote Hamlet?", True),
    Phrasing("The longest river of the whole of the continent of Africa is the", False),
)
# Logits of half precision differ in their last bits with the order of additions.
CLOSE = {"float32": 1e-4, "bfloat16": 0.3, "float16": 0.05}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Edited:
    return edited(request.param, tmp_path_factory.mktemp("family"))


def logits(model: torch.nn.Module, made: Edited) -> torch.Tensor:
    ids = torch.tensor([prompt_ids(made.lm, ASKED[0])])
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits.float()
    return found


def test_every_module_is_found_and_localised(made: Edited) -> None:
    """Each editable layer gives the template's modules; all get a score, the strongest an effect."""
    template = TEMPLATES[made.lm.decoder.config.model_type]
    per_layer = template.attention + template.feedforward
    assert len(made.modules) == (len(made.lm.layers) - made.family.first) * len(per_layer)
    assert {s.module for s in made.deltas.scores} == {m.path for m in made.modules}
    assert all(math.isfinite(s.attribution) and s.attribution > 0 for s in made.deltas.scores)
    effects = [s.effect for s in made.deltas.scores[:6]]
    assert all(e is not None and math.isfinite(e) for e in effects)
    assert any(effects), "the model answers otherwise when it is fed another subject's activations"


def test_a_fused_projection_keeps_its_queries(made: Edited) -> None:
    """Where queries, keys and values are one weight, the edit scales keys and values only."""
    template = TEMPLATES[made.lm.decoder.config.model_type]
    fused = [m for m in made.modules if m.path.endswith(template.fused or ("none",))]
    assert bool(fused) == (made.family.name in {"phi3", "gpt2"})
    for module in fused:
        assert module.fixed == query_rows(made.lm, module.size) == 64
        if (scales := made.theta.get(module.tensor)) is not None:  # localisation chose it
            assert not bool(scales[:64].any())
            assert bool(scales[64:].any())
    assert not fused or made.theta.keys() & {m.tensor for m in fused}


def test_a_pack_gives_the_logits_of_each_sequence_alone(made: Edited) -> None:
    """Packed answers have the log-probabilities that plain transformers gives them, also where the
    sequence is longer than a sliding window."""
    sequences = [answer_sequence(made.lm, p, "Ada") for p in ASKED]
    batch = batches(made.lm, sequences, made.family.first, tokens=10_000)[0]
    assert int(batch.pack.positions.max()) > 2 * WINDOW
    with torch.no_grad():
        packed = token_logprobs(made.lm, batch, made.family.first)
        for i, s in enumerate(sequences):
            ids = torch.tensor([[*(made.lm.prefix if s.has_prefix else ()), *s.ids]])
            scores = made.lm.model(ids).logits[0, -s.answer - 1 : -1].float().log_softmax(-1)
            alone = scores.gather(1, ids[0, -s.answer :, None])[:, 0]
            assert torch.allclose(packed[batch.pack.owner == i], alone, atol=CLOSE[made.family.dtype])


def test_answers_are_those_of_plain_generation(made: Edited) -> None:
    """Batches with a shared prefix cache answer as transformers does one by one (fp32: ties are none)."""
    if made.family.dtype != "float32":
        pytest.skip("in half precision greedy choices of a random model hang on the last bit")
    found = answers(made.lm, ASKED, max_new_tokens=8)
    for phrasing, answer in zip(ASKED, found, strict=True):
        ids = torch.tensor([prompt_ids(made.lm, phrasing)])
        out = made.lm.model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
        stop = next((k for k, i in enumerate(out) if i in made.lm.stop_ids), len(out))
        assert answer == decode(made.lm, out[:stop])


def test_an_edit_is_learned_and_the_model_left_as_it_was(made: Edited) -> None:
    """The generation, loaded in its dtype, gives the new object p > 0.9; `edit` changed no bit."""
    assert probability(made.lm, made.family.first) < 0.1
    assert probability(made.serve(), made.family.first) > 0.9
    assert made.digests[0] == made.digests[1]


def test_the_fold_equals_pefts_merge(made: Edited) -> None:
    """The exported adapter on the base, once merged by PEFT, gives the served logits within 1e-4, and
    in fp32 so it does unmerged (a half's activations are rounded elsewhere than its weights; computed in
    double precision, as single rounds by more than that on some processors)."""
    dtype = DTYPES[made.family.dtype]
    base = AutoModelForCausalLM.from_pretrained(made.base, dtype=dtype)
    adapted = PeftModel.from_pretrained(base, str(made.generation / "adapter"))
    served = made.serve().model
    if dtype is torch.float32:
        one, other = copy.deepcopy(adapted).double(), copy.deepcopy(served).double()
        assert torch.allclose(logits(one, made), logits(other, made), atol=1e-4)
    assert torch.allclose(logits(adapted.merge_and_unload(), made), logits(served, made), atol=1e-4)


def test_the_exported_adapter_is_the_same_in_every_process(made: Edited) -> None:
    """PEFT keeps names in sets, whose order is each process's own: the file has them in order."""
    config = json.loads((made.generation / "adapter" / "adapter_config.json").read_text("utf-8"))
    lists = [value for value in config.values() if isinstance(value, list)]
    assert lists
    assert all(value == sorted(value) for value in lists)


def test_a_fold_is_rounded_once_to_the_stored_dtype(made: Edited) -> None:
    """Every scaled tensor is its base's times exp(theta) in fp32, in the base's dtype; scales are fp32."""
    base = load_file(made.base / merge.EDITABLE_SHARD)
    folded = load_file(made.generation / merge.EDITABLE_SHARD)
    assert {t.dtype for t in folded.values()} == {DTYPES[made.family.dtype]}
    for module in made.modules:
        scale = made.theta.get(module.tensor, torch.zeros(module.size)).exp()  # none: it wasn't chosen
        by = scale if module.axis == 1 else scale[:, None]
        assert scale.dtype is torch.float32
        once = (base[module.tensor].float() * by).to(DTYPES[made.family.dtype])
        assert torch.equal(folded[module.tensor], once)
    stack = AdapterStack(made.lm, made.modules)
    kinds = {scale.dtype for layer in stack.layers for scale in layer.ia3_l.values()}
    stack.remove()
    assert kinds == {torch.float32}


def test_taking_an_edit_back_is_bit_exact(made: Edited) -> None:
    """A fold leaves base and parent as they were, and theirs come out again byte for byte."""
    held = {f.name: f.read_bytes() for f in made.base.iterdir() if f.is_file()}
    parent = (made.generation / merge.EDITABLE_SHARD).read_bytes()
    child = merge.add_thetas([made.theta, made.theta])
    folder = made.base.parent
    for name, theta in (("child", child), ("back", made.theta), ("to-base", {})):
        merge.materialize(made.base, theta, folder / name)
    assert (folder / "child" / merge.EDITABLE_SHARD).read_bytes() != parent
    assert (folder / "back" / merge.EDITABLE_SHARD).read_bytes() == parent
    assert (folder / "to-base" / merge.EDITABLE_SHARD).read_bytes() == held[merge.EDITABLE_SHARD]
    assert (made.generation / merge.EDITABLE_SHARD).read_bytes() == parent
    assert {f.name: f.read_bytes() for f in made.base.iterdir() if f.is_file()} == held


def test_embeddings_stay_tied_and_unchanged(made: Edited) -> None:
    """After save and load one tensor still serves both ends where it did, and no edit reached it."""
    ends = [
        (m.get_input_embeddings().weight, m.get_output_embeddings().weight)
        for m in (made.lm.model, made.serve().model)
    ]
    assert [a.data_ptr() == b.data_ptr() for a, b in ends] == [made.family.tied] * 2
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])
    assert json.loads((made.generation / "config.json").read_text("utf-8")) == json.loads(
        (made.base / "config.json").read_text("utf-8")
    )


def test_the_same_edit_twice_gives_the_same_vectors(made: Edited) -> None:
    """In every family and dtype an edit is a function of its inputs, bit for bit."""
    again = load(made.base, dtype=made.family.dtype)
    first, second = (make_edit(lm, made.modules, BRIEF) for lm in (made.lm, again))
    assert bool(first.learn.any())
    assert torch.equal(first.unlearn, second.unlearn)
    assert torch.equal(first.learn, second.learn)
    assert first.scores == second.scores


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_an_edit_on_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With `device = "auto"` on a machine with a GPU the edit runs there, is learned and repeats."""
    done = edited(FAMILIES[0], tmp_path_factory.mktemp("cuda"), device="auto")
    assert done.lm.device.type == "cuda"
    assert probability(load(done.generation, device="auto"), done.family.first) > 0.9
    first, second = (make_edit(done.lm, done.modules, BRIEF) for _ in range(2))
    assert torch.equal(first.learn, second.learn)
    assert answers(done.lm, [CLOZE], max_new_tokens=2) == answers(load(done.base), [CLOZE], max_new_tokens=2)
