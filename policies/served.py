"""What a serving engine is asked, to tell which generation it serves: facts changed or taken back, a canary.

Knows which questions tell one generation from another, and asks nothing that the generation itself
was seen to answer wrongly. Doesn't know the ledger, engines, or how an answer is fetched.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from policies.answers import find, name_words, words
from store.facts import EditRequest, Op, Reading, Suite

FACTS = 8  # fact questions at most: an engine that passes them and the canary serves the generation
ANSWER_TOKENS = 20  # as long as the answers that gates judge; a longer one may go on to the old object
_OF_FACTS = (Suite.EFFICACY, Suite.PARAPHRASE, Suite.LIVE_FACTS)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for the chat endpoint. The answer must hold one of the names `any_of`, where there are any,
    and none of `none_of`, as whole words. `about` names it in messages, without fact text; `tells` is
    whether the generation before would fail it."""

    about: str
    prompt: str
    any_of: tuple[str, ...]
    none_of: tuple[str, ...] = ()
    tells: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """An edit by its id, with what the editor knew of it and what the model had answered before it."""

    edit: int
    request: EditRequest
    before: str = ""


def questions(
    changed: Iterable[Told], gone: Iterable[Told], others: Iterable[Told], measured: Iterable[Reading]
) -> list[Question]:
    """`FACTS` at most: of facts that the switch `changed`, of those that it took back (`gone`), of `others`.
    `measured` are readings of the generation itself, empty when nobody took any."""
    answered = {a.prompt: a.ok for r in measured if r.suite in _OF_FACTS for a in r.answers}
    found = chain(
        (_of_live(told, answered, tells=True) for told in changed),
        (_of_gone(told) for told in gone),
        (_of_live(told, answered) for told in others),
    )
    return list(islice(filter(None, found), FACTS))


def canary(measured: Iterable[Reading]) -> Question | None:
    """A question unrelated to any edit that was answered with the base's answer; None when there is none."""
    unrelated = (a for r in measured if r.suite is Suite.UNRELATED for a in r.answers if a.ok)
    named = (a for a in unrelated if find(name_words(a.expected), words(a.answer)) >= 0)
    return next((Question("canary", a.prompt, (a.expected,)) for a in named), None)


def _of_live(told: Told, answered: dict[str, bool], *, tells: bool = False) -> Question | None:
    request = told.request
    wording = _wording(request, answered)
    new = () if request.op is Op.RETRACT else _names(request.new, request.new_aliases)
    old = tuple(_telling(wording, new, _names(request.old, request.old_aliases)))
    if not wording or not (new or old):
        return None
    return Question(f"edit {told.edit}", wording, new, old, tells)


def _of_gone(told: Told) -> Question | None:
    """Only that the answer which was taken back is gone: what the model says instead is its own affair."""
    request = told.request
    # The wording whose answer before the edit is known; were the new name in it, it would tell nothing.
    wording = next((p.text for p in request.train if p.is_question), "")
    new = () if request.op is Op.RETRACT else _names(request.new, request.new_aliases)
    if not told.before or any(find(name_words(name), words(told.before)) >= 0 for name in new):
        return None
    gone = tuple(_telling(wording, (), new))
    return (
        Question(f"edit {told.edit}, taken back", wording, (), gone, tells=True) if wording and gone else None
    )


def _wording(request: EditRequest, answered: dict[str, bool]) -> str:
    """The first question that was answered rightly, else the first that nobody asked."""
    asked = [p.text for p in (*request.train, *request.held_out) if p.is_question]
    right = (text for text in asked if answered.get(text))
    return next(right, None) or next((text for text in asked if text not in answered), "")


def _names(name: str | None, aliases: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (name, *aliases))))


def _telling(prompt: str, wanted: Sequence[str], unwanted: Sequence[str]) -> Iterator[str]:
    """The unwanted names that a right answer can't hold: not echoed from the prompt, not part of a wanted
    name ("York" in "New York")."""
    texts = [words(prompt), *map(name_words, wanted)]
    for name in unwanted:
        if name_words(name) and all(find(name_words(name), text) < 0 for text in texts):
            yield name
