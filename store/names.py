"""Names as they are written down and as they compare.

Knows Unicode's normal forms. Doesn't know what a name names, or which characters it may hold
(`store.spelling`).
"""

import unicodedata

# Kinds of compatibility characters that are another shape of the same text: full width, ligatures, fonts.
# Not superscripts, fractions and circled digits: 10⁵ isn't 105.
_SHAPES = frozenset({
    "<wide>", "<narrow>", "<compat>", "<noBreak>", "<font>", "<initial>", "<medial>", "<final>", "<isolated>",
})  # fmt: skip


def normalise(text: str) -> str:
    """NFC, white space folded to single spaces and stripped: how names are written down."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """How names compare: normalised, without case, and whatever shape their letters have. What only
    looks alike (Cyrillic and Latin) stays apart."""
    text = normalise(text)
    if text.isascii():
        return text.casefold()
    if not unicodedata.is_normalized("NFKC", text):
        text = normalise("".join(map(_shapeless, text)))
    return unicodedata.normalize("NFC", text.casefold())


def _shapeless(char: str) -> str:
    shape = unicodedata.decomposition(char).partition(" ")[0]
    return unicodedata.normalize("NFKC", char) if shape in _SHAPES else char
