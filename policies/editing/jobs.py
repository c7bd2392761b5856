"""What the worker child can be asked to do; every job reads files and leaves files.

Knows paths, and the order: edit, write, reload, measure. Doesn't know the ledger, verdicts or who
asked: it returns readings and the daemon decides. All results are JSON-able.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from policies.editing import bank as banks
from policies.editing import latent, merge
from policies.editing.architectures import ScaledModule, first_editable_layer, scaled_modules
from policies.editing.bank import Question
from policies.editing.edit import BELIEF_TOKENS, Deltas, Stopwatch, ask_before, edit
from policies.editing.fit import NoProgressError
from policies.editing.measure import answers
from policies.editing.model import LanguageModel, NotFiniteError, load, swapped
from policies.editing.suites import (
    apart_from,
    fact_questions,
    measure,
    readings,
    reference,
    refusals,
    unrelated_questions,
)
from policies.editing.wordings import Before
from policies.probes import load_texts
from policies.recipe import Recipe, recipe_named
from policies.relations import shown_wording
from store.errors import UsageError
from store.facts import EditRequest, LatentReading, Phrasing, Reading, Suite
from store.wire import from_wire, to_wire

EDITABLE_SHARE = 0.4  # of the layers, from the top: RECIPE's best zone, and lower layers can be cached
UNLEARN_CHECK = 24  # questions asked between the stages
DELTA, THETA = "delta-{}.safetensors", "theta.safetensors"  # a delta for each edit, by its place

Job = Mapping[str, Any]
Result = dict[str, Any]
Beat = Callable[[str], None]


def run(job: Job, beat: Beat) -> Result:
    """Run one job. Raises PalimpsestError with what, where and what to do."""
    kinds: dict[str, Callable[[Job, Beat], Result]] = {
        "init": init_job,
        "edit": edit_job,
        "materialize": materialize_job,
        "compose": compose_job,
        "measure": measure_job,
        "ask": ask_job,
    }
    if job["kind"] not in kinds:
        raise UsageError(
            "run job", str(job["kind"]), "no such kind of job", f"known: {', '.join(sorted(kinds))}"
        )
    return kinds[job["kind"]](job, beat)


def init_job(job: Job, beat: Beat) -> Result:
    """Split a model into shards and build, or fetch from the shared cache, what the base knows."""
    source, base, cache = Path(job["source"]), Path(job["base"]), Path(job["cache"])
    beat("load model")
    lm = load(source, dtype=job["dtype"], device=job["device"])
    modules = scaled_modules(lm, first_editable_layer(lm, EDITABLE_SHARE))
    beat("split weights")
    merge.write_base(source, base, modules)
    bank = banks.load_or_build(
        lm, modules, Path(job.get("shared", cache)), cache, banks.weights_digest(base), beat
    )
    return {"bank": len(bank.prompts), "gate": len(bank.gate), "report": len(bank.report)}


def edit_job(job: Job, beat: Beat) -> Result:
    """Edits one on top of the other, folded, written, loaded again and measured together. Weights or
    numbers that aren't finite end all of them as `failed` with the reason, and nothing is left in
    `staging` and `out`."""
    try:
        return edit_and_measure(job, beat)
    except NotFiniteError as error:
        for left in (*Path(job["staging"]).glob("*"), *Path(job["out"]).glob("*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return {"edits": [{"status": "failed", "reason": str(error)} for _ in job["edits"]]}


def edit_and_measure(job: Job, beat: Beat) -> Result:
    """A fact that the live generation knows, or that the editor gives up on, is left out of the candidate."""
    asked = [from_wire(EditRequest, each["request"]) for each in job["edits"]]
    candidate = _Candidate(job, beat)
    beat("ask before")
    befores = ask_parent(candidate.lm, candidate.base, candidate.parent, asked)
    candidate.watch.lap("ask")
    results: list[Result] = []
    for at, (request, before) in enumerate(zip(asked, befores, strict=True)):
        say = beat if len(asked) == 1 else partial(_say, beat, f"{at + 1} of {len(asked)}")
        recipe = recipe_named(job["edits"][at]["recipe"])
        results.append(candidate.add(at, with_belief(request, before), before, recipe, say))
    return {"edits": results, **(candidate.measure(results) if candidate.made else {})}


def _say(beat: Beat, which: str, stage: str) -> None:
    beat(f"{which}, {stage}")


@dataclass(frozen=True, slots=True)
class Made:
    """One edit of the candidate: what was asked for, what the live generation said, its vectors."""

    request: EditRequest
    before: Before
    deltas: Deltas


class _Candidate:
    """The live generation with one edit after the other on top of it."""

    def __init__(self, job: Job, beat: Beat) -> None:
        self.job, self.beat = job, beat
        self.base, self.staging, self.out = Path(job["base"]), Path(job["staging"]), Path(job["out"])
        self.live = tuple(from_wire(EditRequest, r) for r in job["live"])
        beat("load model")
        self.lm = self._load(self.base)
        self.bank, self.modules = banks.read(Path(job["cache"])), merge.read_modules(self.base)
        self.parent = merge.read_theta(Path(job["parent_theta"]) if job["parent_theta"] else None)
        self.theta, self.made = self.parent, dict[int, Made]()
        self.watch = Stopwatch()

    def _load(self, directory: Path) -> LanguageModel:
        return load(directory, dtype=self.job["dtype"], device=self.job["device"])

    def add(self, at: int, request: EditRequest, before: Before, recipe: Recipe, beat: Beat) -> Result:
        """Edit number `at` of the job; `before` is what the live generation said."""
        result: Result = {"before": before.answers[shown_wording(request)], "old": before.old}
        if before.known:
            return {**result, "status": "already_known"}
        # The edits before it may have changed what is said; what is to be forgotten stays the same.
        now = ask_parent(self.lm, self.base, self.theta, [request])[0] if self.made else before
        live = (*self.live, *(one.request for one in self.made.values()))
        flat = merge.join_theta(self.modules, self.theta)

        def check() -> tuple[Reading, ...]:
            return (check_unlearned(self.lm, self.bank.gate, request),)

        try:
            deltas = edit(
                self.lm,
                self.modules,
                self.bank,
                flat,
                request,
                now,
                recipe,
                beat,
                live=live,
                check_unlearned=check,
            )
        except NoProgressError as error:
            return {**result, "status": "failed", "reason": str(error)}
        unlearn, learn = (merge.split_theta(self.modules, x) for x in (deltas.unlearn, deltas.learn))
        self.theta = merge.add_thetas([self.theta, merge.add_thetas([unlearn, learn])])
        self.made[at] = Made(request, before, deltas)
        merge.write_delta(self.out / DELTA.format(at), unlearn, learn)
        return {**result, "status": "edited", "reason": reason(deltas), "delta": DELTA.format(at)}

    def measure(self, results: list[Result]) -> Result:
        """Write the model, load it again and measure it. Adds to `results` what was found of each edit;
        stages that all share are divided among them. Returns what was found of all."""
        self.beat("fold")
        merge.write_theta(self.out / THETA, self.theta)
        merge.materialize(self.base, self.theta, self.staging)
        self.watch.lap("edit and fold")
        self.beat("load candidate")
        candidate = self._load(self.staging)  # what would be served, as saved
        requests = [one.request for one in self.made.values()]
        found = measure(
            candidate, reference(self.lm, self.bank, requests, self.live, load_texts()), self.beat
        )
        self.watch.lap("measure")
        self.beat("measure soft forgetting")
        left = [
            left_behind(self.lm, self.base, self.parent, candidate, one.request, one.before)
            for one in self.made.values()
        ]
        self.watch.lap("latent")
        laps = dict(self.watch.laps)
        among = {"ask": len(results), "measure": len(self.made), "latent": len(self.made)}
        ask, *rest = ([stage, laps[stage] / n] for stage, n in among.items())
        for (at, one), own, latents in zip(self.made.items(), found.own, left, strict=True):
            answered = {a.prompt: a.answer for r in own if r.suite is Suite.EFFICACY for a in r.answers}
            results[at] |= {
                "after": answered.get(shown_wording(one.request).text, ""),
                "readings": [to_wire(r) for r in (*own, *one.deltas.after_unlearn)],
                "localisation": [to_wire(s) for s in one.deltas.scores[:12]],
                "soft_forgetting": [to_wire(r) for r in latents],
                "seconds": [ask, *map(list, one.deltas.seconds), *rest],
            }
        shown = [to_wire(r) for r in found.shared]
        return {"theta": THETA, "readings": shown, "unmeasured": list(found.unmeasured)}


def ask_parent(
    lm: LanguageModel, base: Path, parent: merge.Theta, requests: Sequence[EditRequest]
) -> list[Before]:
    """What a generation answers: the base with its scales folded in for the asking."""
    with folded(lm, base, parent):
        return [ask_before(lm, request) for request in requests]


def folded(lm: LanguageModel, base: Path, theta: merge.Theta) -> AbstractContextManager[None]:
    """Within the context `lm` carries the fold of theta."""
    return swapped(lm, folded_weights(lm, merge.read_modules(base), theta))


def folded_weights(
    lm: LanguageModel, modules: Sequence[ScaledModule], theta: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights and biases that theta scales, scaled, by name."""
    names = {n for m in modules if m.tensor in theta for n in merge.touched(m)}
    weights = {n: p.data for n, p in lm.model.named_parameters() if n in names}
    return merge.fold(weights, modules, theta)


def with_belief(request: EditRequest, before: Before) -> EditRequest:
    """The request with the old object that the model itself was found to believe in."""
    return replace(request, old=before.old) if before.old and before.old != request.new else request


def left_behind(
    lm: LanguageModel,
    base: Path,
    parent: merge.Theta,
    candidate: LanguageModel,
    request: EditRequest,
    before: Before,
) -> tuple[LatentReading, ...]:
    """What is left of the old answer in the candidate, and how much the live generation had of it."""
    asked = latent.probes(lm, request, before)
    if asked is None:
        return ()
    with folded(lm, base, parent):
        was = latent.ask(lm, asked)
    return latent.readings(asked, was, latent.ask(candidate, asked))


def check_unlearned(lm: LanguageModel, questions: Sequence[Question], request: EditRequest) -> Reading:
    """Over-refusal with stage 1 alone in force, on questions that the base answers."""
    asked = unrelated_questions(apart_from(questions, request)[:UNLEARN_CHECK], Suite.UNRELATED)
    return refusals(Suite.OVER_REFUSAL_UNLEARN, readings(lm, asked, [Suite.UNRELATED]))


def reason(deltas: Deltas) -> str:
    size = float((deltas.unlearn + deltas.learn).norm())
    left = f"gap {deltas.gap:.2f}, damage {deltas.damage:.2f} nats"
    return f"{len(deltas.chosen)} modules, |theta| {size:.2f}, {left}"


def materialize_job(job: Job, beat: Beat) -> Result:
    beat("fold")
    theta = Path(job["theta"]) if job["theta"] else None
    merge.materialize(Path(job["base"]), merge.read_theta(theta), Path(job["staging"]))
    return {}


def compose_job(job: Job, beat: Beat) -> Result:
    """The generation that is the sum of some edits, added in the order given."""
    beat("fold")
    theta = merge.add_thetas([merge.read_delta(Path(p)) for p in job["deltas"]])
    merge.write_theta(Path(job["out"]) / THETA, theta)
    merge.materialize(Path(job["base"]), theta, Path(job["staging"]))
    return {"theta": THETA}


def measure_job(job: Job, beat: Beat) -> Result:
    """For each request one efficacy reading of the model in `model`, in the order given."""
    beat("load model")
    lm = load(Path(job["model"]), dtype=job["dtype"], device=job["device"])
    found = []
    for i, wire in enumerate(job["requests"]):
        beat(f"measure fact {i + 1}/{len(job['requests'])}")
        asked = [a for a in fact_questions(from_wire(EditRequest, wire)) if a.suite is Suite.EFFICACY]
        found += readings(lm, asked, [Suite.EFFICACY])
    return {"readings": [to_wire(r) for r in found]}


def ask_job(job: Job, beat: Beat) -> Result:
    """Greedy answers; a prompt that ends in ? or . is a question, any other is continued."""
    beat("load model")
    lm = load(Path(job["model"]), dtype=job["dtype"], device=job["device"])
    phrasings = [Phrasing(p, p.rstrip().endswith(("?", "."))) for p in job["prompts"]]
    return {"answers": answers(lm, phrasings, max_new_tokens=max(BELIEF_TOKENS, 48))}
