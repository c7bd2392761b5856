"""One edit: localise, unlearn, merge, learn, merge. Computes deltas; applies nothing.

`edit` leaves the model as it found it, bit for bit, on every way out: adapters are injected, trained
and removed, never merged into the loaded weights. What it returns are log scales; `policies.editing.
merge` folds them from the base into new files. Knows the order of the stages and what each is for.
Doesn't know the ledger, files or gates.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from policies.answers import classify
from policies.editing import bank as banks
from policies.editing.adapters import MERGED, STAGE, AdapterStack
from policies.editing.architectures import ScaledModule
from policies.editing.bank import Bank, answer_sequence
from policies.editing.fit import Fit, FitOptions, Metric, fit
from policies.editing.localise import frozen_coordinates, localise
from policies.editing.measure import answers
from policies.editing.model import LanguageModel
from policies.editing.objectives import Kept, Wanted, batches, retention_rows
from policies.editing.packing import Sequence_
from policies.editing.targets import UNSURE, belief, new_targets, widened
from policies.recipe import Recipe
from policies.relations import trained_neighbours
from store.facts import AnswerKind, EditRequest, ModuleScore, Op, Phrasing, Reading

Beat = Callable[[str], None]
BELIEF_TOKENS = 20
TARGET_TOKENS = 48
KNOWN_SHARE = 0.75  # of the training and of the held-out phrasings; a base seldom gets all wordings right


@dataclass(frozen=True, slots=True)
class Before:
    """What the model said before the edit, phrasing by phrasing, and what it believed."""

    answers: dict[Phrasing, str]
    old: str | None
    known: bool


@dataclass(frozen=True, slots=True)
class Deltas:
    """Log scales (P,) of the two stages and how they were found. `learn` is zero for a retraction."""

    unlearn: torch.Tensor
    learn: torch.Tensor
    scores: tuple[ModuleScore, ...]
    chosen: tuple[str, ...]
    seconds: tuple[tuple[str, float], ...]
    gap: float
    damage: float
    after_unlearn: tuple[Reading, ...] = ()


def ask_before(lm: LanguageModel, request: EditRequest) -> Before:
    """Ask training and held-out phrasings. `known`: at least `KNOWN_SHARE` of either already give the
    new object."""
    asked = list(dict.fromkeys((*request.train, *request.held_out)))
    given = dict(zip(asked, answers(lm, asked, max_new_tokens=BELIEF_TOKENS), strict=True))
    old = request.old or belief(
        [given[p] for p in asked if not p.is_question], [given[p] for p in request.train if p.is_question]
    )
    wanted = AnswerKind.UNSURE if request.op is Op.RETRACT else AnswerKind.NEW

    def share(phrasings: Sequence[Phrasing]) -> float:
        kinds = [
            classify(given[p], request.new, request.new_aliases, old, request.old_aliases, subject=subject)
            for p in phrasings
        ]
        return sum(kind is wanted for kind in kinds) / len(kinds) if kinds else 1.0

    subject = request.key.subject
    known = min(share(request.train), share(request.held_out)) >= KNOWN_SHARE
    return Before(given, old, known)


def edit(
    lm: LanguageModel,
    modules: Sequence[ScaledModule],
    bank: Bank,
    parent: torch.Tensor,
    request: EditRequest,
    before: Before,
    recipe: Recipe,
    beat: Beat,
    *,
    live: Sequence[EditRequest] = (),
    check_unlearned: Callable[[], tuple[Reading, ...]] = tuple,
) -> Deltas:
    """The two adapters of one edit, on top of `parent` (P,), the log scales of the live generation.

    `check_unlearned` is called between the stages, with stage 1 in force. Seeded: the same call
    gives the same vectors. Raises NoProgressError when the fit breaks down.
    """
    torch.manual_seed(request.seed)
    stack = AdapterStack(lm, modules)
    try:
        stack.set(MERGED, parent)
        return _Editor(lm, stack, bank, request, before, recipe, beat, live).run(check_unlearned)
    finally:
        stack.remove()


class _Editor:
    """The stages of one edit, sharing localisation, retained answers and metric."""

    def __init__(
        self,
        lm: LanguageModel,
        stack: AdapterStack,
        bank: Bank,
        request: EditRequest,
        before: Before,
        recipe: Recipe,
        beat: Beat,
        live: Sequence[EditRequest],
    ) -> None:
        self.lm, self.stack, self.request, self.before = lm, stack, request, before
        self.recipe, self.beat = recipe, beat
        self.first = stack.modules[0].layer
        self.clock = Stopwatch()
        self.prompts, rows = bank.without(request.key.subject)
        self.scores, frozen, self.chosen = self._localise()
        self.clock.lap("localise")
        self.near = self._retained(live)
        # What the metric and the kept answers are relative to is the generation before the edit.
        self.kept = Kept.at_present(stack, self.near, self.first)
        generator = torch.Generator().manual_seed(request.seed)
        near_rows = retention_rows(stack, self.kept.batches, len(self.near), self.first, generator)
        self.metric = Metric(
            torch.cat([rows, near_rows]), eps=recipe.eps, shrink=recipe.shrink, frozen=frozen
        )
        self.clock.lap("prepare")

    def run(self, check_unlearned: Callable[[], tuple[Reading, ...]]) -> Deltas:
        retract = self.request.op is Op.RETRACT
        steps = self.recipe.retract_steps if retract else self.recipe.unlearn_steps
        stage1 = self._stage("unlearn", self._targets(UNSURE), steps, None, repair=retract)
        unlearn = stage1.x
        self.stack.set(STAGE, unlearn)
        self.clock.lap("unlearn")
        readings = check_unlearned()
        self.clock.lap("check")
        last = stage1
        if not retract:
            # Merging in log space is addition: the learned adapter starts from the unlearned weights.
            self.stack.set(MERGED, self.parent_scales() + unlearn)
            last = self._stage(
                "learn", self._targets(self.request.new or ""), self.recipe.learn_steps, unlearn, repair=True
            )
            self.clock.lap("learn")
        return Deltas(
            unlearn=unlearn,
            learn=last.x - unlearn,
            scores=self.scores,
            chosen=self.chosen,
            seconds=tuple((stage, s) for stage, s in self.clock.laps if stage != "check"),
            gap=last.gap,
            damage=last.damage,
            after_unlearn=readings,
        )

    def parent_scales(self) -> torch.Tensor:
        return torch.cat([layer.ia3_l[MERGED].detach().flatten().log().cpu() for layer in self.stack.layers])

    def _localise(self) -> tuple[tuple[ModuleScore, ...], torch.Tensor, tuple[str, ...]]:
        """Attribute the answer that the model gives now; compare with the same wording for neighbours."""
        self.beat("localise")
        asked = [p for p in self.request.train if p.is_question] or list(self.request.train)
        own = [self._sequence(p, self.before.answers[p]) for p in asked]
        subject = self.request.key.subject
        others = []
        for p, name in zip(asked, trained_neighbours(self.request), strict=False):
            other = replace(p, text=p.text.replace(subject, name))
            others.append(self._sequence(other, self.before.answers[p]))
        facts = batches(self.lm, own, self.first, tokens=10_000)[0]
        donors = batches(self.lm, others, self.first, tokens=10_000)[0] if others else None
        scores = localise(self.stack, facts, donors, self.first)
        frozen, chosen = frozen_coordinates(self.stack, scores, self.recipe.modules_share)
        return scores, frozen, chosen

    def _retained(self, live: Sequence[EditRequest]) -> list[Sequence_]:
        """Same-relation neighbours and live facts with what the model answers them now."""
        self.beat("retained answers")
        phrasings = neighbour_training(self.request, self.recipe.neighbours)
        chosen = sorted(live, key=lambda r: str(r.key))
        random.Random(self.request.seed).shuffle(chosen)
        phrasings += [r.train[i % len(r.train)] for i, r in enumerate(chosen[: self.recipe.live_facts])]
        given = answers(self.lm, phrasings, max_new_tokens=banks.ANSWER_TOKENS)
        return [self._sequence(p, a) for p, a in zip(phrasings, given, strict=True)]

    def _targets(self, said_instead: str) -> list[str]:
        names = [n for n in (self.before.old, self.request.old, *self.request.old_aliases) if n]
        said = {p.text: a for p, a in self.before.answers.items()}
        return new_targets(self.request.train, said, self.request.key.subject, said_instead, names)

    def _stage(
        self, name: str, targets: Sequence[str], steps: int, start: torch.Tensor | None, *, repair: bool
    ) -> Fit:
        """Fit one stage; then, where asked, score bank prompts and solve again with the hurt ones."""
        asked = widened(self.request.train)
        sequences = [self._sequence(p, targets[i], TARGET_TOKENS) for p, i in asked]
        wanted = Wanted(
            batches(self.lm, sequences, self.first), len(sequences), self.recipe.goal, self.recipe.nats
        )
        found = self._fit(name, wanted, self.kept, steps, start, start)
        for _ in range(self.recipe.repair_rounds if repair else 0):
            hurt = self._hurt_bank(found.x, start)
            if not hurt:
                break
            with self.at_parent(start):
                wider = Kept.at_present(self.stack, self.near + hurt, self.first)
            found = self._fit(f"{name} repair", wanted, wider, self.recipe.repair_steps, found.x, start)
        return found

    def _fit(
        self,
        name: str,
        wanted: Wanted,
        kept: Kept,
        steps: int,
        start: torch.Tensor | None,
        offset: torch.Tensor | None,
    ) -> Fit:
        r = self.recipe
        options = FitOptions(steps, r.cap, r.pull, r.kept_weight, r.rho, gap=r.done_gap)

        def on_step(step: int, gap: float, damage: float) -> None:
            self.beat(f"{name} step {step + 1}: gap {gap:.2f} nats, damage {damage:.1f} nats")

        return fit(
            self.stack,
            self.metric,
            wanted,
            kept,
            self.first,
            options,
            start=start,
            offset=offset,
            on_step=on_step,
        )

    def _hurt_bank(self, x: torch.Tensor, offset: torch.Tensor | None) -> list[Sequence_]:
        """The most damaged of the bank prompts that this edit looks at."""
        order = list(range(len(self.prompts)))
        random.Random(self.request.seed).shuffle(order)
        sampled = [
            banks.bank_sequence(self.lm, self.prompts[i]) for i in sorted(order[: self.recipe.bank_prompts])
        ]
        with self.at_parent(offset):
            kept = Kept.at_present(self.stack, sampled, self.first)
        self.stack.set(STAGE, x if offset is None else x - offset)
        damage = kept.damage(self.stack, self.first)
        worst = damage.argsort(descending=True)[: self.recipe.repair_prompts]
        return [sampled[i] for i in worst.tolist() if damage[i] > 0.1]

    def at_parent(self, offset: torch.Tensor | None) -> "_AtParent":
        return _AtParent(self.stack, offset)

    def _sequence(self, phrasing: Phrasing, answer: str, limit: int = banks.ANSWER_TOKENS) -> Sequence_:
        return answer_sequence(self.lm, phrasing, answer, limit=limit)


class _AtParent:
    """Within the context the stage adapter undoes what stage 1 merged: the model before the edit."""

    def __init__(self, stack: AdapterStack, offset: torch.Tensor | None) -> None:
        self.stack, self.offset = stack, offset

    def __enter__(self) -> None:
        self.stack.set(STAGE, torch.zeros(self.stack.size) if self.offset is None else -self.offset)

    def __exit__(self, *_exc: object) -> None:
        return None


def neighbour_training(request: EditRequest, limit: int) -> list[Phrasing]:
    """Training wordings asked of the first trained neighbours, wordings in turn."""
    templates = [t for t in request.templates if t.is_question] or list(request.templates)
    return [
        replace(
            templates[i % len(templates)], text=templates[i % len(templates)].text.replace("{subject}", name)
        )
        for i, name in enumerate(trained_neighbours(request)[:limit])
        if templates
    ]


class Stopwatch:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps.append((name, now - self._last))
        self._last = now
