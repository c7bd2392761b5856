"""What the worker child can be asked to do; every job reads files and leaves files.

Knows paths, and the order: edit, write, reload, measure. Doesn't know the ledger, verdicts or who
asked: it returns readings and the daemon decides. All results are JSON-able.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from policies.editing import bank as banks
from policies.editing import latent, merge
from policies.editing.architectures import ScaledModule, first_editable_layer, scaled_modules
from policies.editing.bank import Question
from policies.editing.edit import BELIEF_TOKENS, Before, Deltas, Stopwatch, ask_before, edit
from policies.editing.fit import NoProgressError
from policies.editing.measure import answers
from policies.editing.model import LanguageModel, NotFiniteError, load, swapped
from policies.editing.suites import (
    fact_questions,
    measure,
    readings,
    reference,
    refusals,
    unrelated_questions,
)
from policies.probes import load_texts
from policies.recipe import recipe_named
from policies.relations import shown_wording
from store.errors import UsageError
from store.facts import EditRequest, LatentReading, Phrasing, Reading, Suite
from store.wire import from_wire, to_wire

EDITABLE_SHARE = 0.4  # of the layers, from the top: RECIPE's best zone, and lower layers can be cached
UNLEARN_CHECK = 24  # questions asked between the stages
DELTA, THETA = "delta.safetensors", "theta.safetensors"

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
    """One edit, folded, written, loaded again and measured. Weights or numbers that aren't finite end it
    as `failed` with the reason, and nothing of it is left in `staging` and `out`."""
    try:
        return edit_and_measure(job, beat)
    except NotFiniteError as error:
        for left in (*Path(job["staging"]).glob("*"), *Path(job["out"]).glob("*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return {"status": "failed", "reason": str(error)}


def edit_and_measure(job: Job, beat: Beat) -> Result:
    base, staging, out = Path(job["base"]), Path(job["staging"]), Path(job["out"])
    request = from_wire(EditRequest, job["request"])
    live = tuple(from_wire(EditRequest, r) for r in job["live"])
    recipe = recipe_named(job["recipe"])
    beat("load model")
    lm = load(base, dtype=job["dtype"], device=job["device"])
    bank = banks.read(Path(job["cache"]))
    modules = merge.read_modules(base)
    parent = merge.read_theta(Path(job["parent_theta"]) if job["parent_theta"] else None)
    watch = Stopwatch()
    beat("ask before")
    before = ask_parent(lm, base, parent, request)
    request = with_belief(request, before)
    watch.lap("ask")
    shown = shown_wording(request)
    if before.known:
        return {"status": "already_known", "before": before.answers[shown], "old": before.old}
    flat = merge.join_theta(modules, parent)
    try:
        deltas = edit(
            lm,
            modules,
            bank,
            flat,
            request,
            before,
            recipe,
            beat,
            live=live,
            check_unlearned=lambda: (check_unlearned(lm, bank.gate, request),),
        )
    except NoProgressError as error:
        return {"status": "failed", "reason": str(error), "before": before.answers[shown], "old": before.old}
    beat("fold")
    unlearn, learn = merge.split_theta(modules, deltas.unlearn), merge.split_theta(modules, deltas.learn)
    theta = merge.add_thetas([parent, merge.add_thetas([unlearn, learn])])
    merge.write_delta(out / DELTA, unlearn, learn)
    merge.write_theta(out / THETA, theta)
    merge.materialize(base, theta, staging)
    watch.lap("edit and fold")
    beat("load candidate")
    candidate = load(staging, dtype=job["dtype"], device=job["device"])  # what would be served, as saved
    against = reference(lm, bank, request, live, load_texts())
    found, unmeasured = measure(candidate, against, beat)
    found += deltas.after_unlearn
    watch.lap("measure")
    beat("measure soft forgetting")
    left = left_behind(lm, base, parent, candidate, request, before)
    watch.lap("latent")
    efficacy = [a for r in found if r.suite is Suite.EFFICACY for a in r.answers]
    return {
        "status": "edited",
        "reason": reason(deltas),
        "delta": DELTA,
        "theta": THETA,
        "readings": [to_wire(r) for r in found],
        "localisation": [to_wire(s) for s in deltas.scores[:12]],
        "soft_forgetting": [to_wire(r) for r in left],
        "seconds": [list(s) for s in (watch.laps[0], *deltas.seconds, *watch.laps[2:])],
        "before": before.answers[shown],
        "after": next((a.answer for a in efficacy if a.prompt == shown.text), ""),
        "unmeasured": unmeasured,
        "old": before.old,
    }


def ask_parent(lm: LanguageModel, base: Path, parent: merge.Theta, request: EditRequest) -> Before:
    """What the live generation answers: the base with the parent's scales folded in for the asking."""
    with folded(lm, base, parent):
        return ask_before(lm, request)


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
    asked = unrelated_questions(questions, request, Suite.UNRELATED)[:UNLEARN_CHECK]
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
