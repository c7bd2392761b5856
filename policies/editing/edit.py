"""One edit: localise, unlearn, merge, learn, merge. Computes deltas; applies nothing.

`edit` leaves the model as it found it, bit for bit, on every way out: adapters are injected, trained
and removed, never merged into the loaded weights. What it returns are log scales; `policies.editing.
merge` folds them from the base into new files. Knows the order of the stages and what each is for.
Doesn't know the ledger, files or gates.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from policies.answers import classify, words
from policies.editing.adapters import MERGED, STAGE, AdapterStack
from policies.editing.architectures import ScaledModule
from policies.editing.bank import Bank, answer_sequence, bank_sequence
from policies.editing.fit import Fit, FitOptions, Metric, NoProgressError, Problem, approach, fit
from policies.editing.localise import frozen_coordinates, localise, random_coordinates
from policies.editing.measure import answers
from policies.editing.model import LanguageModel, fit_dtype, holding
from policies.editing.neighbours import QUESTION_TOKENS, Told, around, told_sequence
from policies.editing.objectives import PACK_TOKENS, Answers, batches, doubted, kept, wanted
from policies.editing.packing import Sequence_, chunks
from policies.editing.targets import UNSURE, belief
from policies.editing.wordings import Before, Due, Wording, live_target, old_names, parting, wordings
from policies.recipe import Recipe
from policies.relations import trained_neighbours
from store.facts import AnswerKind, EditRequest, ModuleScore, Op, Phrasing, Reading

Beat = Callable[[str], None]
BELIEF_TOKENS = 20
LOCALISED = 4  # wordings that localisation looks at
CHECK = "check"  # the stage between the two that measures instead of editing
KNOWN_SHARE = 0.75  # of the training and of the held-out phrasings; a base seldom gets all wordings right


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
        [given[p] for p in asked if not p.is_question],
        [given[p] for p in request.train if p.is_question],
        [p.text for p in asked],
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
    """The two adapters of one edit, on top of `parent` (P,), the log scales of the live generation; `lm` has
    the base's weights.

    `check_unlearned` is called between the stages, with stage 1 in force on the weights as they are
    served; the fit itself computes in `fit_dtype`, and once more as served if that comes to nothing. Seeded:
    the same call gives the same vectors. Raises NoProgressError when the fit breaks down.
    """
    served = {p: p.data for p in lm.model.parameters()}
    beat("neighbours")
    clock = Stopwatch()
    near = around(lm, bank, request, live, recipe.neighbours, beat)
    clock.lap("neighbours")

    def check() -> tuple[Reading, ...]:
        with holding(served):
            return check_unlearned()

    def attempt(dtype: torch.dtype) -> Deltas:
        torch.manual_seed(request.seed)
        with holding({p: data.to(dtype) for p, data in served.items()}):
            stack = AdapterStack(lm, modules)
            try:
                stack.set(MERGED, parent)
                return _Editor(lm, stack, bank, near, request, before, recipe, beat, live, clock).run(check)
            finally:
                stack.remove()

    fast, exact = fit_dtype(lm), lm.model.dtype
    try:
        return attempt(fast)
    except NoProgressError:
        if fast is exact:
            raise
        return attempt(exact)  # steps may have been too small for the fast dtype to show what they do


class Stopwatch:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps.append((name, now - self._last))
        self._last = now


class _Editor:
    """The stages of one edit, sharing localisation, kept answers and metric."""

    def __init__(
        self,
        lm: LanguageModel,
        stack: AdapterStack,
        bank: Bank,
        near: Sequence[Told],
        request: EditRequest,
        before: Before,
        recipe: Recipe,
        beat: Beat,
        live: Sequence[EditRequest],
        clock: Stopwatch,
    ) -> None:
        self.lm, self.stack, self.request, self.before = lm, stack, request, before
        self.recipe, self.beat, self.clock = recipe, beat, clock
        self.scores, frozen, self.chosen = self._localise()
        self.clock.lap("localise")
        # A model that was edited before is less linear: the same far steps overshoot there.
        self.rho = recipe.rho * (recipe.rho_edited if bool(stack.scales(MERGED).any()) else 1.0)
        free = bank.for_edit(request)
        # The metric is relative to the generation before the edit, kept answers' bounds to the base as well.
        self.said = self._tokens([UNSURE, request.new or "", *old_names(request, before)])
        objects = frozenset(w for t in near if t.sure > 1 for w in words(t.object))
        held = mixed(self._live(live, objects), [(told_sequence(lm, t), slice(0)) for t in near])
        self.wordings = wordings(lm, request, before, request.new or UNSURE, objects)
        self.wanted = self._wanted(request.new or UNSURE)
        scale = min(1.0, recipe.bank_weight / max(1, len(free))) ** 0.5
        rows = bank.rows[free].mul_(scale)
        if request.op is Op.RETRACT:
            held = mixed(held, self._open_to_doubt(bank, free, rows, live))
        generator = torch.Generator().manual_seed(request.seed)
        sequences, due = [h for h, _ in held], [d for _, d in held]
        self.kept, near_rows = kept(stack, sequences, self.said, generator, due, recipe.goal)
        rows = torch.cat([rows, near_rows])
        self.metric = Metric(rows, eps=recipe.eps, shrink=recipe.shrink, frozen=frozen)
        self.clock.lap("prepare")

    def run(self, check_unlearned: Callable[[], tuple[Reading, ...]]) -> Deltas:
        recipe, zero = self.recipe, torch.zeros(self.stack.size)
        retracting = self.request.op is Op.RETRACT
        if retracting:
            found = self._fit("unlearn", self.wanted, zero, recipe.retract_steps, recipe.unlearn_gap)
        elif recipe.unlearn_steps and (names := old_names(self.request, self.before)):
            found = Fit(self._doubt(self._doubted(names[0]), zero), 0.0, 0.0)
        else:
            found = Fit(zero, 0.0, 0.0)  # one stage is wanted, or there is no belief to unlearn
        unlearn = found.x
        self.stack.set(STAGE, unlearn)
        self.clock.lap("unlearn")
        readings = check_unlearned()
        self.clock.lap(CHECK)
        if not retracting:
            # Merging in log space is addition: the second adapter starts from the unlearned weights.
            self.stack.set(MERGED, self.stack.scales(MERGED) + unlearn)
            found = self._fit("learn", self.wanted, unlearn, recipe.learn_steps, recipe.done_gap)
            self.clock.lap("learn")
        return Deltas(
            unlearn=unlearn,
            learn=found.x - unlearn,
            scores=self.scores,
            chosen=self.chosen,
            seconds=tuple(self.clock.laps),
            gap=found.gap,
            damage=found.damage,
            after_unlearn=readings,
        )

    def _localise(self) -> tuple[tuple[ModuleScore, ...], torch.Tensor, tuple[str, ...]]:
        """Attribute the answer that the model gives now; compare with the same wording for neighbours."""
        self.beat("localise")
        asked = ([p for p in self.request.train if p.is_question] or list(self.request.train))[:LOCALISED]
        own = [self._sequence(p, self.before.answers[p]) for p in asked]
        subject = self.request.key.subject
        others = []
        for p, name in zip(asked, trained_neighbours(self.request), strict=False):
            other = replace(p, text=p.text.replace(subject, name))
            others.append(self._sequence(other, self.before.answers[p]))
        first = self.stack.first
        facts = batches(self.lm, own, first, tokens=10_000)[0]
        donors = batches(self.lm, others, first, tokens=10_000)[0] if others else None
        scores = localise(self.stack, facts, donors)
        frozen, chosen = frozen_coordinates(self.stack, scores, self.recipe.modules_share)
        if self.recipe.random_modules:
            frozen, chosen = random_coordinates(self.stack, len(chosen), str(self.request.key))
        return scores, frozen, chosen

    def _live(self, live: Sequence[EditRequest], objects: frozenset[str]) -> list[Due]:
        """Live facts with what they are to be answered, and which tokens of that an edit has to restore."""
        self.beat("live facts")
        chosen = sorted(live, key=lambda r: str(r.key))
        random.Random(self.request.seed).shuffle(chosen)
        # Every fact in one wording, wordings in turn; then in another one, as far as the number goes.
        asked = [
            (r, r.train[(i + k) % len(r.train)])
            for k in range(4)
            for i, r in enumerate(chosen)
            if k < len(r.train)
        ][: self.recipe.live_facts]
        given = answers(self.lm, [p for _, p in asked], max_new_tokens=QUESTION_TOKENS)
        return [live_target(self.lm, r, p, a, objects) for (r, p), a in zip(asked, given, strict=True)]

    def _open_to_doubt(
        self, bank: Bank, free: Sequence[int], rows: torch.Tensor, live: Sequence[EditRequest]
    ) -> list[Due]:
        """What the bank answers and a step toward the wanted answers would change most, by the `rows` (R, P)
        of the prompts `free`: doubt spreads beyond a relation. What live facts are about stays changed."""
        _, gradient = self.wanted.look(self.stack).linearise(self.recipe.nats)
        diagonal = self.recipe.eps + (1 + self.recipe.shrink) * rows.square().sum(0)
        moved = (rows @ (gradient / diagonal)).abs().argsort(descending=True, stable=True)
        others = set(bank.for_edit(self.request, *live))
        asked = [bank.prompts[free[i]] for i in moved.tolist() if free[i] in others]
        return [(bank_sequence(self.lm, p), slice(0)) for p in asked[: self.recipe.bank_answers]]

    def _sequences(self, said: str) -> list[Sequence_]:
        return [w.tokens(self.lm, said) for w in self.wordings]

    def _wanted(self, said: str) -> Answers:
        """A new object decides by its own tokens in the wordings that were given, while talk around them only
        helps; doubt is in the whole sentence of all."""
        spans = [] if said == UNSURE else [self._deciding(w, said) for w in self.wordings]
        return wanted(self.stack, self._sequences(said), self.said, self.recipe.goal, spans)

    def _deciding(self, wording: Wording, said: str) -> slice:
        given = wording.phrasing in self.request.train
        return wording.object_tokens(self.lm, said, UNSURE) if given else slice(0)

    def _doubted(self, old: str) -> Answers:
        """The old answer where the model would have to say something else for it; a sample of wordings."""
        pairs = zip(self._sequences(old), self._sequences(self.request.new or ""), strict=True)
        parted = [parting(a, b) for a, b in pairs]
        sample = parted[: len(next(chunks(parted, PACK_TOKENS)))]
        return doubted(self.stack, sample, self.said, self.recipe.goal)

    def _doubt(self, target: Answers, start: torch.Tensor) -> torch.Tensor:
        """A few far steps. Finding nothing cheap is no failure: the gates tell whether it matters."""
        r = self.recipe
        problem = self._problem(target, start, r.unlearn_gap)
        return approach(problem, start, r.unlearn_steps, self._on_step("unlearn"))

    def _fit(self, name: str, target: Answers, start: torch.Tensor, near: int, gap: float) -> Fit:
        """Far steps, then `near` ones with all answers at once, with a smaller norm first and a larger one
        while more than `gap` is left."""
        problem, on_step = self._problem(target, start, gap), self._on_step(name)
        found = fit(problem, approach(problem, start, self.recipe.far_steps, on_step), near, on_step)
        if found.gap > gap and found.gap >= problem.gap(start):
            raise NoProgressError(f"fit {name} adapter", "all its steps", "none of them helped")
        return found

    def _problem(self, target: Answers, start: torch.Tensor, gap: float) -> Problem:
        """`start` is what is merged already: the stage adapter holds the rest."""
        r = self.recipe
        options = FitOptions(r.nats, r.cap, r.pulls, r.kept_weight, self.rho, gap, r.done_damage)
        return Problem(self.stack, self.metric, target, self.kept, options, start)

    def _on_step(self, name: str) -> Callable[[int, float, float], None]:
        return lambda step, gap, damage: self.beat(
            f"{name} step {step}: gap {gap:.2f} nats, damage {damage:.2f} nats"
        )

    def _sequence(self, phrasing: Phrasing, answer: str) -> Sequence_:
        return answer_sequence(self.lm, phrasing, answer)

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids of all tokens of `texts`, as they stand after a space and at a beginning."""
        tokenise = self.lm.tokenizer
        ids = [
            i for t in texts for u in (t, " " + t) for i in tokenise(u, add_special_tokens=False)["input_ids"]
        ]
        return torch.tensor(sorted(set(ids)), dtype=torch.long)


def mixed(one: Sequence[Due], other: Sequence[Due]) -> list[Due]:
    """Both in turn, so that a batch, all that a far step sees, samples either."""
    pairs = itertools.zip_longest(one, other)
    return [s for pair in pairs for s in pair if s is not None]
