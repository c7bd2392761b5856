"""Every method of the bench by name.

Knows names and settings. Doesn't know how a method works.
"""

from collections.abc import Callable, Mapping

from policies.editing.baselines.method import Method
from policies.editing.baselines.ours import Ours, Prompted, nothing
from policies.editing.baselines.published import Published
from policies.editing.baselines.rome import Rome
from policies.editing.baselines.tuned import FinetuneLayer, Lora
from policies.recipe import DEFAULT, RECIPES, recipe_named
from store.errors import UsageError

BASELINES: Mapping[str, Callable[[], Method]] = {
    "none": lambda: nothing,
    "prompt": Prompted,
    "retract": lambda: Ours(DEFAULT, retract=True),
    "prompt-all": lambda: Prompted(everywhere=True),
    "published": Published,
    "published-1e-2": lambda: Published(lr=1e-2, unlearn_steps=150, learn_steps=150),
    "lora": Lora,
    "finetune-layer": FinetuneLayer,
    "rome": Rome,
}
NAMES = (*RECIPES, *BASELINES)


def method_named(name: str) -> Method:
    """A recipe of the editor or a baseline, made anew. Raises UsageError when there is none."""
    if name in RECIPES:
        return Ours(recipe_named(name))
    if name not in BASELINES:
        raise UsageError("choose recipe", name, "no such recipe", f"known: {', '.join(sorted(NAMES))}")
    return BASELINES[name]()
