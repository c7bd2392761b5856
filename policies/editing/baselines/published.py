"""The published edit: IA3 on three MLP and two attention layers, uncertainty first, then the new fact.

Source: Ngugi, "Surgical Knowledge Rewrite in Compact LLMs" (arXiv 2508.07075): the layers are chosen by
localisation, every projection in them gets a scale, Adam on one example a step, stage 1 toward an uncertain
answer, merged, stage 2 toward the new answer, merged; nothing is retained on purpose. Two things
differ: localisation sums this project's attribution over a layer's projections, and scales are kept
above `LEAST`, since a merged scale must have a logarithm. Knows training steps;
doesn't know the editor's fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from policies.editing import merge
from policies.editing.adapters import MERGED, STAGE, AdapterStack
from policies.editing.architectures import ScaledModule, template_for
from policies.editing.bank import answer_sequence
from policies.editing.baselines.method import (
    Edited,
    Task,
    World,
    doubt_now,
    in_force,
    likelihood,
    projections,
)
from policies.editing.edit import CHECK, Stopwatch
from policies.editing.localise import localise
from policies.editing.model import LanguageModel
from policies.editing.objectives import batches
from policies.editing.targets import UNSURE
from policies.editing.wordings import Wording, wordings

LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Published:
    """`unlearn_steps`, `learn_steps`: of batch 1, training wordings in turn."""

    lr: float = 5e-5
    unlearn_steps: int = 1000
    learn_steps: int = 1000
    mlp_layers: int = 3
    attention_layers: int = 2

    def __call__(self, world: World, task: Task) -> Edited:
        lm, clock, every = world.lm, Stopwatch(), projections(world.lm)
        with in_force(lm, task.state):
            world.beat("localise")
            chosen = self.modules(lm, every, task)
            clock.lap("localise")
            stack = AdapterStack(lm, chosen)
            try:
                new = task.request.new or ""
                asked = wordings(lm, task.request, task.before, new)  # the same leads in both stages
                unlearn = self._train(world, stack, asked, UNSURE, self.unlearn_steps)
                clock.lap("unlearn")
                doubt = doubt_now(world, task.request)
                clock.lap(CHECK)
                stack.set(MERGED, unlearn)
                learn = self._train(world, stack, asked, new, self.learn_steps)
                clock.lap("learn")
            finally:
                stack.remove()
        both = [merge.split_theta(chosen, unlearn), merge.split_theta(chosen, learn)]
        theta = merge.add_thetas([task.state.theta, *both])
        return Edited(
            state=replace(task.state, theta=theta, modules=every),
            seconds=tuple(clock.laps),
            size=sum(v.numel() * 4 for stage in both for v in stage.values()),
            doubt=doubt,
        )

    def modules(
        self, lm: LanguageModel, every: Sequence[ScaledModule], task: Task
    ) -> tuple[ScaledModule, ...]:
        """All projections of the blocks that carry most attribution to the answer given now."""
        asked = [p for p in task.request.train if p.is_question] or list(task.request.train)
        own = [answer_sequence(lm, p, task.before.answers[p]) for p in asked]
        stack = AdapterStack(lm, every)
        try:
            scores = localise(stack, batches(lm, own, 0, tokens=10_000)[0], None)
        finally:
            stack.remove()
        found = {s.module: s.attribution for s in scores}
        inner = template_for(lm.decoder.config.model_type).feedforward[0].partition(".")[0]
        kept = set()
        for is_mlp, count in ((True, self.mlp_layers), (False, self.attention_layers)):
            blocks: dict[int, float] = {}
            for m in every:
                if (_block(m) == inner) is is_mlp:
                    blocks[m.layer] = blocks.get(m.layer, 0.0) + found[m.path]
            kept |= {(is_mlp, layer) for layer in sorted(blocks, key=lambda i: (-blocks[i], i))[:count]}
        return tuple(m for m in every if (_block(m) == inner, m.layer) in kept)

    def _train(
        self, world: World, stack: AdapterStack, asked: Sequence[Wording], said: str, steps: int
    ) -> torch.Tensor:
        """Log scales (P,) of one stage, which is left in force."""
        made = batches(world.lm, [w.tokens(world.lm, said) for w in asked], stack.first, tokens=1)
        stack.set(STAGE, torch.zeros(stack.size))
        scales = [layer.ia3_l[STAGE] for layer in stack.layers]
        optimiser = torch.optim.Adam(scales, lr=self.lr)
        for step in range(steps):
            optimiser.zero_grad()
            loss = likelihood(world.lm, [made[step % len(made)]], stack.first)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            for scale in scales:
                scale.data.clamp_(min=LEAST)
            if step % 10 == 0:
                world.beat(f"published step {step}: {loss.item():.2f} nats")
        return torch.cat([s.detach().flatten().log().cpu() for s in scales])


def _block(module: ScaledModule) -> str:
    """ "mlp" of "model.layers.3.mlp.down_proj"."""
    return module.path.split(".")[-2]
