"""Every editing method of the bench on a tiny random model: what it changes, and that it tidies up."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policies.editing import merge
from policies.editing.adapters import AdapterStack
from policies.editing.architectures import scaled_modules
from policies.editing.bank import Bank, BankPrompt, Question, bank_rows
from policies.editing.baselines.method import (
    Fact,
    Method,
    State,
    Task,
    World,
    in_force,
    likelihood,
    projections,
    targets,
)
from policies.editing.baselines.ours import Ours, Prompted, nothing
from policies.editing.baselines.published import Published
from policies.editing.baselines.registry import BASELINES, NAMES, method_named
from policies.editing.baselines.rome import Rome, subject_end
from policies.editing.baselines.tuned import FinetuneLayer, Lora
from policies.editing.edit import Stopwatch, _Editor
from policies.editing.localise import random_coordinates
from policies.editing.model import LanguageModel
from policies.editing.objectives import batches
from policies.editing.targets import UNSURE
from policies.editing.wordings import Before
from policies.recipe import DEFAULT, RECIPES
from store.errors import UsageError
from store.facts import EditRequest, FactKey, Op, Phrasing

pytestmark = pytest.mark.slow

FIRST = 2
EDITORS = ("default", "gentle", "one-stage")
SHORT: dict[str, Callable[[], Method]] = {
    **{name: (lambda name=name: method_named(name)) for name in NAMES},  # type: ignore[misc]
    # A random model hardly listens: a second edit, whose steps are shorter, takes it twice as many.
    **{name: (lambda name=name: Ours(replace(RECIPES[name], far_steps=20))) for name in EDITORS},  # type: ignore[misc]
    "published": lambda: Published(unlearn_steps=4, learn_steps=4),
    "published-1e-2": lambda: Published(lr=1e-2, unlearn_steps=10, learn_steps=40),
    "lora": lambda: Lora(steps=8),
    "finetune-layer": lambda: FinetuneLayer(steps=8),
    "rome": lambda: Rome(steps=8, step=20.0, clamp=200.0, decay=0.0),  # a random model hardly listens
}
ASKS_ONLY = {"none", "prompt", "prompt-all"}
# A step of 5e-5; no direction without a metric; a random model's answers aren't in a few random modules.
TOO_SMALL = {"published", "unguarded", "random-modules"}


def request(subject: str = "Ada", new: str = "Rome") -> EditRequest:
    return EditRequest(
        key=FactKey(subject, "place"),
        op=Op.UPSERT,
        new=new,
        new_aliases=(),
        old="Oslo",
        old_aliases=(),
        train=(Phrasing(f"Where is {subject}?", True), Phrasing(f"{subject} is in", False)),
        held_out=(),
        templates=(Phrasing("Where is {subject}?", True),),
        held_out_templates=(Phrasing("Say where {subject} is.", True),),
        neighbours=("Bo", "Cy"),
    )


def task(asked: EditRequest, state: State | None = None) -> Task:
    before = Before(dict.fromkeys(asked.train, "It is in Oslo."), "Oslo", known=False)
    return Task(asked, before, state or State())


@pytest.fixture
def world(tiny: LanguageModel, tiny_dir: Path, tmp_path: Path) -> World:
    modules = scaled_modules(tiny, FIRST)
    merge.write_base(tiny_dir, tmp_path / "base", modules)
    prompts = (BankPrompt("What is two and two?", "two", "four"), BankPrompt("Who is Eve?", "Eve", "x"))
    rows = bank_rows(tiny, modules, prompts, lambda _stage: None)
    bank = Bank(prompts, rows, (), (Question("What is one and one?", "one", "two", ()),))
    return World(tiny, tmp_path / "base", bank, lambda _stage: None)


def fingerprint(lm: LanguageModel) -> str:
    """Names of modules and bytes of weights."""
    digest = hashlib.sha256(repr([n for n, _ in lm.model.named_modules()]).encode())
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def nats(world: World, asked: EditRequest, state: State) -> float:
    """Mean nats of the new answer's tokens on the training wordings, with the state in force."""
    with in_force(world.lm, state), torch.no_grad():
        made = batches(world.lm, targets(world.lm, task(asked)), 0)
        return float(likelihood(world.lm, made, 0))


def test_stage_1_to_its_end_makes_doubt_the_likelier_answer(world: World) -> None:
    """The model is taught no new answer: what rises is that it doesn't know."""
    doubt = request(new=UNSURE)
    edited = method_named("retract")(world, task(request()))
    assert nats(world, doubt, edited.state) < nats(world, doubt, State()) - 0.02
    assert nats(world, request(), edited.state) > nats(world, doubt, edited.state)


@pytest.mark.parametrize("name", sorted(set(NAMES) - ASKS_ONLY - TOO_SMALL - {"retract"}))
def test_a_method_raises_the_new_answer_twice_over_and_leaves_the_base_alone(world: World, name: str) -> None:
    """Two edits in one state: each one's answer becomes likelier, the model itself is as it was."""
    method, before = SHORT[name](), fingerprint(world.lm)
    state = State()
    for asked in (request(), request("Bob", "Lima")):
        edited = method(world, task(asked, state))
        assert nats(world, asked, edited.state) < nats(world, asked, state) - 0.02
        assert edited.size > 0
        assert edited.seconds
        assert edited.state.norm() > state.norm() > 0 or state == State()
        state = edited.state
    assert fingerprint(world.lm) == before
    assert not any(p.requires_grad for p in world.lm.model.parameters())


def test_the_published_edit_moves_every_projection_of_three_plus_two_blocks(world: World) -> None:
    """Three MLP and two attention blocks, all their projections and nothing else; both stages train."""
    edited = SHORT["published"]()(world, task(request()))
    moved = [name.removesuffix(".weight").split(".")[-2:] for name in edited.state.theta]
    assert sum(block == "mlp" for block, _ in moved) == 3 * 3
    assert sum(block == "self_attn" for block, _ in moved) == 2 * 4
    assert {stage for stage, _ in edited.seconds} == {"localise", "unlearn", "check", "learn"}
    assert edited.doubt is not None
    largest = max(float(v.abs().max()) for v in edited.state.theta.values())
    assert largest < 8 * 5e-5 * 1.1, "Adam moves a scale by at most its rate a step"


def test_the_published_settings_are_the_published_ones() -> None:
    """As published, and the faster variant that was measured beside it."""
    assert BASELINES["published"]() == Published(lr=5e-5, unlearn_steps=1000, learn_steps=1000)
    assert BASELINES["published-1e-2"]() == Published(lr=1e-2, unlearn_steps=150, learn_steps=150)


def test_every_baseline_trains_on_the_editors_own_wordings_and_targets(world: World) -> None:
    """The sequences are token for token those that the editor fits."""
    asked = request()
    made = task(asked)
    stack = AdapterStack(world.lm, scaled_modules(world.lm, FIRST))
    try:
        editor = _Editor(
            world.lm, stack, world.bank, (), asked, made.before, DEFAULT, world.beat, (), Stopwatch()
        )
        assert targets(world.lm, made) == editor._sequences("Rome")
    finally:
        stack.remove()


def test_weights_come_back_even_from_an_error(world: World) -> None:
    """What is in force ends with its context, whichever way that is left."""
    name = world.lm.model.base_model_prefix + ".layers.1.mlp.down_proj.weight"
    weight = world.lm.model.get_parameter(name)
    held, before = weight.data.clone(), fingerprint(world.lm)
    place = weight.data_ptr()

    def fail_inside() -> None:
        with in_force(world.lm, State(weights={name: torch.ones_like(held)})):
            assert torch.equal(weight.data, held + 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert weight.data_ptr() == place
    assert fingerprint(world.lm) == before


def test_scales_in_force_are_the_fold_of_a_generation(world: World) -> None:
    """A state of log scales gives the very weights that `merge.materialize` writes."""
    edited = method_named("one-stage")(world, task(request()))
    out = world.base.parent / "gen"
    merge.materialize(world.base, edited.state.theta, out)
    written = load_file(out / merge.EDITABLE_SHARD)
    with in_force(world.lm, edited.state):
        for name in edited.state.theta:
            assert torch.equal(world.lm.model.get_parameter(name).data, written[name])


def test_lora_adds_low_rank_updates_to_queries_and_values(world: World) -> None:
    """One update for each query and value projection, none of more than the rank."""
    found = Lora(rank=2, steps=3)(world, task(request())).state.weights
    assert len(found) == 2 * len(world.lm.layers)
    assert {name.split(".")[-2] for name in found} == {"q_proj", "v_proj"}
    assert max(int(torch.linalg.matrix_rank(d, rtol=1e-4)) for d in found.values()) <= 2


def test_finetuning_stays_in_one_layers_box(world: World) -> None:
    """One weight changes, and no number of it by more than the box."""
    found = FinetuneLayer(lr=1e-2, box=3e-3, steps=4)(world, task(request())).state.weights
    assert [name.split(".")[-2] for name in found] == ["down_proj"]
    assert 2.9e-3 < max(float(d.abs().max()) for d in found.values()) <= 3.01e-3


def test_rome_writes_one_rank_and_keeps_its_moments(world: World) -> None:
    """The update has rank one, and the keys' second moment is computed once."""
    rome = Rome(steps=3)
    (update,) = rome(world, task(request())).state.weights.values()
    assert int(torch.linalg.matrix_rank(update, rtol=1e-4)) == 1
    (moment,) = rome.moments.values()
    assert torch.allclose(moment, moment.T, atol=1e-4)
    rome(world, task(request("Bob", "Lima")))
    assert next(iter(rome.moments.values())) is moment


def test_the_subjects_last_token_is_found_inside_a_prompt(tiny: LanguageModel) -> None:
    """What is decoded up to that token ends with the subject's first mention."""
    for sequence in targets(tiny, task(request("Ada Lovelace"))):
        at = subject_end(tiny, sequence, "Ada Lovelace")
        assert tiny.tokenizer.decode(list(sequence.ids[: at + 1])).endswith("Ada Lovelace")
    assert subject_end(tiny, sequence, "Nobody") == len(sequence.ids) - sequence.answer - 1


def test_the_prompt_holds_the_facts_whose_subject_is_asked_for(world: World) -> None:
    """Retrieval by mention; a subject's newer fact replaces its older one; weights don't move."""
    state, method = State(), Prompted()
    for asked in (request(new="Lima"), request("Bob", "Bonn"), request()):
        state = method(world, task(asked, state)).state
    assert state.wrap(Phrasing("Where is ADA?", True)).text == "Ada is in Rome. Where is ADA?"
    assert state.wrap(Phrasing("Where is Eve?", True)).text == "Where is Eve?"
    assert state.norm() == 0
    everywhere = replace(state, everywhere=True)
    assert everywhere.wrap(Phrasing("Eve is in", False)) == Phrasing(
        "Bob is in Bonn. Ada is in Rome. Eve is in", False
    )


def test_a_fact_without_a_cloze_is_put_in_the_prompt_as_question_and_answer(world: World) -> None:
    """The model's own sentence with the new object, after the question."""
    asked = replace(request(), train=(Phrasing("Where is Ada?", True),))
    assert Prompted()(world, task(asked)).state.facts == (Fact("Ada", "Where is Ada? It is in Rome."),)


def test_no_edit_is_a_method_too(world: World) -> None:
    """`none` hands back the state it was given, at no cost."""
    edited = nothing(world, task(request()))
    assert edited.state == State()
    assert (edited.size, edited.seconds) == (0, ())


def test_one_stage_has_no_unlearning_to_measure(world: World) -> None:
    """With stage 1 left out there is no doubt reading; with it there is."""
    assert Ours(RECIPES["one-stage"])(world, task(request())).doubt is None
    assert Ours(DEFAULT)(world, task(request())).doubt is not None


def test_random_modules_are_as_many_as_asked_and_the_same_every_time(world: World) -> None:
    """Chance draws a fixed number of modules by its seed and freezes all others."""
    stack = AdapterStack(world.lm, scaled_modules(world.lm, 0))
    try:
        frozen, chosen = random_coordinates(stack, 3, "a")
        assert len(set(chosen)) == 3
        free = sum(m.size for m in stack.modules if m.path in chosen)
        assert int((~frozen).sum()) == free
        assert random_coordinates(stack, 3, "a")[1] == chosen
        assert len({random_coordinates(stack, 3, str(i))[1] for i in range(5)}) > 1
    finally:
        stack.remove()


def test_projections_are_all_linear_maps_of_every_layer(tiny: LanguageModel) -> None:
    """Seven a layer in a Llama; only the MLP's last has its input scaled."""
    found = projections(tiny)
    assert len(found) == 7 * len(tiny.layers)
    assert {m.path.rpartition(".")[2] for m in found if m.feedforward} == {"down_proj"}
    for m in found:
        assert tiny.model.get_parameter(m.tensor).shape[m.axis] == m.size


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    """The message lists recipes and baselines."""
    with pytest.raises(UsageError, match=r"known: default, .*rome"):
        method_named("nonsense")
