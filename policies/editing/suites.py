"""Measuring a candidate: every suite of DESIGN section 6 by free greedy answers.

Knows questions, answers and what the base said. Doesn't know thresholds or what follows
(`policies.gates`), and never sees how the candidate was made.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from policies import batches
from policies.answers import classify, find, is_unsure, name_words, wilson_interval, words
from policies.editing.bank import ANSWER_TOKENS, Bank, Question
from policies.editing.measure import answers
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel
from policies.editing.targets import first_sentence
from policies.probes import matches
from policies.relations import (
    Relation,
    fill,
    load_relations,
    measured_neighbours,
    relation_for,
)
from store.errors import PalimpsestError
from store.facts import AnswerKind, EditRequest, Op, Phrasing, ProbeAnswer, Reading, Suite

MEASURED_TOKENS = 20
GATED = 60  # unrelated probes of a gate
NEIGHBOURS = 10
LIVE_FACTS = 12
LEAST_SAME_SUBJECT = 3
TEXTS = 12
OF_ONE_FACT = tuple(s for s in Suite if s in batches.OF_ONE_FACT and s is not Suite.OVER_REFUSAL_UNLEARN)
OF_ALL = (Suite.UNRELATED, Suite.LIVE_FACTS)
_KEPT = frozenset({Suite.NEIGHBOURS, Suite.UNRELATED})  # what the base answers: doubt is none of it
_COMMON = frozenset(
    """the a an of in is are was were and or to it its that this which who what as for by with on at from
    also has have be one known called named city country capital located""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a suite; `ok` judges the answer. `fact` is the place of the edited fact that it is
    about, where there are several."""

    suite: Suite
    phrasing: Phrasing
    expected: str
    ok: Callable[[str], bool]
    kind: Callable[[str], AnswerKind] = lambda _answer: AnswerKind.OTHER
    fact: int = 0


def share(suite: Suite, results: Sequence[ProbeAnswer]) -> Reading:
    """The share of `ok` answers with its Wilson interval; n = 0 reads as 1 with nothing known."""
    n, good = len(results), sum(r.ok for r in results)
    low, high = wilson_interval(good, n)
    return Reading(suite, good / n if n else 1.0, low, high, n, tuple(results))


def fact_questions(request: EditRequest) -> list[Asked]:
    """Training phrasings, held-out phrasings, and on all of them whether the old answer is gone."""
    retract = request.op is Op.RETRACT

    def kind(answer: str) -> AnswerKind:
        return classify(
            answer,
            request.new,
            request.new_aliases,
            request.old,
            request.old_aliases,
            subject=request.key.subject,
        )

    def done(answer: str) -> bool:
        return kind(answer) is (AnswerKind.UNSURE if retract else AnswerKind.NEW)

    def gone(answer: str) -> bool:
        return kind(answer) not in {AnswerKind.OLD, AnswerKind.BOTH}

    expected = "(unsure)" if retract else request.new or ""
    asked = [Asked(Suite.EFFICACY, p, expected, done, kind) for p in request.train]
    asked += [Asked(Suite.PARAPHRASE, p, expected, done, kind) for p in request.held_out]
    if request.old:
        asked += [
            Asked(Suite.OLD_GONE, p, f"not {request.old}", gone, kind)
            for p in (*request.train, *request.held_out)
        ]
    return asked


def unrelated_questions(questions: Sequence[Question], suite: Suite) -> list[Asked]:
    """Questions that the base answers right."""
    return [Asked(suite, Phrasing(q.question, True), q.answer, partial(is_answer, q)) for q in questions]


def is_answer(question: Question, answer: str) -> bool:
    return matches(answer, question.answer, question.aliases)


def apart_from(questions: Sequence[Question], request: EditRequest) -> list[Question]:
    """Less those that mention the edited subject."""
    subject = request.key.subject.casefold()
    return [q for q in questions if subject not in q.question.casefold()]


def keeps_answer(base_answer: str, question: str, request: EditRequest) -> Callable[[str], bool]:
    """Whether an answer still says what the base said: at least half of the content words that the
    base's first sentence adds to the question, and not the new object unless the base gave it."""
    added = content_words(first_sentence(base_answer)) - set(words(question))
    base_words = words(base_answer)

    def ok(answer: str) -> bool:
        if not added:
            return True
        said = words(answer)
        if request.new and find(name_words(request.new), said) >= 0 > find(
            name_words(request.new), base_words
        ):
            return False
        return 2 * len(added & set(said)) >= len(added)

    return ok


def content_words(text: str) -> set[str]:
    return {w for w in words(text) if w not in _COMMON}


def neighbour_questions(base: LanguageModel, memo: Memo, request: EditRequest) -> list[Asked]:
    """Held-out wordings about neighbours that are not trained on and that the base answers firmly."""
    held, train = request.held_out_templates, request.templates
    held = tuple(t for t in held if t.is_question) or held
    train = tuple(t for t in train if t.is_question) or train
    if not held or not train:
        return []
    pairs = [
        (fill(held[i % len(held)], name), fill(train[i % len(train)], name))
        for i, name in enumerate(measured_neighbours(request))
    ]
    return firm(base, memo, Suite.NEIGHBOURS, pairs, request)[:NEIGHBOURS]


def same_subject_questions(base: LanguageModel, memo: Memo, request: EditRequest) -> list[Asked]:
    """What the base firmly answers about the same subject in the other relations that know it, where
    that isn't the edited answer. Fewer than `LEAST_SAME_SUBJECT` such answers can't tell luck from
    damage and count as nothing to measure."""
    subject, relations = request.key.subject, load_relations()
    own = relation_for(request.key.relation, relations).name
    others = {r.name: r for r in relations.values() if r.name != own and knows(r, subject)}
    pairs = [
        (fill(Phrasing(held, True), subject), fill(Phrasing(train, True), subject))
        for _, r in sorted(others.items())
        for held, train in zip(r.held_out_questions[:2], r.questions, strict=False)
    ]
    names = [n for n in (request.old, *request.old_aliases) if n]
    asked = [
        a for a in firm(base, memo, Suite.SAME_SUBJECT, pairs, request) if not mentions(a.expected, names)
    ]
    return asked if len(asked) >= LEAST_SAME_SUBJECT else []


def knows(relation: Relation, subject: str) -> bool:
    return subject.casefold() in {n.casefold() for n in relation.neighbours}


def mentions(text: str, names: Sequence[str]) -> bool:
    return any(find(name_words(n), words(text)) >= 0 for n in names)


def firm(
    base: LanguageModel,
    memo: Memo,
    suite: Suite,
    pairs: Sequence[tuple[Phrasing, Phrasing]],
    request: EditRequest,
) -> list[Asked]:
    """Of (wording to ask, other wording) those that the base answers with the same content words."""
    asked, again = [a for a, _ in pairs], [b for _, b in pairs]
    said = memo.answers(base, [*asked, *again], max_new_tokens=ANSWER_TOKENS)
    found = []
    for p, first, second in zip(asked, said, said[len(asked) :], strict=False):
        ok = keeps_answer(first, p.text, request)
        if content_words(first_sentence(first)) - set(words(p.text)) and ok(second):
            found.append(Asked(suite, p, first_sentence(first), ok))
    return found


def live_questions(live: Sequence[EditRequest]) -> list[Asked]:
    """Two phrasings of each of the newest live facts: one trained on, one held out."""
    asked = []
    for request in live[-LIVE_FACTS:]:
        for one in fact_questions(request):
            trained = one.suite is Suite.EFFICACY and one.phrasing == request.train[0]
            if trained or (one.suite is Suite.PARAPHRASE and one.phrasing == request.held_out[0]):
                asked.append(replace(one, suite=Suite.LIVE_FACTS))
    return asked


def ask_all(lm: LanguageModel, asked: Sequence[Asked], on_batch: Callable[[int], None]) -> list[ProbeAnswer]:
    """One answer for each question; the same wording in two suites is asked once."""
    distinct = list(dict.fromkeys(a.phrasing for a in asked))
    given = dict(
        zip(distinct, answers(lm, distinct, max_new_tokens=MEASURED_TOKENS, on_batch=on_batch), strict=True)
    )
    results = []
    for a in asked:
        text = given[a.phrasing]
        results.append(ProbeAnswer(a.phrasing.text, a.expected, text, a.ok(text), a.kind(text)))
    return results


def readings(
    lm: LanguageModel,
    asked: Sequence[Asked],
    suites: Sequence[Suite],
    on_batch: Callable[[int], None] = lambda n: None,
) -> list[Reading]:
    """One reading for each of `suites`, in that order; over-refusal is read off the retained ones."""
    return shares(asked, ask_all(lm, asked, on_batch), suites)


def shares(
    asked: Sequence[Asked], results: Sequence[ProbeAnswer], suites: Sequence[Suite], fact: int = 0
) -> list[Reading]:
    """A reading for each of `suites`, of the answers about one fact."""
    by_suite = [(a.suite, r) for a, r in zip(asked, results, strict=True) if a.fact == fact]
    return [share(suite, [r for s, r in by_suite if s is suite]) for suite in suites]


def refusals(suite: Suite, kept: Sequence[Reading]) -> Reading:
    """The share of retained questions (all answered by the base) that are now answered with doubt."""
    found = [
        ProbeAnswer(r.prompt, "an answer", r.answer, is_unsure(r.answer))
        for reading in kept
        for r in reading.answers
        if not is_unsure(r.expected)
    ]
    return share(suite, found) if found else Reading(suite, 0.0, 0.0, 1.0, 0)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a candidate is measured against, taken from the pristine base: the questions of every suite
    about each of so many edited `facts`, and plain texts as token ids (1, T) with the base's
    log-probabilities (T - 1, V)."""

    asked: tuple[Asked, ...]
    texts: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    facts: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """Readings of one candidate: `own` of each edited fact, in order, `shared` by all of them; and why
    some are missing (`unmeasured`)."""

    own: tuple[tuple[Reading, ...], ...]
    shared: tuple[Reading, ...]
    unmeasured: tuple[str, ...]


Requests = Sequence[EditRequest]


def reference(
    base: LanguageModel, bank: Bank, requests: Requests, live: Requests, texts: Sequence[str]
) -> Reference:
    """For a candidate that holds the edits of `requests` on top of those of `live`."""
    asked: list[Asked] = []
    unrelated: Sequence[Question] = bank.gate
    for fact, request in enumerate(requests):
        own = [*fact_questions(request), *neighbour_questions(base, bank.memo, request)]
        asked += [replace(a, fact=fact) for a in (*own, *same_subject_questions(base, bank.memo, request))]
        unrelated = apart_from(unrelated, request)
    asked += unrelated_questions(unrelated[:GATED], Suite.UNRELATED)
    asked += live_questions(live)
    return Reference(tuple(asked), plain_texts(base, texts), len(requests))


def plain_texts(base: LanguageModel, texts: Sequence[str]) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """The first `TEXTS` as token ids (1, T), each with the base's log-probabilities (T - 1, V)."""
    ids = [torch.tensor([base.tokenizer(t)["input_ids"]], device=base.device) for t in texts[:TEXTS]]
    return tuple((i, _logprobs(base, i)) for i in ids)


def measure(candidate: LanguageModel, against: Reference, beat: Callable[[str], None]) -> Measured:
    """Every suite but stage 1's, on free greedy answers of `candidate` and on plain text. A suite that
    crashes isn't measured, which the gates don't take for a pass."""
    asked = against.asked
    unmeasured: list[str] = []

    def attempt(what: str, suites: Callable[[], list[Reading]]) -> list[Reading]:
        try:
            return suites()
        except Exception as error:
            if isinstance(error, (MemoryError, OSError, PalimpsestError)) or "memory" in str(error):
                raise  # the machine or the weights, not the suite
            unmeasured.append(f"{what} crashed: {type(error).__name__}: {error}")
            return []

    own: list[list[Reading]] = [[] for _ in range(against.facts)]

    def ask() -> list[Reading]:
        results = ask_all(candidate, asked, lambda done: beat(f"measure {done}/{len(asked)}"))
        own[:] = [shares(asked, results, OF_ONE_FACT, fact) for fact in range(against.facts)]
        return shares(asked, results, OF_ALL)

    found = attempt("asking", ask)
    kept = [r for each in (*own, found) for r in each if r.suite in _KEPT]
    found += attempt("over_refusal", lambda: [refusals(Suite.OVER_REFUSAL, kept)])
    beat("measure drift")
    found += attempt("drift", lambda: list(drift(candidate, against.texts)))
    return Measured(tuple(map(tuple, own)), tuple(found), tuple(unmeasured))


def drift(
    candidate: LanguageModel, texts: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[Reading, Reading]:
    """(mean KL(base || candidate) in nats a token, ratio of perplexities) on plain text; intervals by
    the normal approximation over texts."""
    kls, logs = [], []
    for ids, base in texts:
        now = _logprobs(candidate, ids)
        kls.append(float((base.exp() * (base - now)).sum(-1).mean()))
        token = ids[0, 1:, None]
        logs.append(float((base.gather(1, token) - now.gather(1, token)).mean()))
    return _mean(Suite.KL_DRIFT, kls), _mean(Suite.PERPLEXITY, logs, math.exp)


@torch.no_grad()
def _logprobs(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = lm.model(ids).logits[0, :-1]
    return logits.float().log_softmax(-1)


def _mean(suite: Suite, values: Sequence[float], scale: Callable[[float], float] = float) -> Reading:
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, n - 1) / n)
    return Reading(suite, scale(mean), scale(mean - 1.96 * spread), scale(mean + 1.96 * spread), n)
