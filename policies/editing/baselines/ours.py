"""The editor of this project, and the two baselines that leave its weights alone, as bench methods.

Knows recipes and how a fact is put in a prompt. Doesn't know how an edit is found (`policies.editing.
edit`).
"""

from dataclasses import dataclass, replace

from policies.editing import merge
from policies.editing.baselines.method import Edited, Fact, Task, World, doubt_now
from policies.editing.edit import edit
from policies.editing.targets import completed, own_leads
from policies.editing.wordings import old_names
from policies.recipe import Recipe
from store.facts import Op, Reading


@dataclass(frozen=True, slots=True)
class Ours:
    """One recipe of the editor; with `retract` stage 1 alone, to its end: the model is to say that it doesn't
    know."""

    recipe: Recipe
    retract: bool = False

    def __call__(self, world: World, task: Task) -> Edited:
        modules = merge.read_modules(world.base)
        parent = merge.join_theta(modules, task.state.theta)
        request = replace(task.request, op=Op.RETRACT, new=None) if self.retract else task.request

        def check() -> tuple[Reading, ...]:
            return (doubt_now(world, request),) if self.recipe.unlearn_steps else ()

        deltas = edit(
            world.lm,
            modules,
            world.bank,
            parent,
            request,
            task.before,
            self.recipe,
            world.beat,
            live=task.live,
            check_unlearned=check,
        )
        theta = merge.split_theta(modules, parent + deltas.unlearn + deltas.learn)
        return Edited(
            state=replace(task.state, theta=theta, modules=modules),
            seconds=deltas.seconds,
            size=2 * sum(v.numel() * 4 for v in theta.values()),
            doubt=next(iter(deltas.after_unlearn), None),
        )


def nothing(_world: World, task: Task) -> Edited:
    """No edit: what the base answers on the same questions."""
    return Edited(task.state, (), 0)


@dataclass(frozen=True, slots=True)
class Prompted:
    """The ledger's fact put in the prompt; the weights stay.

    With `everywhere` all live facts stand before every question, else those whose subject the question
    names: a perfect retriever as long as questions spell subjects as the ledger does.
    """

    everywhere: bool = False

    def __call__(self, _world: World, task: Task) -> Edited:
        fact = Fact(task.request.key.subject, sentence(task))
        others = tuple(f for f in task.state.facts if f.subject != fact.subject)
        state = replace(task.state, facts=(*others, fact), everywhere=self.everywhere)
        return Edited(state, (), len(fact.sentence.encode()))


def sentence(task: Task) -> str:
    """The new fact in words: a training cloze completed, else a training question with its answer."""
    new = task.request.new or ""
    cloze = next((p.text for p in task.request.train if not p.is_question), None)
    if cloze is not None:
        return f"{cloze} {new}."
    asked, said = task.request.train[:1], {p.text: a for p, a in task.before.answers.items()}
    (lead,) = own_leads(asked, said, task.request.key.subject, old_names(task.request, task.before))
    return f"{asked[0].text} {completed(lead or '', asked[0], new)}"
