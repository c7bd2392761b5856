"""Characters that make a name another one than people see, and names that are one."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.facts import FactKey
from store.names import fold
from store.spelling import MAX_MARKS, flaw_in_name, flaw_in_text
from store.toml import read_toml

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@given(TEXT)
def test_folding_is_done_once_and_knows_no_normal_forms(text: str) -> None:
    """Whatever normal form a name comes in, its key is the same, and folding that changes nothing."""
    folded = fold(text)
    assert fold(folded) == folded
    assert {fold(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {folded}
    assert FactKey(text, text).folded() == FactKey(folded, folded)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Peru", "ｐｅｒｕ", True),
        ("fish", "ﬁsh", True),
        ("Henry IV", "Henry Ⅳ", True),
        ("Paris", "𝐏𝐚𝐫𝐢𝐬", True),
        ("STRASSE", "Straße", True),
        ("ΐ", "Ϊ́", True),
        ("10⁵", "105", False),
        ("½", "1/2", False),
        ("①", "1", False),
        ("Paris", "Pаris", False),
    ],
)
def test_shapes_of_one_name_are_one_key(one: str, other: str, same: bool) -> None:
    """Width, ligatures, fonts and case make no difference; what means something else does."""
    assert (fold(one) == fold(other)) is same


@pytest.mark.parametrize("text", ["IFNα", "TGFβ1", "Δt", "KoЯn", "Яндекс Go", "Café", "Ελλάδα", "µm"])
def test_honest_mixtures_pass(text: str) -> None:
    """Greek in science, two scripts in two words and letters that look like nothing else are names."""
    assert flaw_in_name(text) is None
    assert flaw_in_text(text) is None


@pytest.mark.parametrize("text", ["Pаris", "Mосква", "Αthens", "COVID-19 в CОVID", "аpple"])
def test_hidden_letters_are_named(text: str) -> None:
    """A word with letters of another alphabet that look like its own is refused, and the letter named."""
    flaw = flaw_in_name(text)
    assert flaw is not None
    assert flaw.code == "mixed_scripts"
    assert "U+" in flaw.cause


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\u200bb", "invisible"), ("\u202eabc", "invisible"), ("a\u200d", "invisible"),
        ("\ufeffa", "invisible"),
        ("a\x00", "bad_text"), ("a\x85b", "bad_text"), ("\ud800", "bad_text"), ("\U0001fffe", "bad_text"),
        ("a\ufffd", "bad_text"), ("a" + "\u0301" * (MAX_MARKS + 1), "bad_text"),
        ("می‌خواهم", None), ("👩‍🔬", None), ("❤️", None), ("a\tb\nc", None), ("a" + "\u0301" * MAX_MARKS, None),
        ("—" * 99, None),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_refused(text: str, code: str | None) -> None:
    """Controls, damage and invisible characters are flaws; joiners where a script needs them aren't."""
    flaw = flaw_in_text(text)
    assert (flaw and flaw.code) == code


def test_toml_that_python_chokes_on_is_a_value_error() -> None:
    """Depth and digits beyond the interpreter's limits say so; a byte order mark is no fault."""
    assert read_toml("\ufeffa = 1") == {"a": 1}
    with pytest.raises(ValueError, match="nested too deeply"):
        read_toml("a = " + "[" * 5_000)
    with pytest.raises(ValueError, match="thousands of digits"):
        read_toml("a = " + "9" * 5_000)
    with pytest.raises(ValueError, match="line 1, column 5"):
        read_toml("a = \n")
