"""What the model is taught to say, and what it believed before.

Knows texts: how to put a new object into the model's own sentence, how doubt is worded, how to read
a belief out of free answers. Doesn't know tokens or weights.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

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
LONGEST_LEAD = 60  # characters of the model's own sentence before the object; longer ones ramble


def find_name(name: str, text: str) -> re.Match[str] | None:
    """Where `text` first says `name`, as whole words in any case."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)


def first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()


def new_targets(
    train: Sequence[Phrasing], answers: Mapping[str, str], subject: str, new: str, old_names: Sequence[str]
) -> list[str]:
    """The target of each training phrasing; it ends with the new object.

    A cloze is continued by the object. A question is answered by the model's own sentence with the
    old object swapped for the new one, since what the model says anyway needs no change; where that
    sentence can't be used, by a training cloze completed, else by the object alone. The full stop
    is part of it: a sentence that goes on may still come to the old object ("Germany, not France").
    """
    clozes = [p.text for p in train if not p.is_question]
    fallback = f"{clozes[0]} {new}" if clozes else new
    targets = []
    for phrasing in train:
        if not phrasing.is_question:
            targets.append(new)
            continue
        lead = _lead(answers.get(phrasing.text, ""), subject, old_names)
        said = fallback if lead is None else lead + new
        targets.append(said if said.endswith(".") else said + ".")
    return targets


def _lead(answer: str, subject: str, old_names: Sequence[str]) -> str | None:
    """What the model says before it names the old object; None when that is no use."""
    sentence = first_sentence(answer)
    masked = re.sub(re.escape(subject), lambda m: "\0" * len(m.group()), sentence, flags=re.IGNORECASE)
    for name in old_names:
        found = find_name(name, masked)
        if found and found.start() <= LONGEST_LEAD:
            return sentence[: found.start()]
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
