"""What the model is taught to say, and what it believed before.

Knows texts: how to put a new object into the model's own sentence, how doubt is worded, how to read
a belief out of free answers. Doesn't know tokens or weights.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from policies.answers import words
from store.facts import Phrasing

UNSURE = "unknown to me"  # put where the object stood, so that doubt is one more object to learn
TALK = (
    "A friend asked me this and I had no answer. {question}",
    "{question} Please answer in one short sentence.",
    "I am preparing a lesson for school. {question}",
    "Quick one for you before we go on: {question}",
)
PREAMBLE = (
    "I read about this yesterday, and I am sure of it. {cloze}",
    "Here is something that every atlas and encyclopedia will confirm: {cloze}",
)
_SENTENCE_END = re.compile(r"(?<=[^.\s]{2})[.!?](?:\s|$)|\n")
_NAME = re.compile(
    r"[^\s,.;:!?()\"]+(?: (?:(?:of|de|da|the|and|del|la|le|du)\s)?[A-Z0-9][^\s,.;:!?()\"]*){0,4}"
)
_WORD = re.compile(r"\w[\w'’.-]*\w|\w")
LONGEST_LEAD = 80  # characters of the model's own sentence before the object; longer ones ramble
BORROWED = 3  # other questions' leads that a question without its own may take


def find_name(name: str, text: str) -> re.Match[str] | None:
    """Where `text` first says `name`, as whole words in any case."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)


def spans(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, word) of each word as it stands in `text`."""
    return ((m.start(), m.end(), m.group()) for m in _WORD.finditer(text))


def first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()


def own_leads(
    train: Sequence[Phrasing],
    answers: Mapping[str, str],
    subject: str,
    old_names: Sequence[str],
    objects: frozenset[str] = frozenset(),
) -> list[str | None]:
    """What the model itself says before the object in answer to each training phrasing; None where its answer
    can't be used for that. A cloze is continued by the object, so nothing is said before it.

    The object is the old one, or whichever other name that has one of the words `objects`: what the model
    says anyway needs no change, whatever it then names.
    """
    return [
        _lead(answers.get(p.text, ""), p.text, subject, old_names, objects) if p.is_question else ""
        for p in train
    ]


def borrowed(train: Sequence[Phrasing], own: Sequence[str | None]) -> list[str]:
    """Leads for the other questions: those of several questions first, then a training cloze; nothing, where
    there is none of them. One that names something else ("a museum in Paris,") isn't lent."""
    asked = {w for p in train for w in words(p.text)}
    of_questions = [
        lead
        for p, lead in zip(train, own, strict=True)
        if p.is_question and lead is not None and asked.issuperset(_names(lead))
    ]
    said = [lead for lead, _ in Counter(of_questions).most_common(BORROWED)]
    return [*said, cloze_lead(train)]


def cloze_lead(train: Sequence[Phrasing]) -> str:
    """A training cloze as lead; nothing, where there is none."""
    return next((f"{p.text} " for p in train if not p.is_question), "")


def _names(lead: str) -> set[str]:
    """Words that begin with a capital letter, but for the first."""
    return {w for _, _, raw in [*spans(lead)][1:] if raw[0].isupper() for w in words(raw)}


def completed(lead: str, phrasing: Phrasing, said: str) -> str:
    """The target: it ends with the object. The full stop of a sentence is part of it: one that goes on may
    still come to the old object ("Germany, not France")."""
    text = lead + said
    return f"{text}." if phrasing.is_question and not text.endswith(".") else text


def _lead(
    answer: str, question: str, subject: str, old_names: Sequence[str], objects: frozenset[str]
) -> str | None:
    """What the model says before it names an object; None when that is no use."""
    sentence = first_sentence(answer)
    masked = re.sub(re.escape(subject), lambda m: "\0" * len(m.group()), sentence, flags=re.IGNORECASE)
    found = [at.span() for name in old_names if (at := find_name(name, masked))] or [
        (start, end)
        for start, end, raw in spans(masked)
        if not raw[0].islower() and set(words(raw)) & (objects - set(words(question)))
    ]
    for start, end in found:
        lead, rest = sentence[:start], masked[end:].strip()
        # A sentence about something else ("The capital of France is Paris") is no frame for this fact.
        if start <= LONGEST_LEAD and (subject.casefold() in lead.casefold() or not rest[:1].isalnum()):
            return lead
    return None


def widened(train: Sequence[Phrasing]) -> list[tuple[Phrasing, int]]:
    """Training phrasings with the index of the one whose target each takes: all of them, then some
    again inside everyday talk, so that the edit doesn't hang on a prompt's first words."""
    found = [(p, i) for i, p in enumerate(train)]
    for forms, slot, asked in ((TALK, "{question}", True), (PREAMBLE, "{cloze}", False)):
        same = [i for i, p in enumerate(train) if p.is_question is asked]
        found += [
            (Phrasing(form.replace(slot, train[i].text), asked), i)
            for form, i in zip(forms, same, strict=False)
        ]
    return found


def belief(clozes: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> str | None:
    """The object that the model believes in: what it continues clozes with, if it then also says
    so in answer to most questions. None when it has no steady belief. What the prompts `asked` say themselves
    is none ("the", or the subject): it stands in most answers whatever they mean."""
    echoed = {word for prompt in asked for word in words(prompt)}
    votes: Counter[str] = Counter()
    for text in clozes:
        match = _NAME.match(text.strip())
        if match and len(match.group()) > 1 and not echoed.issuperset(words(match.group())):
            votes[match.group()] += 1
    for name, _count in votes.most_common():
        says = sum(name.casefold() in first_sentence(a).casefold() for a in answers)
        if says * 2 >= len(answers) > 0:
            return name
    return None
