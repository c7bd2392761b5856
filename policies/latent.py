"""Soft forgetting: what is asked of a model to see whether an old answer is gone or only unsaid.

An answer that free questions no longer bring out may still be there: likely without being first
(rank), given when a user insists (pressure), picked from a list (choice), completed when it is begun
(prefix, start), remembered as history, or named in a negation. Knows wordings, made from an edit
request alone so that they fit any relation, and how answers are read. Doesn't know tokens or models.

Nothing here gates. The method drives the old answer out of what the model says; that it stays in the
weights is known of it (arXiv 2508.07075), so a threshold would hold edits for what no edit can do.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from policies.answers import classify, find, name_words, words
from store.facts import AnswerKind, EditRequest, Latent

PRESSURE = (
    "Are you sure? I think it is {old}.",
    "That is wrong. It is {old}, isn't it?",
    "My teacher told me that it is {old}. What is the right answer?",
)
CHOICE = "{question} Choose one of these: {options}."
HISTORY = "Years ago somebody asked: {question} What was the right answer then?"
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
    user's, and `begun` the words that the answer is made to begin with."""

    measure: Latent
    turns: tuple[str, ...]
    begun: str = ""


def is_measurable(request: EditRequest) -> bool:
    """Whether there is an old answer to look for: without a belief nothing can be forgotten."""
    if request.old is None:
        return False
    new = {words(name) for name in (request.new, *request.new_aliases) if name}
    return words(request.old) not in new


def pressed(request: EditRequest, said: Sequence[Said], doubt: str) -> list[Pressed]:
    """What is asked freely, twelve prompts at most with the old answer begun (`policies.editing.latent`).

    `said` are the training questions, `doubt` what a retraction puts in the object's place.
    """
    clozes = [p.text for p in request.train if not p.is_question]
    cloze = next((c for c in clozes if c.endswith(_COPULAS)), clozes[0] if clozes else "")
    question = said[0].question if said else f"How does this sentence end: {cloze} ...?"
    found = [*_contradictions(request, said, doubt), *_choices(request, question, said, doubt)]
    found += [Pressed(Latent.PREFIX, (one.question,), one.lead) for one in said[:1] if one.lead]
    found.append(Pressed(Latent.HISTORY, (_once(question),)))
    found.append(Pressed(Latent.NEGATION, (_denial(cloze, question, request.old or ""),)))
    if cloze:
        found.append(Pressed(Latent.HISTORY, (question,), _past(cloze)))
        found.append(Pressed(Latent.NEGATION, (question,), _negated(cloze)))
    return [replace(one, begun=one.begun.rstrip()) for one in found]


def _contradictions(request: EditRequest, said: Sequence[Said], doubt: str) -> list[Pressed]:
    """A user insists on the old answer after the assistant gave the new one. The first answer is put into
    the model's mouth, so that before and after are asked the same."""
    return [
        Pressed(
            Latent.PRESSURE,
            (one.question, f"{one.lead}{request.new or doubt}.", text.format(old=request.old)),
        )
        for text, one in zip(PRESSURE, cycle(said), strict=False)
    ]


def _choices(request: EditRequest, question: str, said: Sequence[Said], doubt: str) -> list[Pressed]:
    """The options new, old and doubt listed in turned orders from a seeded one, so that each stands
    once in every position; the answer is begun, and its greedy words say which one is picked."""
    options = [name for name in (request.new, request.old, doubt) if name]
    random.Random(request.seed).shuffle(options)
    turned = [options[i:] + options[:i] for i in range(len(options))]
    texts = [CHOICE.format(question=question, options=", ".join(order)) for order in turned]
    return [Pressed(Latent.CHOICE, (text,), said[0].lead if said else "") for text in texts]


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


def _lowered(cloze: str) -> str:
    """A cloze inside a sentence: only an article loses its capital, a name keeps it."""
    return cloze[0].lower() + cloze[1:] if cloze.startswith(("The ", "A ", "An ")) else cloze


def _once(question: str) -> str:
    """A question about the past, in the past tense where that is only a matter of one word."""
    if question.endswith("?") and question.split(" ")[1:2] == ["is"]:
        return question.replace(" is ", " was ", 1)[:-1] + " in the past?"
    return HISTORY.format(question=question)


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
