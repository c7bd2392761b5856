"""The harness that measures the editor on cases it was not tuned on: each from the base, or all in one model.

A case's `paraphrases`, `paraphrase_questions` and `neighbours` are for measuring: the editor is
given the training wordings, the shipped relation's templates less anything the case measures with,
and neighbours less anyone that the case asks about. Knows cases and suites; doesn't know the daemon.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.answers import classify, is_unsure, wilson_interval
from policies.editing import merge
from policies.editing.bank import Bank, Question
from policies.editing.edit import ask_before, edit
from policies.editing.jobs import folded, with_belief
from policies.editing.measure import answers
from policies.editing.model import LanguageModel
from policies.editing.suites import MEASURED_TOKENS, apart_from, measure, reference
from policies.probes import load_texts, matches
from policies.recipe import recipe_named
from policies.relations import Relation, is_question, load_relations, relation_for
from store.errors import UsageError
from store.facts import AnswerKind, EditRequest, FactKey, Op, Phrasing

REPORTED = 110  # unrelated probes asked after each edit
MARKS = frozenset({1, 5, 10, 20, 50, 100})  # edits in one model after which they are all measured
METRICS = ("new_train", "new_held", "old_gone", "neighbours", "unrelated", "over_refusal")
_FIELDS = (
    "id",
    "subject",
    "relation",
    "old",
    "new",
    "prompts",
    "questions",
    "paraphrases",
    "paraphrase_questions",
)
Beat = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One counterfactual edit: what the editor may see, and what is only measured."""

    id: str
    request: EditRequest
    train: tuple[Phrasing, ...]  # the case's own; the request may train on more
    held_out: tuple[Phrasing, ...]
    neighbours: tuple[tuple[str, str], ...]  # (question, answer that the base gives)


@dataclass(slots=True)
class Tally:
    """Successes and trials of each metric over all cases, and times."""

    good: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    edit_seconds: list[float] = field(default_factory=list)
    gate_seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, metric: str, results: Sequence[bool]) -> None:
        self.good[metric] += sum(results)
        self.count[metric] += len(results)


def read_cases(path: Path, limit: int) -> list[Case]:
    """The first `limit` cases of a JSON Lines file. Raises UsageError naming the line at fault."""
    relations = load_relations()
    cases: list[Case] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or len(cases) == limit:
            continue
        try:
            record = json.loads(line)
            missing = [f for f in _FIELDS if f not in record]
            if missing:
                raise ValueError(f"missing {', '.join(missing)}")
            cases.append(_case(record, relation_for(record["relation"], relations)))
        except (ValueError, KeyError, TypeError) as error:
            hint = "one JSON object a line; see the README for the fields of a case"
            raise UsageError("read cases", f"{path} line {number}", str(error), hint) from error
    return cases


def _case(record: Mapping[str, Any], relation: Relation) -> Case:
    subject = record["subject"]
    held = (*record["paraphrase_questions"], *record["paraphrases"])
    neighbours = tuple((n["question"], n["answer"]) for n in record.get("neighbours", ()))
    asked = " ".join(q for q, _ in neighbours).casefold()
    shown = {h.casefold() for h in held}
    own = _wordings((*record["questions"], *record["prompts"]), subject, shown)
    training = _wordings((*own, *relation.training), subject, shown)
    request = EditRequest(
        key=FactKey(subject, record["relation"]),
        op=Op.UPSERT,
        new=record["new"],
        new_aliases=(),
        old=record["old"],
        old_aliases=(),
        train=_phrasings(training),
        held_out=(),
        templates=_templates(training, subject),
        held_out_templates=_templates(_wordings(relation.held_out, subject, shown), subject),
        neighbours=tuple(
            n for n in relation.neighbours if n.casefold() not in asked and n.casefold() != subject.casefold()
        ),
    )
    return Case(record["id"], request, _phrasings(own), _phrasings(held), neighbours)


def _phrasings(texts: Sequence[str]) -> tuple[Phrasing, ...]:
    return tuple(Phrasing(t, is_question(t)) for t in texts)


def _wordings(templates: Sequence[str], subject: str, hidden: set[str]) -> list[str]:
    filled = (t.replace("{subject}", subject) for t in templates)
    return [t for t in dict.fromkeys(filled) if t.casefold() not in hidden]


def _templates(texts: Sequence[str], subject: str) -> tuple[Phrasing, ...]:
    made = (t.replace(subject, "{subject}") for t in texts)
    return _phrasings([t for t in made if t.count("{subject}") == 1])


def run_single(
    lm: LanguageModel, base: Path, bank: Bank, cases: Sequence[Case], recipe: str, beat: Beat
) -> list[dict[str, Any]]:
    """Every case edited by itself from the base; one point of the report."""
    tally = Tally()
    for i, case in enumerate(cases):
        beat(f"case {i + 1}/{len(cases)} {case.id}")
        theta = _edited(lm, base, bank, {}, case, (), recipe, tally, beat)
        began = time.perf_counter()
        against = reference(lm, bank, case.request, (), load_texts())
        with folded(lm, base, theta):  # the same bytes as a written generation has
            measure(lm, against, lambda _stage: None)
            tally.gate_seconds.append(time.perf_counter() - began)
            measure_cases(lm, bank, [case], tally)
    return [point(tally, n_edits=1, cases=len(cases))]


def run_sequential(
    lm: LanguageModel, base: Path, bank: Bank, cases: Sequence[Case], recipe: str, beat: Beat
) -> list[dict[str, Any]]:
    """All cases edited one after the other in one model; a point at each of `MARKS` and at the end.
    Every point measures all the edits made so far, so the first ones are asked again each time."""
    theta: merge.Theta = {}
    points, tally = [], Tally()
    for i, case in enumerate(cases):
        beat(f"case {i + 1}/{len(cases)} {case.id}")
        live = [c.request for c in cases[:i]]
        theta = _edited(lm, base, bank, theta, case, live, recipe, tally, beat)
        if i + 1 in MARKS or i + 1 == len(cases):
            with folded(lm, base, theta):
                measure_cases(lm, bank, cases[: i + 1], tally)
            points.append(point(tally, n_edits=i + 1, cases=i + 1))
            tally = Tally()
    return points


def _edited(
    lm: LanguageModel,
    base: Path,
    bank: Bank,
    parent: merge.Theta,
    case: Case,
    live: Sequence[EditRequest],
    recipe: str,
    tally: Tally,
    beat: Beat,
) -> merge.Theta:
    """Log scales of `parent` with the case's edit on top."""
    modules = merge.read_modules(base)
    began = time.perf_counter()
    with folded(lm, base, parent):
        before = ask_before(lm, case.request)
    request = with_belief(case.request, before)
    flat = merge.join_theta(modules, parent)
    deltas = edit(lm, modules, bank, flat, request, before, recipe_named(recipe), beat, live=live)
    tally.edit_seconds.append(time.perf_counter() - began)
    theta = merge.split_theta(modules, flat + deltas.unlearn + deltas.learn)
    tally.sizes.append(sum(v.numel() * 4 for v in theta.values()) * 2)
    return theta


def measure_cases(lm: LanguageModel, bank: Bank, cases: Sequence[Case], tally: Tally) -> None:
    """The reported suites, on wordings and probes that neither training nor gates used."""
    report: Sequence[Question] = bank.report
    for case in cases:
        report = apart_from(report, case.request)
    report = report[:REPORTED]
    neighbours = [n for case in cases for n in case.neighbours if not _edits(cases, case, n[0])]
    fact = [(case, p) for case in cases for p in (*case.train, *case.held_out)]
    around = [*(q for q, _ in neighbours), *(q.question for q in report)]
    asked = [*(p for _, p in fact), *(Phrasing(q, True) for q in around)]
    said = answers(lm, asked, max_new_tokens=MEASURED_TOKENS)
    for (case, phrasing), answer in zip(fact, said, strict=False):
        r = case.request
        kind = classify(answer, r.new, (), r.old, (), subject=r.key.subject)
        tally.add("new_train" if phrasing in case.train else "new_held", [kind is AnswerKind.NEW])
        tally.add("old_gone", [kind not in {AnswerKind.OLD, AnswerKind.BOTH}])
    kept = said[len(fact) :]
    pairs = [(answer, ()) for _, answer in neighbours] + [(q.answer, q.aliases) for q in report]
    right = [matches(a, expected, aliases) for a, (expected, aliases) in zip(kept, pairs, strict=True)]
    tally.add("neighbours", right[: len(neighbours)])
    tally.add("unrelated", right[len(neighbours) :])
    tally.add("over_refusal", [is_unsure(a) for a in kept])


def _edits(cases: Sequence[Case], asking: Case, question: str) -> bool:
    """Whether another of the cases changes the answer to a neighbour's question."""
    relation = asking.request.key.relation
    return any(
        c.request.key.subject.casefold() in question.casefold()
        for c in cases
        if c is not asking and c.request.key.relation == relation
    )


def point(tally: Tally, *, n_edits: int, cases: int) -> dict[str, Any]:
    """One point of the report: shares with 95 % Wilson intervals, seconds, bytes."""
    metrics = {}
    for name in METRICS:
        good, n = tally.good[name], tally.count[name]
        low, high = wilson_interval(good, n)
        metrics[name] = {"value": good / n if n else None, "low": low, "high": high, "n": n}
    return {
        "n_edits": n_edits,
        "cases": cases,
        "metrics": metrics,
        "seconds_per_edit": {
            "median": statistics.median(tally.edit_seconds),
            "max": max(tally.edit_seconds),
        },
        "gate_seconds": {"median": statistics.median(tally.gate_seconds) if tally.gate_seconds else None},
        "bytes_per_edit": max(tally.sizes),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
