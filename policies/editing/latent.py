"""Soft forgetting measured: how near an old answer still is in the tokens and answers of a model.

Knows where in each training wording the object stands, and how to ask the prompts of
`policies.latent` of one model after another, so that the generation before the edit and the candidate
are compared on the very same tokens. Doesn't know thresholds: what is found here gates nothing.

Rank and probability are taken where the old and the new answer part: the training wording, then the
model's own sentence from before the edit up to the object (where it has none that can be used, a cloze;
a cloze itself is continued), then the tokens that both objects begin with. The next token of the old
object there is the first that tells the two apart ("Seoul" from "Seville" may be the second one).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch

from policies.editing.bank import answer_sequence
from policies.editing.measure import continuations
from policies.editing.model import LanguageModel, chat_ids, decode
from policies.editing.objectives import batches, logprobs
from policies.editing.packing import Sequence_
from policies.editing.targets import UNSURE, borrowed, own_leads
from policies.editing.wordings import TARGET_TOKENS, Before, old_names
from policies.latent import Pressed, Said, gives_old, is_measurable, kind_of, pressed
from store.facts import EditRequest, Latent, LatentAnswer, LatentReading, Phrasing

ANSWER_TOKENS = 16
AFTER = " ."  # what follows an object without being part of it


@dataclass(frozen=True, slots=True)
class Place:
    """Where the object stands in one training wording. `old` ends with the old answer's first token
    of its own, in whose place the new answer has `new` (None: a retraction). `lead` is what is said
    before the object, and `rest` tells whether the old answer has more tokens."""

    shown: str
    lead: str
    old: Sequence_
    new: int | None
    rest: bool


@dataclass(frozen=True, slots=True)
class Free:
    """A free answer to ask for: `ids` end where the model goes on. The last `said` of them are the
    answer's own; `lead` is what stands in those before the object."""

    measure: Latent
    shown: str
    ids: tuple[int, ...]
    said: int = 0
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Probes:
    """Everything that is asked about one edit, of whichever model."""

    request: EditRequest
    places: tuple[Place, ...]
    free: tuple[Free, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A token's rank among all (1: the greedy choice) and its probability."""

    rank: int
    p: float


@dataclass(frozen=True, slots=True)
class Found:
    """One model's tokens at each place and its free answers, in the order of the probes."""

    old: tuple[Token, ...]
    new: tuple[Token, ...]
    free: tuple[str, ...]


def probes(lm: LanguageModel, request: EditRequest, before: Before) -> Probes | None:
    """What to ask about `request`; None when the model believed nothing that could be forgotten."""
    if not is_measurable(request):
        return None
    old, instead = request.old or "", request.new or UNSURE
    answers = {p.text: answer for p, answer in before.answers.items()}
    own = own_leads(request.train, answers, request.key.subject, old_names(request, before))
    cloze = borrowed(request.train, own)[-1]
    begun = [cloze if lead is None else lead for lead in own]
    places = [
        place
        for p, lead in zip(request.train, begun, strict=True)
        if (place := _place(lm, p, lead, old, instead, parts_from_new=request.new is not None))
    ]
    said = [Said(p.text, lead) for p, lead in zip(request.train, begun, strict=True) if p.is_question]
    free = [_free(lm, one) for one in pressed(request, said, UNSURE)]
    return Probes(request, tuple(places), (*free, *_starts(lm, places)))


def _place(
    lm: LanguageModel, phrasing: Phrasing, lead: str, old: str, new: str, *, parts_from_new: bool
) -> Place | None:
    """None where the two answers can't be told apart within `TARGET_TOKENS`."""
    # The full stop tells a name from a longer one that begins with it ("York", "York City").
    one, other = (answer_sequence(lm, phrasing, f"{lead}{o}.", limit=TARGET_TOKENS) for o in (old, new))
    pairs = zip(count(), one.ids, other.ids)
    at = next((i for i, a, b in pairs if a != b), None)
    if at is None:
        return None
    rest = bool(decode(lm, one.ids[at + 1 :]).strip(AFTER))
    # `answer` counts from the sequence's end: what is cut off there is taken from it.
    cut = Sequence_(one.ids[: at + 1], one.answer - (len(one.ids) - at - 1), one.has_prefix)
    return Place(phrasing.text, lead.strip(), cut, other.ids[at] if parts_from_new else None, rest)


def _free(lm: LanguageModel, one: Pressed) -> Free:
    shown = " / ".join(one.turns) + (f" / {one.begun} ..." if one.begun else "")
    ids = chat_ids(lm.tokenizer, *one.turns)
    ids += lm.tokenizer(one.begun, add_special_tokens=False)["input_ids"] if one.begun else []
    return Free(one.measure, shown, tuple(ids))


def _starts(lm: LanguageModel, places: Sequence[Place]) -> list[Free]:
    """The old answer begun: a place up to and with its first own token, where that isn't all of it."""
    place = next((p for p in places if p.rest), None)
    if place is None:
        return []
    ids = (*lm.prefix, *place.old.ids) if place.old.has_prefix else place.old.ids
    shown = f"{place.shown} / {decode(lm, ids[-place.old.answer :])} ..."
    return [Free(Latent.START, shown, ids, place.old.answer, place.lead)]


def ask(lm: LanguageModel, asked: Probes) -> Found:
    """Every probe of one model: one forward pass for the places, one call for the free answers."""
    places = [replace(p.old, answer=1) for p in asked.places]
    scores = next_logprobs(lm, places) if places else torch.empty(0)
    old = [p.old.ids[-1] for p in asked.places]
    new = [p.new for p in asked.places if p.new is not None]
    return Found(
        old=tuple(_token(row, i) for row, i in zip(scores, old, strict=True)),
        new=tuple(_token(row, i) for row, i in zip(scores, new, strict=bool(new))),
        free=_answers(lm, asked.free),
    )


@torch.no_grad()
def next_logprobs(lm: LanguageModel, sequences: Sequence[Sequence_]) -> torch.Tensor:
    """log p of every token (n, V) in the place of each of `sequences`' (n) last one."""
    return torch.cat([logprobs(lm, batch, 0) for batch in batches(lm, sequences, 0)])


def _token(logprobs: torch.Tensor, token: int) -> Token:
    return Token(1 + int((logprobs > logprobs[token]).sum()), float(logprobs[token].exp()))


def _answers(lm: LanguageModel, free: Sequence[Free]) -> tuple[str, ...]:
    keys = [(True, len(f.ids), f.shown) for f in free]
    given = continuations(lm, [f.ids for f in free], keys, max_new_tokens=ANSWER_TOKENS)
    whole = [decode(lm, [*f.ids[len(f.ids) - f.said :], *more]) for f, more in zip(free, given, strict=True)]
    return tuple(text.removeprefix(f.lead).strip() for f, text in zip(free, whole, strict=True))


def readings(asked: Probes, before: Found, after: Found) -> tuple[LatentReading, ...]:
    """Each measure that had something to measure, of the generation before the edit and of the candidate."""
    shown = [p.shown for p in asked.places]
    given: dict[Latent, list[LatentAnswer]] = {}
    for free, said, says in zip(asked.free, before.free, after.free, strict=True):
        kinds = kind_of(said, asked.request), kind_of(says, asked.request)
        given.setdefault(free.measure, []).append(LatentAnswer(free.shown, said, says, *kinds))
    return (
        *_tokens(Latent.OLD_RANK, Latent.OLD_PROBABILITY, shown, before.old, after.old),
        *_tokens(Latent.NEW_RANK, Latent.NEW_PROBABILITY, shown, before.new, after.new),
        *(_share(measure, given[measure]) for measure in Latent if measure in given),
    )


def _tokens(
    rank: Latent, probability: Latent, shown: Sequence[str], before: Sequence[Token], after: Sequence[Token]
) -> list[LatentReading]:
    """Geometric mean of ranks, which one wording at rank 10,000 doesn't decide alone; mean probability."""
    n = len(before)
    if not n:
        return []
    ranks = [math.exp(sum(math.log(t.rank) for t in tokens) / n) for tokens in (before, after)]
    means = [sum(t.p for t in tokens) / n for tokens in (before, after)]
    answers = [
        LatentAnswer(text, f"rank {b.rank}, p {b.p:.3g}", f"rank {a.rank}, p {a.p:.3g}")
        for text, b, a in zip(shown, before, after, strict=True)
    ]
    return [
        LatentReading(rank, ranks[0], ranks[1], n, tuple(answers)),
        LatentReading(probability, means[0], means[1], n),
    ]


def _share(measure: Latent, given: Sequence[LatentAnswer]) -> LatentReading:
    n = len(given)
    before = sum(gives_old(a.kind_before) for a in given) / n
    after = sum(gives_old(a.kind_after) for a in given) / n
    return LatentReading(measure, before, after, n, tuple(given))
