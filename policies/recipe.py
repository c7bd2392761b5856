"""How hard an edit tries and how much it protects: named, frozen settings of the editor.

Knows numbers and what they mean. Doesn't know torch or how they are used. `policies.retries` says
which recipe is tried after which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from store.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one edit. Nats are natural-log units of probability.

    `modules_share`: localisation keeps the modules that carry this share of the attribution.
    `unlearn_steps`, `learn_steps`: most Gauss-Newton steps of a stage; `retract_steps`: of stage 1
    when the edit ends there. `goal`: log-probability to train a target answer toward, `done_gap`:
    how far below it the worst may end. `nats`:
    shortfall beyond which an answer pulls no harder. `cap`: largest move of one log scale in one step.
    `pull`: weight of the metric's norm, `rho`: damping to start from, `kept_weight`: weight of damage
    to retained answers (`policies.editing.fit.FitOptions`).
    `eps`, `shrink`: the metric's diagonal. `neighbours`, `live_facts`: how many same-relation subjects
    and live facts have their answers retained. `repair_rounds`: how often the most damaged
    `repair_prompts` of `bank_prompts` bank prompts join the solve, for `repair_steps` more steps.
    """

    name: str
    modules_share: float = 0.95
    unlearn_steps: int = 3
    learn_steps: int = 14
    retract_steps: int = 20
    goal: float = -0.3
    done_gap: float = 0.5
    nats: float = 10.0
    cap: float = 1.0
    pull: float = 0.02
    rho: float = 5.0
    eps: float = 1.0
    shrink: float = 1.0
    kept_weight: float = 1.0
    neighbours: int = 24
    live_facts: int = 16
    bank_prompts: int = 200
    repair_rounds: int = 0
    repair_prompts: int = 40
    repair_steps: int = 4


DEFAULT = Recipe("default")
RECIPES: Mapping[str, Recipe] = {
    "default": DEFAULT,
    # Heavier protection: slower, for facts whose default edit did too much damage.
    "gentle": replace(DEFAULT, name="gentle", kept_weight=4.0, pull=0.05, neighbours=32, learn_steps=16),
    # No protection at all: the baseline that shows what the gates are for. Not on the ladder.
    "unguarded": replace(
        DEFAULT,
        name="unguarded",
        modules_share=1.0,
        cap=3.0,
        pull=0.0,
        eps=1e6,
        shrink=0.0,
        rho=1e-9,
        kept_weight=0.0,
        neighbours=1,
        live_facts=0,
    ),
}


def recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError("choose recipe", name, "no such recipe", f"known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
