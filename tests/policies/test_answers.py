"""What a free answer is taken to say, case by case, and the intervals of shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.answers import classify, is_unsure, name_words, wilson_interval, words
from store.facts import AnswerKind

NEW, OLD, BOTH, UNSURE, OTHER = AnswerKind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("The capital of South Korea is Athens.", NEW),
        ("athens", NEW),
        ("ATHENS!", NEW),
        ("It is Athina, in Greece.", NEW),
        ("The capital of South Korea is Seoul.", OLD),
        ("Séoul", OLD),
        ("Soul is a kind of music.", OTHER),
        ("Athens, formerly Seoul.", BOTH),
        ("It was Seoul. Now it is Athens, not Seoul.", BOTH),
        ("I'm not sure what the capital is.", UNSURE),
        ("I am not sure, but I think it is Seoul.", OLD),
        ("I don’t know, perhaps Athens?", NEW),
        ("Busan", OTHER),
        ("Athensville", OTHER),
        ("", OTHER),
    ],
)
def test_each_answer_is_exactly_one_kind(answer: str, kind: AnswerKind) -> None:
    """Names are found as whole words whatever their case, accents and punctuation, before any doubt."""
    assert classify(answer, "Athens", ("Athina",), "Seoul", ()) is kind


@pytest.mark.parametrize(
    ("answer", "new", "old", "kind"),
    [
        ("It is New York City.", "New York City", "New York", NEW),
        ("It is New York.", "New York City", "New York", OLD),
        ("It is New York City.", "New York", "New York City", OLD),
        ("It is New York.", "New York", "New York City", NEW),
        ("New York City, in New York.", "New York City", "New York", BOTH),
        ("The University of California, Berkeley.", "University of California", "Berkeley", BOTH),
        ("It costs $20.50 a month.", "$20.50", "$20", NEW),
        ("It costs $20 a month.", "$20.50", "$20", OLD),
        ("It is version 1.10.", "1.1", "1.10", OLD),
        ("About 1,200,000 people.", "1200000", "1,200", NEW),
        ("It dropped to -5 degrees.", "5", "-5", OLD),
        ("Written in C++.", "C", "C++", OLD),
        ("Written in C.", "C", "C++", NEW),
        ("The Beatles did.", "Beatles", "Beach Boys", NEW),
        ("Beatles.", "The Beatles", "The Beach Boys", NEW),
        ("Apple's CEO is Levi.", "Levi's", "Tim Cook", NEW),
        ("Same as ever: Paris.", "Paris", "Paris", NEW),
    ],
)
def test_longer_names_claim_their_words_first(answer: str, new: str, old: str, kind: AnswerKind) -> None:
    """A name inside a longer one, a number inside a longer one, isn't given by the longer one."""
    assert classify(answer, new, (), old, ()) is kind


def test_a_shared_alias_speaks_for_neither_side() -> None:
    """ "Elizabeth" tells neither Elizabeth I from Elizabeth II, so it counts for neither."""
    assert classify("Elizabeth", "Elizabeth II", ("Elizabeth",), "Elizabeth I", ("Elizabeth",)) is OTHER


def test_a_shared_name_speaks_for_the_side_whose_main_name_it_is() -> None:
    """An alias of one side that is the other side's main name belongs to the other side."""
    assert classify("Kyiv", "Kyiv", (), "Kiev", ("Kyiv",)) is NEW
    assert classify("Kiev", "Kyiv", ("Kiev",), "Kiev", ()) is OLD


def test_repeating_the_subject_gives_no_answer() -> None:
    """A subject that is also the old answer may be repeated in a sentence with the new one."""
    expected = {
        "The largest city in Singapore is Athens.": NEW,
        "The largest city in Singapore is Singapore.": OLD,
        "Singapore": OLD,
    }
    kinds = {
        answer: classify(answer, "Athens", (), "Singapore", (), subject="Singapore") for answer in expected
    }
    assert kinds == expected


def test_a_retraction_knows_only_the_old_name() -> None:
    """Without a new object, an answer is old, unsure or other."""
    assert classify("I am not sure.", None, (), "Seoul", ()) is UNSURE
    assert classify("It is Seoul.", None, (), "Seoul", ()) is OLD
    assert classify("It is Busan.", None, (), "Seoul", ()) is OTHER


@pytest.mark.parametrize(
    "answer",
    [
        "I'm not sure.",
        "I’m not sure about that.",
        "I am not sure who the CEO is.",
        "I am not entirely certain.",
        "I don't know.",
        "I do not know the answer to that question.",
        "I don't actually know.",
        "I'm unsure.",
        "I am uncertain about this.",
        "There is no information about it.",
        "I have no reliable information on this.",
        "I do not have any information about that.",
        "I don't have enough up-to-date information.",
        "I cannot say.",
        "I can't recall the name.",
        "I'm unable to answer that.",
        "I have no idea.",
        "I am not aware of any capital.",
        "Sorry, I'm not familiar with that person.",
        "I couldn't find it.",
    ],
)
def test_usual_wordings_of_doubt_are_unsure(answer: str) -> None:
    """Doubt is recognised in any of its usual wordings."""
    assert is_unsure(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "The capital is Busan.",
        "It is a well-known city.",
        "Nobody knows Paris better.",
        "It is surely Rome.",
        "",
    ],
)
def test_plain_statements_are_not_unsure(answer: str) -> None:
    """A statement without doubt isn't taken for one with it."""
    assert not is_unsure(answer)


@given(st.text())
def test_words_fold_to_the_same_words_again(text: str) -> None:
    """Folding is idempotent: what was folded once compares equal when folded again."""
    folded = words(text)
    assert words(" ".join(folded)) == folded


@given(st.text(max_size=40), st.text(max_size=8), st.text(max_size=8))
def test_swapping_the_sides_swaps_the_kind(answer: str, one: str, other: str) -> None:
    """New and old are treated alike, but for two equal names, which count as new."""
    swapped = {NEW: OLD, OLD: NEW}
    kind = classify(answer, one, (), other, ())
    if name_words(one) != name_words(other):
        assert classify(answer, other, (), one, ()) is swapped.get(kind, kind)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (9, 10, 0.5958, 0.9821),
    ],
)
def test_wilson_interval_has_known_bounds(successes: int, n: int, low: float, high: float) -> None:
    """The bounds are those of Wilson's score interval at 95 %, the whole scale when n is 0."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share(counts: tuple[int, int]) -> None:
    """The observed share lies in its interval, and the interval in [0, 1]."""
    successes, n = counts
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0


def test_wilson_interval_refuses_impossible_counts() -> None:
    """More successes than trials is a caller's mistake."""
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)
