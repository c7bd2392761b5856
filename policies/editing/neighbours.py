"""What the base answers about other subjects of a relation, as far as the object.

An edit of one subject is most likely to spill over to the others of its relation, and what must stay is
their objects. Answers are therefore asked for until the object should have come, and cut off after it: a
fixed number of tokens either stops short of it ("Alpha Pegasi is a star in the constellation of") or goes on
to talk that nobody asked about. Knows texts, how to ask, and who may be asked about; doesn't know adapters or
rows.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.answers import words
from policies.editing.bank import ANSWER_TOKENS, Bank, answer_sequence
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel
from policies.editing.packing import Sequence_
from policies.editing.targets import first_sentence, spans
from policies.relations import fill, relation_key, trained_neighbours
from store.facts import EditRequest, Phrasing

QUESTION_TOKENS = 20
CLOZE_TOKENS = 8
ROUND = 64  # names asked at a time,
MOST = 192  # until enough of so many are firm
WORDINGS = 3  # questions that a name is asked, until one gives an object that its clozes give too
CLOZES = 2
_COMMON = frozenset(
    """a an and as at by for from he in is it its of on or she that the they this to was which with""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class About:
    """How a subject is asked about: questions in the order in which they are put, and clozes."""

    subject: str
    questions: tuple[Phrasing, ...]
    clozes: tuple[Phrasing, ...]


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
    those say something else by now, these are asked of the result. Talk that comes to no object ("X is a
    renowned musician") only where there is nothing else: it would hold the edited subject's wordings to such
    talk as well."""
    relation = relation_key(request.key.relation)
    edited = {r.key.subject.casefold() for r in live if relation_key(r.key.relation) == relation}
    names = [n for n in trained_neighbours(request) if n.casefold() not in edited]
    like = [n for n in (request.new, request.old) if n]
    found = ask_about(base, bank.memo, asked_about(names, request.templates), like, limit, beat)
    free = [t for t in found if not bank.judges(t.subject, t.answer)]
    return ([t for t in free if t.sure] or free)[:limit]


def told_sequence(lm: LanguageModel, told: Told) -> Sequence_:
    """As far as the object; talk without one isn't worth as many tokens."""
    limit = QUESTION_TOKENS if told.sure else ANSWER_TOKENS
    return answer_sequence(lm, told.phrasing, told.answer, limit=limit)


def ask_about(
    base: LanguageModel,
    memo: Memo,
    about: Sequence[About],
    like: Sequence[str],
    wanted: int,
    beat: Callable[[str], None],
) -> list[Told]:
    """What the base answers, the surest first; asked in rounds until `wanted` are sure of their object, a
    subject in other words while it isn't. Remembered: asking about a relation costs once. `like`: objects of
    the relation."""
    said: dict[Phrasing, str] = {}
    endings: dict[Phrasing, str] = {}
    found: list[Told] = []

    def ask(kind: str, tokens: int, phrasings: list[Phrasing]) -> dict[Phrasing, str]:
        given = memo.answers(
            base,
            phrasings,
            max_new_tokens=tokens,
            on_batch=lambda done: beat(f"neighbours, {kind}: {done} of at most {len(phrasings)}"),
        )
        return dict(zip(phrasings, given, strict=True))

    for begin in range(0, min(MOST, len(about)), ROUND):
        asked = about[: begin + ROUND]
        unsure = asked[begin:]
        endings |= ask("clozes", CLOZE_TOKENS, [c for a in unsure for c in a.clozes])
        for turn in range(WORDINGS):
            put = [a.questions[turn] for a in unsure if turn < len(a.questions)]
            said |= ask("questions", QUESTION_TOKENS, put)
            found = told(asked, endings, said, like)
            sure = {t.subject for t in found if t.sure == 2}
            unsure = [a for a in unsure if a.subject not in sure]
        if len(sure) >= wanted:
            break
    return found


def told(
    asked: Sequence[About], endings: Mapping[Phrasing, str], said: Mapping[Phrasing, str], like: Sequence[str]
) -> list[Told]:
    """The answer to one question about each subject, as far as an object where one reaches it; ordered as
    `spread` does. `endings`: what clozes go on with; `said`: the answers to questions, where they were put.

    An object is what a cloze about the subject goes on with, or clozes about two others; what the question
    says itself is none. Clozes are only asked for that: kept as answers they don't hold those to questions.
    """
    small = any(name[0].islower() for name in like)
    named = [{w for c in a.clozes for w in _names(endings[c], c.text, small=small)} for a in asked]
    counted = Counter(w for found in named for w in found)
    shared = {w for w, n in counted.items() if n > 1} | {w for name in like for w in words(name)}
    best: list[Told] = []
    for a, own in zip(asked, named, strict=True):
        found: list[Told] = []
        for question in a.questions:
            answer = said.get(question, "")
            cut, name = as_far_as(answer, (own | shared) - set(words(question.text)), small=small)
            sure = 0 if not cut else 2 if set(words(cut)) & own else 1
            if kept := cut or first_sentence(answer):
                found.append(Told(a.subject, question, kept, sure, name))
        if found:
            best.append(max(found, key=lambda t: t.sure))
    return spread(best)


def spread(found: Sequence[Told]) -> list[Told]:
    """The surest first, and of those as many objects as there are before one of them comes again."""
    seen: Counter[tuple[int, str]] = Counter()

    def turn(t: Told) -> tuple[int, int]:
        seen[t.sure, t.object.casefold()] += 1
        return -t.sure, seen[t.sure, t.object.casefold()]

    return sorted(found, key=turn)


def asked_about(names: Sequence[str], templates: Sequence[Phrasing]) -> list[About]:
    """How each of `names` is asked about. A name's wordings don't depend on the other names; where a kind is
    missing the other serves."""
    questions = [t for t in templates if t.is_question] or list(templates)
    clozes = [t for t in templates if not t.is_question] or list(templates)

    def pick(of: Sequence[Phrasing], name: str, number: int) -> tuple[Phrasing, ...]:
        first = hashlib.sha256(name.encode()).digest()[0]
        return tuple(fill(of[(first + i) % len(of)], name) for i in range(min(number, len(of))))

    return [About(n, pick(questions, n, WORDINGS), pick(clozes, n, CLOZES)) for n in names if templates]


def as_far_as(text: str, objects: set[str], *, small: bool = False) -> tuple[str, str]:
    """`text` up to the end of the first name with a word of `objects` in it, and that name; empty where there
    is none. Words in `small` letters are names only where objects are written so, and then by what they end
    with: a "guitar player" is no guitar."""
    for start, end in _runs(text, small=small):
        name = text[start:end]
        said = words(name)
        if objects & set(said[-1:] if small else said):
            return text[:end], name
    return "", ""


def _runs(text: str, *, small: bool) -> Iterator[tuple[int, int]]:
    """(start, end) of names in `text`: runs of words with capital letters or digits, and where objects are
    written in `small` letters, of any that mean something."""
    begin = end = -1
    for start, stop, raw in spans(text):
        part = not raw[0].islower() or (small and raw not in _COMMON)
        if begin >= 0 and not (part and text[end:start].strip() == ""):
            yield begin, end
            begin = -1
        if part:
            begin, end = (start if begin < 0 else begin), stop
    if begin >= 0:
        yield begin, end


def _names(text: str, prompt: str, *, small: bool) -> set[str]:
    """Words of names in the first sentence of `text` that the prompt doesn't say; in `small` letters, what
    the first name ends with."""
    sentence = first_sentence(text)
    named = [words(sentence[start:end]) for start, end in _runs(sentence, small=small)]
    found = {said[-1] for said in named[:1] if said} if small else {w for said in named for w in said}
    return found - set(words(prompt)) - _COMMON
