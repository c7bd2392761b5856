"""What a model answers about other subjects of a relation, as far as the object.

An edit of one subject is most likely to spill over to the others of its relation, and what must stay is
their objects. Answers are therefore asked for until the object should have come, and cut off after it: a
fixed number of tokens either stops short of it ("Alpha Pegasi is a star in the constellation of") or goes on
to talk that nobody asked about. Knows texts and how to ask; doesn't know edits, rows or the bank.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from policies.answers import words
from policies.editing.measure import answers
from policies.editing.model import LanguageModel
from store.facts import Phrasing

QUESTION_TOKENS = 20
CLOZE_TOKENS = 8
_WORD = re.compile(r"\w[\w'’.-]*\w|\w")
_COMMON = frozenset(
    """a an and as at by for from in is it its of on or that the this to was which with""".split()  # noqa: SIM905
)


About = tuple[str, Phrasing, Phrasing]  # a subject, a question and a cloze about it


@dataclass(frozen=True, slots=True)
class Told:
    """An answer about `subject` that ends with an object. `firm`: a cloze about it gave that object too."""

    subject: str
    phrasing: Phrasing
    answer: str
    firm: bool


def ask(
    lm: LanguageModel, asked: Sequence[About], on_batch: Callable[[int], None] = lambda done: None
) -> list[tuple[str, str]]:
    """What the model says to each question and how it ends each cloze."""
    said = answers(lm, [q for _, q, _ in asked], max_new_tokens=QUESTION_TOKENS, on_batch=on_batch)
    return list(zip(said, answers(lm, [c for _, _, c in asked], max_new_tokens=CLOZE_TOKENS), strict=True))


def told(asked: Sequence[About], given: Sequence[tuple[str, str]]) -> list[Told]:
    """Of the answers to questions those that reach an object; firm ones first, else in the order of `asked`.

    An object is what the cloze about the subject goes on with, or clozes about two others; what the question
    says itself is none. Clozes are only asked for that: kept as answers they don't hold those to questions.
    """
    named = [_names(ending, cloze.text) for (_, _, cloze), (_, ending) in zip(asked, given, strict=True)]
    shared = {w for w, n in Counter(w for found in named for w in found).items() if n > 1}
    found: list[Told] = []
    for (subject, question, _), (answer, _), own in zip(asked, given, named, strict=True):
        if cut := as_far_as(answer, (own | shared) - set(words(question.text))):
            found.append(Told(subject, question, cut, bool(set(words(cut)) & own)))
    return sorted(found, key=lambda t: not t.firm)


def asked_about(names: Sequence[str], templates: Sequence[Phrasing]) -> list[About]:
    """(name, question, cloze) for each name, wordings in turn; where a kind is missing the other serves."""
    questions = [t for t in templates if t.is_question] or list(templates)
    clozes = [t for t in templates if not t.is_question] or list(templates)[::-1]
    if not templates:
        return []
    return [
        (name, fill(questions[i % len(questions)], name), fill(clozes[i % len(clozes)], name))
        for i, name in enumerate(names)
    ]


def fill(template: Phrasing, name: str) -> Phrasing:
    return Phrasing(template.text.replace("{subject}", name), template.is_question)


def as_far_as(text: str, objects: set[str]) -> str | None:
    """`text` up to the end of the first name with a word of `objects` in it; None where there is none."""
    end = None
    for start, stop, raw in _spans(text):
        if end is None:
            if set(words(raw)) & objects:
                end = stop
        elif raw[0].isupper() and text[end:start].strip() == "":
            end = stop  # the name goes on: "Mexico City"
        else:
            break
    return None if end is None else text[:end]


def _names(text: str, prompt: str) -> set[str]:
    """Words of `text` that may name an object: capitalised ones and numbers that the prompt doesn't have."""
    begun = {w for raw in _WORD.findall(text) if raw[0].isupper() or raw[0].isdigit() for w in words(raw)}
    return begun - set(words(prompt)) - _COMMON


def _spans(text: str) -> Iterator[tuple[int, int, str]]:
    return ((m.start(), m.end(), m.group()) for m in _WORD.finditer(text))
