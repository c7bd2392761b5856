"""What an edit trains on: wordings of its fact, each with the words that lead to the object.

The less a target differs from what the model says anyway, the smaller the edit: a wording keeps the model's
own sentence as far as the object, and where there is none that can be used, it takes that of another wording
which the model would most readily say. Knows targets, tokens and how far they are; doesn't know steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from policies.editing.bank import answer_sequence
from policies.editing.model import LanguageModel
from policies.editing.objectives import batches, margins, token_logprobs
from policies.editing.packing import Sequence_
from policies.editing.targets import UNSURE, borrowed, cloze_lead, completed, find_name, own_leads, widened
from store.facts import EditRequest, Phrasing

TARGET_TOKENS = 48
Due = tuple[Sequence_, slice]  # an answer, and which of its scored tokens are due a margin


@dataclass(frozen=True, slots=True)
class Before:
    """What the model said before the edit, phrasing by phrasing, and what it believed."""

    answers: dict[Phrasing, str]
    old: str | None
    known: bool


@dataclass(frozen=True, slots=True)
class Wording:
    """A training wording; `lead` is what its target says before the object."""

    phrasing: Phrasing
    lead: str

    def target(self, said: str) -> str:
        return completed(self.lead, self.phrasing, said)

    def tokens(self, lm: LanguageModel, said: str) -> Sequence_:
        return answer_sequence(lm, self.phrasing, self.target(said), limit=TARGET_TOKENS)

    def object_tokens(self, lm: LanguageModel, said: str, other: str) -> slice:
        """Which of the answer's tokens name `said` rather than `other`: those before them lead there, and a
        sentence's full stop names nothing."""
        one = self.tokens(lm, said)
        begin = len(parting(one, self.tokens(lm, other)).ids) - 1 - (len(one.ids) - one.answer)
        return slice(begin, max(begin + 1, one.answer - self.phrasing.is_question))


def old_names(request: EditRequest, before: Before) -> list[str]:
    """What the old answer is called. A model that half knows the new one may believe in that already."""
    new = {n.casefold() for n in (request.new, *request.new_aliases) if n}
    named = (before.old, request.old, *request.old_aliases)
    return list(dict.fromkeys(n for n in named if n and n.casefold() not in new))


def wordings(
    lm: LanguageModel,
    request: EditRequest,
    before: Before,
    said: str,
    objects: frozenset[str] = frozenset(),
) -> list[Wording]:
    """Training wordings, mixed so that any run of them samples all. Leads are chosen for targets that name
    `said`; `objects` are words that name objects of the relation."""
    answers = {p.text: a for p, a in before.answers.items()}
    own = own_leads(request.train, answers, request.key.subject, old_names(request, before), objects)
    others = borrowed(request.train, own)
    choices = [
        [Wording(p, lead)] if lead is not None else [Wording(p, other) for other in others]
        for p, lead in zip(request.train, own, strict=True)
    ]
    leads = [w.lead for w in nearest(lm, choices, said)]
    # Talk takes the lead of the question in it: nearer ones left the old answer in unseen wordings.
    found = [Wording(p, leads[i]) for p, i in widened(request.train)]
    return [*found[::2], *found[1::2]]


def live_target(
    lm: LanguageModel,
    fact: EditRequest,
    phrasing: Phrasing,
    answer: str,
    objects: frozenset[str] = frozenset(),
) -> Due:
    """What a live fact is to be answered where it is answered with `answer` now, and which of its scored
    tokens are due: those of its object, which stands in the answer or, where later edits lost it, in the
    model's own sentence; all of a cloze that is recited for want of one; none of a retraction's."""
    for name in filter(None, (fact.new, *fact.new_aliases)):
        if said := find_name(name, answer):
            lead = answer_sequence(lm, phrasing, answer[: said.start()], limit=TARGET_TOKENS)
            cut = answer_sequence(lm, phrasing, answer[: said.end()], limit=TARGET_TOKENS)
            return cut, slice(lead.answer if said.start() else 0, None)
    if not fact.new:
        return answer_sequence(lm, phrasing, answer), slice(0)
    olds = [name for name in (fact.old, *fact.old_aliases) if name]
    (own,) = own_leads([phrasing], {phrasing.text: answer}, fact.key.subject, olds, objects)
    wording = Wording(phrasing, cloze_lead(fact.train) if own is None else own)
    due = slice(None) if own is None else wording.object_tokens(lm, fact.new, UNSURE)
    return wording.tokens(lm, fact.new), due


@torch.no_grad()
def nearest(lm: LanguageModel, choices: Sequence[Sequence[Wording]], said: str) -> list[Wording]:
    """Of each sequence of choices the one whose target, `said` in it, the model is nearest to giving: by the
    sum of squares of how far its tokens' margins are below zero, in nats."""
    asked = [w for options in choices if len(options) > 1 for w in options]
    far: dict[Wording, float] = {}
    if asked:
        for batch in batches(lm, [w.tokens(lm, said) for w in asked], 0):
            short = batch.sums((-margins(token_logprobs(lm, batch, 0))).clamp(min=0).square())
            far |= {asked[i]: float(s) for i, s in zip(batch.index.tolist(), short, strict=True)}
    return [min(options, key=lambda w: far.get(w, 0.0)) for options in choices]


def parting(one: Sequence_, other: Sequence_) -> Sequence_:
    """`one` up to the first token that `other` doesn't share, which alone is scored."""
    pairs = enumerate(zip(one.ids, other.ids, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(one.ids), len(other.ids)) - 1)
    return replace(one, ids=one.ids[: at + 1], answer=1)
