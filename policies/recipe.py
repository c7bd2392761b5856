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

    `modules_share`: localisation keeps the modules that carry this share of the attribution. `goal`:
    margin (log odds) that a wanted token is trained toward; `unlearn_gap`, `done_gap`: how far below it
    the worst answer of stage 1 and 2 may end; `done_damage`: mean shortfall of kept answers to end with.
    `unlearn_steps`: steps that stage 1 of an update may take to make the old answer doubtful;
    `far_steps`: first steps of a stage, each on a batch of the answers; `learn_steps`, `retract_steps`:
    then on all of them, for each weight in `pulls`. `nats`: shortfall beyond which an answer pulls no
    harder. `cap`: largest move of one log scale in one step. `pulls`: weight of the metric's norm; the
    next, lower one is taken when the fit has settled with a gap left. `rho`: damping of the first step
    (times `rho_edited` where earlier edits are in force), `kept_weight`: weight of damage to kept answers
    (`policies.editing.fit.FitOptions`). `eps`, `shrink`: the metric's diagonal; `bank_weight`: the bank's
    rows weigh together as so many would. `neighbours`, `live_facts`: how many same-relation subjects and live
    facts have their answers kept; `bank_answers`: how many of the bank's as well by a retraction.
    `random_modules`: modules by chance, for the bench.
    """

    name: str
    modules_share: float = 0.95
    goal: float = 1.0
    unlearn_gap: float = 0.9
    done_gap: float = 0.9
    done_damage: float = 0.25
    unlearn_steps: int = 2
    far_steps: int = 10
    learn_steps: int = 1
    retract_steps: int = 3
    nats: float = 10.0
    cap: float = 1.0
    pulls: tuple[float, ...] = (0.3, 0.1, 0.03)
    rho: float = 8.0
    rho_edited: float = 4.0
    eps: float = 1.0
    shrink: float = 1.0
    bank_weight: float = 450.0
    kept_weight: float = 4.0
    neighbours: int = 64
    live_facts: int = 32
    bank_answers: int = 32
    random_modules: bool = False


DEFAULT = Recipe("default")
RECIPES: Mapping[str, Recipe] = {
    "default": DEFAULT,
    # Heavier protection: slower, for facts whose default edit did too much damage.
    "gentle": replace(DEFAULT, name="gentle", kept_weight=16.0, pulls=(1.0, 0.3, 0.1), neighbours=96),
    # No protection at all: the baseline that shows what the gates are for. Not on the ladder.
    "unguarded": replace(
        DEFAULT,
        name="unguarded",
        modules_share=1.0,
        cap=3.0,
        pulls=(0.0,),
        eps=1e6,
        shrink=0.0,
        rho=1e-4,
        kept_weight=0.0,
        neighbours=1,
        live_facts=0,
        bank_answers=0,
    ),
    # What each half of the method is worth: baselines of `palimpsest bench`. Not on the ladder.
    "one-stage": replace(DEFAULT, name="one-stage", unlearn_steps=0),
    "random-modules": replace(DEFAULT, name="random-modules", random_modules=True),
}


def recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError("choose recipe", name, "no such recipe", f"known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
