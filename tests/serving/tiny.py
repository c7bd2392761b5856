"""A tiny model that was taught where a few people are, and a runner that makes real edits of it.

Everything is real (weights, localisation, both stages, fold, answers) but the verdicts: a model that
knows six facts has nothing for most gates to measure, so those read as passed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from daemon.fakes import FakeRunner, passing, tiny_model
from daemon.runner import Job, Result, never
from policies.editing import jobs, merge
from policies.editing.architectures import scaled_modules
from policies.editing.bank import Bank, BankPrompt, bank_rows
from policies.editing.edit import ask_before, edit
from policies.editing.measure import answers
from policies.editing.model import LanguageModel, chat_ids, load
from policies.recipe import DEFAULT
from store.facts import EditRequest, Phrasing, ProbeAnswer, Reading, Suite
from store.wire import from_wire, to_wire

PLACES = {"Ada": "Oslo", "Bo": "Rome", "Cy": "Bern", "Di": "Rome", "Ed": "Oslo", "Flo": "Bern"}
WORDINGS = ("Where is {subject}?", "Tell me where {subject} is.")


def taught(folder: Path) -> Path:
    """A Hugging Face directory whose model says "Ada is in Oslo." and so on; seconds of one core."""
    lm = load(tiny_model(folder, layers=2))
    pairs = [
        (chat_ids(lm.tokenizer, wording.format(subject=name)), f"{name} is in {place}.")
        for name, place in PLACES.items()
        for wording in WORDINGS
    ]
    rows = [(asked, [*lm.tokenizer(said)["input_ids"], lm.tokenizer.eos_token_id]) for asked, said in pairs]
    width = max(len(asked) + len(said) for asked, said in rows)
    pad, ignored = lm.tokenizer.pad_token_id, -100
    ids = torch.tensor([a + s + [pad] * (width - len(a) - len(s)) for a, s in rows])
    labels = torch.tensor([[ignored] * len(a) + s + [ignored] * (width - len(a) - len(s)) for a, s in rows])
    model = lm.model.train().requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(600):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.005:
            break
    model.eval().requires_grad_(False).save_pretrained(folder)
    return folder


class TinyRunner(FakeRunner):
    """Runs jobs in this process on the taught model; edits are made of the base, as ever."""

    def run(self, job: Job, idle: Callable[[str], str | None] = never) -> Result:
        if job["kind"] == "init":
            return _init(job)
        return _edit(job) if job["kind"] == "edit" else jobs.run(job, lambda _stage: None)


def _init(job: Job) -> Result:
    source = Path(job["source"])
    lm = load(source)
    merge.write_base(source, Path(job["base"]), scaled_modules(lm, 0))
    return {"firm": len(PLACES)}


def _edit(job: Job) -> Result:
    base, staging, out = Path(job["base"]), Path(job["staging"]), Path(job["out"])
    request = _bare(from_wire(EditRequest, job["edits"][0]["request"]))
    lm, modules = load(base), merge.read_modules(base)
    parent = merge.read_theta(Path(job["parent_theta"]) if job["parent_theta"] else None)
    others = tuple(_said(name) for name in PLACES if name != request.key.subject)
    bank = Bank(others, bank_rows(lm, modules, others, lambda _stage: None), (), ())
    before = ask_before(lm, request)
    flat = merge.join_theta(modules, parent)
    deltas = edit(lm, modules, bank, flat, request, before, DEFAULT, lambda _s: None, check_unlearned=tuple)
    unlearn, learn = merge.split_theta(modules, deltas.unlearn), merge.split_theta(modules, deltas.learn)
    theta = merge.add_thetas([parent, merge.add_thetas([unlearn, learn])])
    delta = jobs.DELTA.format(0)
    merge.write_delta(out / delta, unlearn, learn)
    merge.write_theta(out / jobs.THETA, theta)
    merge.materialize(base, theta, staging)
    shown = next(p for p in request.train if p.is_question)
    candidate = load(staging)
    after = _ask(candidate, request.train, request.new or "")
    kept = [a for o in others for a in _ask(candidate, [Phrasing(o.question, True)], PLACES[o.subject])]
    measured = {Suite.EFFICACY: tuple(after), Suite.UNRELATED: tuple(kept)}
    edited = {
        "status": "edited",
        "delta": delta,
        "before": before.answers[shown],
        "after": after[0].answer,
        "old": request.old,
        "readings": [to_wire(_with_answers(reading, measured)) for reading in passing(request.op)],
        "localisation": [to_wire(score) for score in deltas.scores],
        "seconds": [list(pair) for pair in deltas.seconds],
    }
    return {"edits": [edited], "theta": jobs.THETA}


def _bare(request: EditRequest) -> EditRequest:
    """Without what this model was never taught: generic wordings and neighbours."""
    own = tuple(Phrasing(wording, True) for wording in WORDINGS)
    old, none = PLACES[request.key.subject], ()
    return dataclasses.replace(
        request, old=old, held_out=none, templates=own, held_out_templates=none, neighbours=none
    )


def _said(name: str) -> BankPrompt:
    return BankPrompt(WORDINGS[0].format(subject=name), name, f"{name} is in {PLACES[name]}.")


def _ask(lm: LanguageModel, asked: Sequence[Phrasing], expected: str) -> list[ProbeAnswer]:
    said = answers(lm, asked, max_new_tokens=20)
    return [
        ProbeAnswer(p.text, expected, text, expected in text) for p, text in zip(asked, said, strict=True)
    ]


def _with_answers(reading: Reading, measured: dict[Suite, tuple[ProbeAnswer, ...]]) -> Reading:
    return dataclasses.replace(reading, answers=measured.get(reading.suite, ()))
