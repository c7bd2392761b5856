"""Text that doesn't say what it seems to say: damaged, invisible, or in two alphabets at once.

Knows characters. Doesn't know fields or formats. A model reads characters where people see shapes: a
name with a Cyrillic "а" in it, or with a character that nobody sees, is another name to both the model and
the ledger. Not found here: a word that stands wholly in another alphabet, which may be right.
"""

import re
import unicodedata
from typing import NamedTuple

# Control characters (but tab and line breaks), lone surrogates (which UTF-8 and so SQLite can't hold),
# noncharacters, and what decoders put where they couldn't read.
_BROKEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffd-\uffff"
    + "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
# Unicode's default ignorable characters without variation selectors, which emoji and Han names need. Joiners
# belong in Persian, Indic and emoji; beside Latin, Greek, Cyrillic, a digit or nothing they join nothing.
_PLAIN = "\x00-\u052f\\s\u200c\u200d"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e00ff\U0001d173-\U0001d17a]"
    f"|(?:\\A|(?<=[{_PLAIN}]))[\u200c\u200d]|[\u200c\u200d](?=[{_PLAIN}]|\\Z)"
)
# Where a run of combining marks may be. Unicode's stream-safe format allows 30; sorting them takes time that
# grows with the square of their number.
_MARKS = re.compile("[^\\w\\s\x00-\u02ff]{31,}")
MAX_MARKS = 30
_WORD = re.compile("[^\\W\\d_](?:[^\\W\\d_]|[\u0300-\u036f])*")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_OTHERS = {"Greek": re.compile("[\u0370-\u03ff]"), "Cyrillic": re.compile("[\u0400-\u052f]")}
# Letters that print like a Latin one. Small Greek letters are left out, as IFNα and TGFβ are right.
_LIKE_LATIN = frozenset("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο" + "АВЕЅІЈКМНОРСТУХаеѕіјорсухһԛԝѵ")
_LIKE_OTHERS = frozenset("ABEZHIKMNOPTYXo" + "ABESIJKMHOPCTYXaesijopcyxhqwv")


class Flaw(NamedTuple):
    """What is wrong with a text, to be said after the field's name."""

    code: str
    cause: str
    hint: str


def flaw_in_text(text: str) -> Flaw | None:
    """The first character that no text of a fact may hold."""
    if text.isascii() and text.isprintable():
        return None
    if found := _BROKEN.search(text):
        damaged = found.group() == "\ufffd" or "\x7f" <= found.group() <= "\x9f"
        hint = (
            "the text was damaged by a wrong encoding: export it as UTF-8 again" if damaged else "remove it"
        )
        return Flaw("bad_text", f"holds {_named(found)}", hint)
    if found := _INVISIBLE.search(text):
        return Flaw("invisible", f"holds {_named(found)}, which can't be seen", "remove it")
    if any(_longest_marks(run) > MAX_MARKS for run in _MARKS.findall(text)):
        return Flaw("bad_text", f"holds more than {MAX_MARKS} combining marks in a row", "remove them")
    return None


def flaw_in_name(text: str) -> Flaw | None:
    """The first word whose letters only look as if they were of one alphabet."""
    if text.isascii() or not _LATIN.search(text):
        return None
    for word in _WORD.findall(text):
        latin = _LATIN.findall(word)
        for script, letters in _OTHERS.items():
            other = letters.findall(word)
            if latin and other and (stray := _stray(latin, other)):
                cause = f"mixes Latin and {script} letters in the word {word[:60]!r}: {_letter(stray)}"
                return Flaw("mixed_scripts", cause, "type the word in one alphabet")
    return None


def _longest_marks(run: str) -> int:
    longest = count = 0
    for char in run:
        count = count + 1 if unicodedata.combining(char) else 0
        longest = max(longest, count)
    return longest


def _stray(latin: list[str], other: list[str]) -> str:
    """The first letter of those that hide among the others; empty when none do."""
    if _LIKE_LATIN.issuperset(other):
        return other[0]
    return latin[0] if _LIKE_OTHERS.issuperset(latin) else ""


def _named(found: re.Match[str]) -> str:
    return f"{_letter(found.group())} as character {found.start() + 1}"


def _letter(char: str) -> str:
    kinds = {"Cc": "a control character", "Cs": "half a character", "Cn": "no character"}
    name = unicodedata.name(char, kinds.get(unicodedata.category(char), "unnamed"))
    return f"U+{ord(char):04X} ({name})"
