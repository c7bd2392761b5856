"""What the base answers about other subjects of a relation, as far as the object.

An edit of one subject is most likely to spill over to the others of its relation, and what must stay is
their objects. Answers are therefore asked for until the object should have come, and cut off after it: a
fixed number of tokens either stops short of it ("Alpha Pegasi is a star in the constellation of") or goes on
to talk that nobody asked about. Knows texts, how to ask, and who may be asked about; doesn't know adapters or
rows.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.answers import words
from policies.editing.bank import ANSWER_TOKENS, Bank, answer_sequence
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel
from policies.editing.packing import Sequence_
from policies.editing.targets import find_name, first_sentence, spans
from policies.relations import fill, relation_key, trained_neighbours
from store.facts import EditRequest, Phrasing

QUESTION_TOKENS = 20
CLOZE_TOKENS = 8
ROUND = 64  # names asked at a time,
MOST = 192  # until enough of so many are firm
_COMMON = frozenset(
    """a an and as at by for from in is it its of on or that the this to was which with""".split()  # noqa: SIM905
)

About = tuple[str, Phrasing, Phrasing]  # a subject, a question and a cloze about it


@dataclass(frozen=True, slots=True)
class Told:
    """What is answered about `subject`. `sure` 2: it ends with an object that a cloze about the subject gave
    too; 1: with one that clozes about others gave; 0: no object was found in it. `object`: that one."""

    subject: str
    phrasing: Phrasing
    answer: str
    sure: int
    object: str = ""


def around(
    base: LanguageModel,
    bank: Bank,
    request: EditRequest,
    live: Sequence[EditRequest],
    limit: int,
    beat: Callable[[str], None],
) -> list[Told]:
    """What the base answers about neighbours that may be trained on, less the facts that are live or judged:
    those say something else by now, these are asked of the result."""
    relation = relation_key(request.key.relation)
    edited = {r.key.subject.casefold() for r in live if relation_key(r.key.relation) == relation}
    names = [n for n in trained_neighbours(request) if n.casefold() not in edited]
    found = ask_about(base, bank.memo, names, request.templates, limit, beat)
    return [t for t in found if not bank.judges(t.subject, t.answer)][:limit]


def told_sequence(lm: LanguageModel, told: Told) -> Sequence_:
    """As far as the object; talk without one isn't worth as many tokens."""
    limit = QUESTION_TOKENS if told.sure else ANSWER_TOKENS
    return answer_sequence(lm, told.phrasing, told.answer, limit=limit)


def ask_about(
    base: LanguageModel,
    memo: Memo,
    names: Sequence[str],
    templates: Sequence[Phrasing],
    wanted: int,
    beat: Callable[[str], None],
) -> list[Told]:
    """What the base answers about `names`, the surest first; asked in rounds until `wanted` are sure of their
    object. Remembered: asking about a relation costs once."""
    found: list[Told] = []
    about = asked_about(names, templates)[:MOST]
    for end in range(ROUND, len(about) + ROUND, ROUND):
        asked = about[:end]

        def said(phrasings: Sequence[Phrasing], tokens: int, kind: str, of: int = len(asked)) -> list[str]:
            return memo.answers(
                base,
                phrasings,
                max_new_tokens=tokens,
                on_batch=lambda done: beat(f"neighbours, {kind}: {done} of at most {of}"),
            )

        questions = said([q for _, q, _ in asked], QUESTION_TOKENS, "questions")
        clozes = said([c for _, _, c in asked], CLOZE_TOKENS, "clozes")
        found = told(asked, list(zip(questions, clozes, strict=True)))
        if sum(t.sure == 2 for t in found) >= wanted:
            break
    return found


def told(asked: Sequence[About], given: Sequence[tuple[str, str]]) -> list[Told]:
    """The answers to questions, as far as an object where they reach one; surest first, else in the order of
    `asked`.

    An object is what the cloze about the subject goes on with, or clozes about two others; what the question
    says itself is none. Clozes are only asked for that: kept as answers they don't hold those to questions.
    """
    named = [_names(ending, cloze.text) for (_, _, cloze), (_, ending) in zip(asked, given, strict=True)]
    shared = {w for w, n in Counter(w for found in named for w in found).items() if n > 1}
    found: list[Told] = []
    for (subject, question, _), (answer, _), own in zip(asked, given, named, strict=True):
        cut, name = as_far_as(answer, (own | shared) - set(words(question.text)))
        sure = 0 if not cut else 2 if set(words(cut)) & own else 1
        if kept := cut or first_sentence(answer):
            found.append(Told(subject, question, kept, sure, name))
    return sorted(found, key=lambda t: -t.sure)


def asked_about(names: Sequence[str], templates: Sequence[Phrasing]) -> list[About]:
    """(name, question, cloze) for each name. A name's wordings don't depend on the other names; where a kind
    is missing the other serves."""
    questions = [t for t in templates if t.is_question] or list(templates)
    clozes = [t for t in templates if not t.is_question] or list(templates)

    def pick(of: Sequence[Phrasing], name: str) -> Phrasing:
        return fill(of[hashlib.sha256(name.encode()).digest()[0] % len(of)], name)

    return [(n, pick(questions, n), pick(clozes, n)) for n in names] if templates else []


def up_to(text: str, name: str) -> str | None:
    """`text` up to the end of `name`, None where it isn't said."""
    said = find_name(name, text)
    return text[: said.end()] if said else None


def as_far_as(text: str, objects: set[str]) -> tuple[str, str]:
    """`text` up to the end of the first name with a word of `objects` in it, and that name; empty where there
    is none. Words in small letters are no names."""
    begin = end = None
    for start, stop, raw in spans(text):
        if end is None:
            if not raw[0].islower() and set(words(raw)) & objects:
                begin, end = start, stop
        elif raw[0].isupper() and text[end:start].strip() == "":
            end = stop  # the name goes on: "Mexico City"
        else:
            break
    return ("", "") if end is None else (text[:end], text[begin:end])


def _names(text: str, prompt: str) -> set[str]:
    """Words of `text` that may name an object: capitalised ones and numbers that the prompt doesn't have."""
    begun = {w for _, _, raw in spans(text) if raw[0].isupper() or raw[0].isdigit() for w in words(raw)}
    return begun - set(words(prompt)) - _COMMON
