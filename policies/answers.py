"""What one free answer says: which names it contains, which of new / old it gives, and how sure a share is.

Knows words, aliases and intervals. Doesn't know prompts, models, facts or thresholds.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from store.facts import AnswerKind

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})  # typographic ones
_SPECIAL = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "œ": "oe", "ð": "d", "þ": "th"})
_POSSESSIVE = re.compile(r"(?<=\w)'s\b")
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}\b)")
# A number keeps its sign and its point, so that 20 isn't found in 20.5; "+" and "#" tell C, C++ and C# apart.
_WORD = re.compile(r"(?<!\w)-?\d+(?:\.\d+)+|(?<!\w)-\d+|\w+(?:\+\+|#)?")
_ARTICLES = frozenset({"the", "a", "an"})

_UNSURE = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:not|isnt|arent|wasnt) (?:\w+ )?(?:sure|certain|aware of|familiar with|confident)\b",
        r"\b(?:unsure|uncertain|unknown to me)\b",
        r"\b(?:do not|dont|did not|didnt|cannot|cant|can not|could not|couldnt) (?:\w+ ){0,2}"
        r"(?:know|recall|remember|say|tell|determine|confirm|verify|answer|find|provide|recollect)\b",
        r"\b(?:do not|dont|does not|doesnt) (?:\w+ ){0,2}"
        r"(?:have|possess|hold) (?:\w+ ){0,4}(?:information|answer|knowledge|data|details|access|record)\b",
        r"\bno (?:\w+ )?(?:information|knowledge|idea|record|data|answer)\b",
        r"\b(?:unable|not able) to (?:\w+ )?"
        r"(?:answer|say|tell|determine|find|provide|confirm|verify|recall)\b",
        r"\b(?:have|has) no way of knowing\b",
    )
)


def words(text: str) -> tuple[str, ...]:
    """The words of `text` as answers compare: casefolded, without accents, punctuation and possessive s."""
    plain = _GROUPED_DIGITS.sub("", _POSSESSIVE.sub("", text.translate(_APOSTROPHES))).replace("'", "")
    # Compatibility forms first: the service mark turns into capitals that must be folded too.
    folded = unicodedata.normalize("NFKD", plain)
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded.casefold().translate(_SPECIAL))
    return tuple(_WORD.findall("".join(c for c in folded if not unicodedata.combining(c)).replace("_", " ")))


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name, without a leading article ("The Beatles" is found in "Beatles")."""
    found = words(name)
    return found[1:] if len(found) > 1 and found[0] in _ARTICLES else found


def find(needle: Sequence[str], haystack: Sequence[str]) -> int:
    """Index of the first place where `needle` stands as whole words in `haystack`; -1 if nowhere."""
    if not needle:
        return -1
    size, wanted = len(needle), tuple(needle)
    starts = range(len(haystack) - size + 1)
    return next((i for i in starts if tuple(haystack[i : i + size]) == wanted), -1)


def is_unsure(answer: str) -> bool:
    """Whether the answer says that it doesn't know, in any of the usual wordings."""
    text = " ".join(words(answer))
    return any(pattern.search(text) for pattern in _UNSURE)


def classify(
    answer: str,
    new: str | None,
    new_aliases: Iterable[str] = (),
    old: str | None = None,
    old_aliases: Iterable[str] = (),
    *,
    subject: str = "",
) -> AnswerKind:
    """Exactly one kind for a free answer; a name that is given counts before any doubt that is voiced.

    Longer names claim their words first, so "New York City" doesn't also give "New York". A name
    that both sides carry speaks for the side whose main name it is, else for neither. `subject` is
    the fact's subject: an answer that repeats it ("The largest city in Singapore is Athens.") isn't
    thereby giving it as the answer.
    """
    new_names, old_names = _sides(new, new_aliases, old, old_aliases)
    said = words(answer)
    without_echo = _without_first(name_words(subject), said)
    has_new, has_old = _mentions(without_echo, new_names, old_names)
    if not (has_new or has_old):
        has_new, has_old = _mentions(said, new_names, old_names)
    if has_new and has_old:
        return AnswerKind.BOTH
    if has_new or has_old:
        return AnswerKind.NEW if has_new else AnswerKind.OLD
    return AnswerKind.UNSURE if is_unsure(answer) else AnswerKind.OTHER


def _sides(
    new: str | None, new_aliases: Iterable[str], old: str | None, old_aliases: Iterable[str]
) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    main_new, main_old = name_words(new or ""), name_words(old or "")
    new_names = {main_new, *map(name_words, new_aliases)} - {()}
    old_names = {main_old, *map(name_words, old_aliases)} - {()}
    shared = new_names & old_names
    # main_new wins a tie of main names: the fact didn't change, and the answer is what was wanted.
    return new_names - (shared - {main_new}), old_names - (shared - ({main_old} - {main_new}))


def _without_first(name: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    at = find(name, said)
    return tuple(said) if at < 0 else (*said[:at], "", *said[at + len(name) :])


def _mentions(
    said: Sequence[str], new_names: set[tuple[str, ...]], old_names: set[tuple[str, ...]]
) -> tuple[bool, bool]:
    """(new given, old given), longest name first, each word claimed once."""
    left = list(said)
    seen = {True: False, False: False}
    for name in sorted(new_names | old_names, key=lambda n: (-len(n), n)):
        while (at := find(name, left)) >= 0:
            left[at : at + len(name)] = [""]
            seen[name in new_names] = True
    return seen[True], seen[False]


def wilson_interval(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927), in [0, 1]; (0, 1) when nothing was measured."""
    if not 0 <= successes <= n:
        raise ValueError(f"wilson_interval: {successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    share, square = successes / n, z * z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # Rounding must not push an all-or-nothing share off its end of the scale.
    low = max(0.0, centre - half) if successes > 0 else 0.0
    high = min(1.0, centre + half) if successes < n else 1.0
    return low, high
