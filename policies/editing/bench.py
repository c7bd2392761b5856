"""The harness that measures editing methods on cases they weren't tuned on: each from the base, or all in
one model.

Every method meets the same cases, questions and order. Knows cases, states and suites; doesn't know
how a method edits (`policies.editing.baselines`), nor the daemon.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from policies.answers import classify, is_unsure
from policies.editing.bank import Question
from policies.editing.baselines.method import Edited, Method, State, Task, World, in_force
from policies.editing.cases import Case
from policies.editing.edit import CHECK, ask_before
from policies.editing.fit import NoProgressError
from policies.editing.jobs import with_belief
from policies.editing.measure import answers
from policies.editing.suites import (
    MEASURED_TOKENS,
    Asked,
    Reference,
    apart_from,
    drift,
    measure,
    plain_texts,
    readings,
    reference,
    same_subject_questions,
)
from policies.editing.tally import Record, Tally, forget_peak, kinds, metrics, peak_rss, point
from policies.probes import load_texts, matches
from store.facts import AnswerKind, EditRequest, Phrasing, Reading, Suite

REPORTED = 110  # unrelated probes asked after each edit
MARKS = frozenset({1, 5, 10, 20, 50, 100})  # edits in one model after which they are all measured
FIRM = 2  # wordings of a case that the base must answer with the old object
TIMED = 5  # single edits of each recipe whose gates are run to take their time
FIRST = 10  # edits of a sequence that are measured apart at its end


@dataclass(slots=True)
class Report:
    """What is known so far; `publish` is called with it whenever there is more."""

    publish: Callable[["Report"], None] = lambda _report: None
    points: list[Record] = field(default_factory=list)
    edits: list[Record] = field(default_factory=list)
    first_again: list[Record] = field(default_factory=list)


def firm(world: World, cases: Sequence[Case], least: int = FIRM) -> tuple[list[Case], Record]:
    """The cases that the base answers with the old object in at least `least` wordings, each with the
    neighbours whose question it answers right: retention is relative to what the base knows. Also what
    was left out."""
    wordings = [p for case in cases for p in (*case.train, *case.held_out)]
    around = [Phrasing(q, True) for q in dict.fromkeys(n[0] for case in cases for n in case.neighbours)]
    asked = [*dict.fromkeys(wordings), *around]
    said = dict(zip(asked, _said(world, asked, State()), strict=True))
    kept, unknown, neighbours = [], [], 0
    for case in cases:
        old = [said[p] for p in (*case.train, *case.held_out)]
        if sum(matches(a, case.request.old or "", ()) for a in old) < least:
            unknown.append(case.id)
            continue
        known = tuple(n for n in case.neighbours if matches(said[Phrasing(n[0], True)], n[1], ()))
        neighbours += len(case.neighbours) - len(known)
        kept.append(replace(case, neighbours=known))
    return kept, {"cases": unknown, "neighbours": neighbours}


def apart(world: World, cases: Sequence[Case]) -> World:
    """The world with a bank that asks for none of the neighbours' facts that the cases measure."""
    return replace(world, bank=world.bank.apart_from(n for case in cases for n in case.neighbours))


def run_single(
    world: World,
    cases: Sequence[Case],
    recipe: str,
    method: Method,
    report: Report,
    live: Sequence[EditRequest] = (),
) -> None:
    """Every case edited by itself from the base, with `live` facts said to be live; one point, brought up to
    date after every case."""
    forget_peak()
    tally, at = Tally(), len(report.points)
    texts = plain_texts(world.lm, load_texts())
    for i, case in enumerate(cases):
        world.beat(f"case {i + 1}/{len(cases)} {recipe} {case.id}")
        one = Tally()
        others = tuple(r for r in live if r.key != case.request.key)
        state = _edited(apart(world, [case]), case, State(), others, method, one)
        around = _same_subject(world, [case], case)
        with in_force(world.lm, state):  # the same bytes as a written generation has
            measure_cases(world, [case], state, one)
            one.add_reading("same_subject", _asked_now(world, around, state))
            one.drift.append(drift(world.lm, texts)[0])
        if i < TIMED:
            one.gate_seconds.append(_gate_seconds(world, case, state))
        tally.merge(one)
        record = _edit_record(recipe, case, len(others), one)
        report.edits.append(record | {"metrics": metrics(one), "kinds": kinds(one)})
        report.points[at:] = [point(tally, recipe=recipe, n_edits=1, cases=i + 1)]
        report.publish(report)


def run_sequential(world: World, cases: Sequence[Case], recipe: str, method: Method, report: Report) -> None:
    """All cases edited one after the other in one model; a point at each of `MARKS` and at the end.
    Every point measures all the edits made so far, so the first ones are asked again each time; at the
    end of a longer run the first `FIRST` are also reported apart."""
    forget_peak()
    state, tally = State(), Tally()
    texts = plain_texts(world.lm, load_texts())
    around: list[Asked] = []
    unseen = apart(world, cases)
    for i, case in enumerate(cases):
        world.beat(f"case {i + 1}/{len(cases)} {recipe} {case.id}")
        one, live = Tally(), tuple(c.request for c in cases[:i])
        state = _edited(unseen, case, state, live, method, one)
        around += _same_subject(world, cases, case)
        tally.merge(one)
        report.edits.append(_edit_record(recipe, case, i, one))
        if i + 1 in MARKS or i + 1 == len(cases):
            with in_force(world.lm, state):
                measure_cases(world, cases[: i + 1], state, tally)
                tally.add_reading("same_subject", _asked_now(world, around, state))
                tally.drift.append(drift(world.lm, texts)[0])
            report.points.append(point(tally, recipe=recipe, n_edits=i + 1, cases=i + 1))
            tally = Tally()
        report.publish(report)
    if len(cases) <= FIRST:
        return
    with in_force(world.lm, state):
        measure_facts(world, cases[:FIRST], cases, state, tally)
    again = {k: v for k, v in metrics(tally).items() if v["n"]}
    counted = {"recipe": recipe, "n_edits": len(cases), "cases": len(cases[:FIRST])}
    report.first_again.append(counted | {"metrics": again, "kinds": kinds(tally)})
    report.publish(report)


def _edited(
    world: World,
    case: Case,
    parent: State,
    live: tuple[EditRequest, ...],
    method: Method,
    tally: Tally,
) -> State:
    """`parent` with the case's edit on top; an edit that finds no solution changes nothing."""
    began = time.perf_counter()
    with in_force(world.lm, parent):
        before = ask_before(world.lm, case.request)
    asked = time.perf_counter() - began
    task = Task(with_belief(case.request, before), before, parent, live)
    try:
        edited = method(world, task)
    except NoProgressError:
        edited = Edited(parent, (), 0)
        tally.failed += 1
    checking = sum(s for stage, s in edited.seconds if stage == CHECK)
    tally.edit_seconds.append(time.perf_counter() - began - checking)
    tally.add_stages([("ask", asked), *(lap for lap in edited.seconds if lap[0] != CHECK)])
    tally.sizes.append(edited.size)
    tally.norms.append(edited.state.norm())
    tally.norm_of = edited.state.norm_of()
    if edited.doubt is not None:
        tally.add_reading("over_refusal_unlearn", edited.doubt)
    return edited.state


def _edit_record(recipe: str, case: Case, live: int, one: Tally) -> Record:
    return {
        "recipe": recipe,
        "id": case.id,
        "live": live,
        "failed": bool(one.failed),
        "seconds": one.edit_seconds[-1],
        "norm": one.norms[-1],
        "bytes": one.sizes[-1],
        "peak_rss_bytes": peak_rss(),
    }


def _gate_seconds(world: World, case: Case, state: State) -> float:
    """How long the daemon's gates take for this edit; what they read isn't reported."""
    began = time.perf_counter()
    against = reference(world.lm, world.bank, [case.request], (), load_texts())
    with in_force(world.lm, state):
        measure(world.lm, _wrapped(against, state), lambda _stage: None)
    return time.perf_counter() - began


def _wrapped(against: Reference, state: State) -> Reference:
    """The same questions with the state's facts in front of them; they are judged as before."""
    return replace(against, asked=tuple(replace(a, phrasing=state.wrap(a.phrasing)) for a in against.asked))


def _same_subject(world: World, cases: Sequence[Case], case: Case) -> list[Asked]:
    """Other facts of the case's subject, unless another case may change them."""
    subject = case.request.key.subject.casefold()
    if sum(c.request.key.subject.casefold() == subject for c in cases) > 1:
        return []
    return same_subject_questions(world.lm, world.bank.memo, case.request)


def _asked_now(world: World, asked: Sequence[Asked], state: State) -> Reading:
    wrapped = [replace(a, phrasing=state.wrap(a.phrasing)) for a in asked]
    return readings(world.lm, wrapped, [Suite.SAME_SUBJECT])[0]


def _said(world: World, phrasings: Sequence[Phrasing], state: State) -> list[str]:
    return answers(world.lm, [state.wrap(p) for p in phrasings], max_new_tokens=MEASURED_TOKENS)


def measure_cases(world: World, cases: Sequence[Case], state: State, tally: Tally) -> None:
    """The reported suites, on wordings and probes that neither training nor gates used."""
    kept = measure_facts(world, cases, cases, state, tally)
    report: Sequence[Question] = world.bank.report
    for case in cases:
        report = apart_from(report, case.request)
    report = report[:REPORTED]
    said = _said(world, [Phrasing(q.question, True) for q in report], state)
    tally.add("unrelated", [matches(a, q.answer, q.aliases) for a, q in zip(said, report, strict=True)])
    tally.add("over_refusal", [is_unsure(a) for a in (*kept, *said)])


def measure_facts(
    world: World, cases: Sequence[Case], edited: Sequence[Case], state: State, tally: Tally
) -> list[str]:
    """The facts of `cases` and their neighbours less those that any of `edited` changes; returns what
    the neighbours' questions were answered."""
    facts = [(case, p) for case in cases for p in (*case.train, *case.held_out)]
    neighbours = [n for case in cases for n in case.neighbours if not _edits(edited, case, n[0])]
    asked = [*(p for _, p in facts), *(Phrasing(q, True) for q, _ in neighbours)]
    said = _said(world, asked, state)
    for (case, phrasing), answer in zip(facts, said, strict=False):
        _count(case, phrasing, answer, tally)
    kept = said[len(facts) :]
    tally.add("neighbours", [matches(a, n[1], ()) for a, n in zip(kept, neighbours, strict=True)])
    return kept


def _count(case: Case, phrasing: Phrasing, answer: str, tally: Tally) -> None:
    r, trained = case.request, phrasing in case.train
    kind = classify(answer, r.new, r.new_aliases, r.old, r.old_aliases, subject=r.key.subject)
    tally.add("new_train" if trained else "new_held", [kind is AnswerKind.NEW])
    tally.add("old_gone", [kind not in {AnswerKind.OLD, AnswerKind.BOTH}])
    wording = f"{'train' if trained else 'held'}_{'question' if phrasing.is_question else 'cloze'}"
    tally.kinds[wording][kind] += 1


def _edits(cases: Sequence[Case], asking: Case, question: str) -> bool:
    """Whether another of the cases changes the answer to a neighbour's question."""
    relation = asking.request.key.relation
    return any(
        c.request.key.subject.casefold() in question.casefold()
        for c in cases
        if c is not asking and c.request.key.relation == relation
    )
