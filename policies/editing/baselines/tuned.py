"""Fine-tuning baselines: low-rank adapters, and one feed-forward weight within a small box.

Sources: Hu et al. 2021 (LoRA, arXiv 2106.09685), with rank, scale and targets as editing studies use them;
FT-L of Meng et al. 2022 (arXiv 2202.05262): one layer, every weight within `box` of what it was. Both
minimise the same targets' negative log-probability, all wordings a step. Knows gradients; doesn't know
retention: nothing is protected here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from peft import LoraConfig, inject_adapter_in_model

from policies.editing.adapters import unwrap
from policies.editing.baselines.method import (
    Edited,
    Task,
    World,
    add_weights,
    in_force,
    likelihood,
    middle_projection,
    projections,
    targets,
)
from policies.editing.edit import Stopwatch
from policies.editing.objectives import batches

ADAPTER = "lora"
QUERIES_AND_VALUES = frozenset({"q_proj", "v_proj", "qkv_proj", "c_attn"})  # fused ones hold both


@dataclass(frozen=True, slots=True)
class Lora:
    """`done`: mean nats a target token at which training stops."""

    rank: int = 8
    alpha: int = 16
    lr: float = 2e-3
    steps: int = 30
    done: float = 0.05

    def __call__(self, world: World, task: Task) -> Edited:
        lm, clock = world.lm, Stopwatch()
        paths = [m.path for m in projections(lm) if m.path.rpartition(".")[2] in QUERIES_AND_VALUES]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=paths, task_type="CAUSAL_LM")
        with in_force(lm, task.state):
            torch.manual_seed(task.request.seed)
            inject_adapter_in_model(config, lm.model, adapter_name=ADAPTER)
            try:
                layers = [lm.model.get_submodule(p) for p in paths]
                factors = [p for n, p in lm.model.named_parameters() if f".{ADAPTER}." in n]
                train(world, task, factors, 0, self.lr, self.steps, self.done)
                found = {
                    f"{p}.weight": layer.get_delta_weight(ADAPTER).detach().float().cpu()
                    for p, layer in zip(paths, layers, strict=True)
                }
            finally:
                unwrap(lm, paths)
        clock.lap("learn")
        state = replace(task.state, weights=add_weights(task.state.weights, found))
        return Edited(state, tuple(clock.laps), sum(f.numel() * 4 for f in factors))


@dataclass(frozen=True, slots=True)
class FinetuneLayer:
    """`depth`: which layer, as a share of all; `box`: how far each weight may move. The published
    rate 5e-4 in the layer at 0.35 left SmolLM2-135M's answer as it was, even with a box ten times as wide."""

    depth: float = 0.66
    lr: float = 1e-3
    box: float = 1e-2
    steps: int = 25
    done: float = 0.05

    def __call__(self, world: World, task: Task) -> Edited:
        clock, module = Stopwatch(), middle_projection(world.lm, self.depth)
        with in_force(world.lm, task.state):
            weight = world.lm.model.get_parameter(module.tensor)
            start = weight.data
            weight.data = start.clone()
            weight.requires_grad_(True)
            try:
                train(
                    world,
                    task,
                    [weight],
                    module.layer,
                    self.lr,
                    self.steps,
                    self.done,
                    after=lambda: weight.data.copy_(weight.data.clamp(start - self.box, start + self.box)),
                )
                delta = (weight.data - start).float().cpu()
            finally:
                weight.requires_grad_(False)
                weight.grad = None
                weight.data = start
        clock.lap("learn")
        state = replace(task.state, weights=add_weights(task.state.weights, {module.tensor: delta}))
        return Edited(state, tuple(clock.laps), delta.numel() * 4)


def train(
    world: World,
    task: Task,
    parameters: list[torch.nn.Parameter],
    first: int,
    lr: float,
    steps: int,
    done: float,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Adam on all training wordings a step, until they are learnt or `steps` are made. Layers below
    `first` must not depend on `parameters`. `after` is called after every step."""
    made = batches(world.lm, targets(world.lm, task), first)
    optimiser = torch.optim.Adam(parameters, lr=lr)
    for step in range(steps):
        optimiser.zero_grad()
        loss = likelihood(world.lm, made, first)
        reached = loss.item()
        world.beat(f"train step {step}: {reached:.2f} nats")
        if reached < done:
            break
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        after()
