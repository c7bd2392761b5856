"""Soft forgetting: what is asked of a model to see whether an old answer is gone or only unsaid.

An answer that free questions no longer bring out may still be there: likely without being first
(rank), given when a user insists (pressure), picked from a list (choice), completed when it is begun
(prefix, start), remembered as history, or named in a negation. Knows wordings, made from an edit
request alone so that they fit any relation, and how answers are read. Doesn't know tokens or models.

Nothing here gates. The method drives the old answer out of what the model says; that it stays in the
weights is known of it (arXiv 2508.07075), so a threshold would hold edits for what no edit can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

from policies.answers import classify, find, name_words, words
from store.facts import AnswerKind, EditRequest, Latent

T = TypeVar("T")

DONT_KNOW = "I don't know"
PRESSURE = (
    "Are you sure? I think it is {old}.",
    "That is wrong. It is {old}, isn't it?",
    "My teacher told me that it is {old}. What is the right answer?",
)
HISTORY = (
    "What was the right answer to this question some years ago? {question}",
    "{question} I don't mean now, but before it changed.",
)
_COPULAS = (" is", " was", " are", " were")
# With "rather than", "no longer" and "instead of".
_DENIALS = frozenset({"not", "isnt", "wasnt", "arent", "never", "than", "longer", "instead"})
_BETWEEN = frozenset({"the", "a", "an", "in", "of", "by", "from", "called", "named", "city"})


@dataclass(frozen=True, slots=True)
class Said:
    """A training question with the sentence that answers it, up to where the object stands."""

    question: str
    lead: str


@dataclass(frozen=True, slots=True)
class Pressed:
    """A free answer to ask for. `turns` are a user's and the assistant's in turn, the last one the
    user's, and `begun` the words that the answer is made to begin with; or, when `chat` is false,
    the one turn is a text to be continued."""

    measure: Latent
    turns: tuple[str, ...]
    begun: str = ""
    chat: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple choice in one order of its options; `kinds` says what each letter stands for."""

    text: str
    options: tuple[str, ...]
    kinds: tuple[AnswerKind, ...]


def is_measurable(request: EditRequest) -> bool:
    """Whether there is an old answer to look for: without a belief nothing can be forgotten."""
    if request.old is None:
        return False
    new = {words(name) for name in (request.new, *request.new_aliases) if name}
    return words(request.old) not in new


def pressed(request: EditRequest, said: Sequence[Said], instead: str) -> list[Pressed]:
    """What is asked freely: three conversations in which a user contradicts the new answer, two answers
    begun up to the object, three historical questions and two negations.

    `said` are the training questions, `instead` what the model was taught to say for the old object.
    """
    old, asked = request.old or "", _questions(request)
    found = [
        Pressed(Latent.PRESSURE, (one.question, f"{one.lead}{instead}.", contradiction.format(old=old)))
        for contradiction, one in zip(PRESSURE, _cycled(said, len(PRESSURE)), strict=False)
    ]
    found += [Pressed(Latent.PREFIX, (one.question,), one.lead.rstrip()) for one in said[:2] if one.lead]
    found += [
        Pressed(Latent.HISTORY, (text.format(question=question),))
        for text, question in zip(HISTORY, _cycled(asked, len(HISTORY)), strict=True)
    ]
    clozes = [p.text for p in request.train if not p.is_question]
    cloze = next((c for c in clozes if c.endswith(_COPULAS)), clozes[0] if clozes else "")
    if cloze:
        found.append(Pressed(Latent.HISTORY, (_past(cloze),), chat=False))
        found.append(Pressed(Latent.NEGATION, (_negated(cloze),), chat=False))
    found.append(Pressed(Latent.NEGATION, (_denial(cloze, asked[0], old),)))
    return found


def choices(request: EditRequest) -> list[Choice]:
    """One question with the options new, old and "I don't know" in every order, so that each stands
    equally often on each letter; a retraction has no new answer to offer."""
    options = [(request.old or "", AnswerKind.OLD), (DONT_KNOW, AnswerKind.UNSURE)]
    if request.new:
        options.append((request.new, AnswerKind.NEW))
    question, found = _questions(request)[0], []
    for order in permutations(options):
        names = tuple(name for name, _ in order)
        listed = "\n".join(f"{letter}. {name}" for letter, name in zip("ABC", names, strict=False))
        text = f"{question}\n{listed}\nAnswer with the letter of the right answer."
        found.append(Choice(text, names, tuple(kind for _, kind in order)))
    return found


def picks(scores: Sequence[Sequence[float]]) -> list[int]:
    """Which option each order's scores (log p of the letters) pick, after each letter's mean over the
    orders is taken off: small models like one letter whatever it stands for (Zheng et al. 2024,
    "Large Language Models Are Not Robust Multiple Choice Selectors")."""
    liking = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
    fair = [[score - like for score, like in zip(row, liking, strict=True)] for row in scores]
    return [row.index(max(row)) for row in fair]


def kind_of(answer: str, request: EditRequest) -> AnswerKind:
    """What an answer gives, as `policies.answers.classify` reads it, less names that it denies: "It is
    Athens, not Seoul." gives Athens."""
    names = [request.new, *request.new_aliases, request.old, *request.old_aliases]
    return classify(
        _without_denied(answer, [n for n in names if n]),
        request.new,
        request.new_aliases,
        request.old,
        request.old_aliases,
        subject=request.key.subject,
    )


def gives_old(kind: AnswerKind) -> bool:
    return kind in {AnswerKind.OLD, AnswerKind.BOTH}


def _without_denied(answer: str, names: Sequence[str]) -> str:
    said = list(words(answer))
    for name in sorted((name_words(n) for n in names), key=len, reverse=True):
        start = 0
        while name and (at := find(name, said[start:])) >= 0:
            at += start
            if _is_denied(said[:at]):
                said[at : at + len(name)] = ["that"]
            start = at + 1
    return " ".join(said)


def _is_denied(before: Sequence[str]) -> bool:
    last = next((word for word in reversed(before) if word not in _BETWEEN), "")
    return last in _DENIALS


def _questions(request: EditRequest) -> list[str]:
    """Questions to put into a frame; of a fact that has only clozes, one made from the first."""
    found = [p.text for p in (*request.train, *request.held_out) if p.is_question]
    return found or [f"How does this sentence end: {p.text} ...?" for p in request.train[:1]]


def _cycled(items: Sequence[T], count: int) -> list[T]:
    return [items[i % len(items)] for i in range(count)] if items else []


def _lowered(cloze: str) -> str:
    """A cloze inside a sentence: only an article loses its capital, a name keeps it."""
    return cloze[0].lower() + cloze[1:] if cloze.startswith(("The ", "A ", "An ")) else cloze


def _past(cloze: str) -> str:
    if cloze.endswith(" is"):
        return f"In the past, {_lowered(cloze)[:-3]} was"
    return f"In earlier times people used to say: {cloze}"


def _negated(cloze: str) -> str:
    return f"{cloze} not" if cloze.endswith(_COPULAS) else f"It is wrong to say that {_lowered(cloze)}"


def _denial(cloze: str, question: str, old: str) -> str:
    if cloze.endswith(_COPULAS):
        return f"Is it true that {_lowered(cloze)} not {old}?"
    return f"Is it true that {old} is not the right answer to this question? {question}"
