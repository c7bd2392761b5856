"""The shipped probes and texts are well formed, and no fact is ever in two of bank, gate and report."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.answers import words
from policies.probes import (
    Probe,
    apart_from,
    fact_hash,
    load_probes,
    load_texts,
    matches,
    parse_probes,
    split,
)
from store.errors import ConfigError

# As an answer, each of these would be found in almost any sentence.
TOO_COMMON = frozenset(
    {
        "a",
        "an",
        "the",
        "i",
        "he",
        "be",
        "as",
        "in",
        "is",
        "it",
        "to",
        "of",
        "on",
        "or",
        "so",
        "no",
        "one",
        "we",
    }
)


@pytest.fixture(scope="module")
def probes() -> tuple[Probe, ...]:
    return load_probes()


def test_many_probes_over_many_domains_ship(probes: tuple[Probe, ...]) -> None:
    """There are at least 1,800 facts in at least 16 domains, none of which has fewer than 25."""
    sizes = Counter(probe.domain for probe in probes)
    assert len(probes) >= 1800
    assert len(sizes) >= 16
    assert min(sizes.values()) >= 25


def test_ids_and_questions_are_unique(probes: tuple[Probe, ...]) -> None:
    """No id and no question occurs twice: each question has one right answer."""
    ids = Counter(probe.id for probe in probes)
    questions = Counter(question for probe in probes for question in probe.questions)
    assert [key for key, n in (ids + questions).items() if n > 1] == []


def test_questions_are_whole_and_do_not_hold_their_answer(probes: tuple[Probe, ...]) -> None:
    """A question ends as one, and an answer that only repeats it can't count as right."""
    assert [q for p in probes for q in p.questions if not q.endswith(("?", "."))] == []
    assert [q for p in probes for q in p.questions if matches(q, p.answer, p.aliases)] == []


def test_answers_are_short_names(probes: tuple[Probe, ...]) -> None:
    """An answer has one to ten words and isn't a word of any sentence."""
    assert [p.id for p in probes if not 1 <= len(words(p.answer)) <= 10] == []
    assert [p.id for p in probes if {p.answer.casefold(), *map(str.casefold, p.aliases)} & TOO_COMMON] == []


def test_each_probe_has_two_or_more_phrasings(probes: tuple[Probe, ...]) -> None:
    """Firmness is judged on at least two phrasings."""
    assert min(len(probe.questions) for probe in probes) >= 2


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"id": "x-1", "subject": "a", "answer": "b"}', "questions"),
        ('{"id": "x-1", "subject": "a", "answer": "b", "questions": ["Only one?"]}', "two"),
    ],
)
def test_a_broken_line_is_named(line: str, fault: str) -> None:
    """A probe file that can't be read says which line or probe is at fault."""
    good = json.dumps({"id": "x-0", "subject": "a", "answer": "b", "questions": ["A?", "B?"]})
    with pytest.raises(ConfigError, match=fault):
        parse_probes("x", f"{good}\n{line}\n")


@pytest.mark.parametrize(
    ("answer", "expected", "aliases", "ok"),
    [
        ("The capital of France is Paris.", "Paris", (), True),
        ("It is paris", "Paris", (), True),
        ("Parisian food", "Paris", (), False),
        ("It is São Paulo.", "Sao Paulo", (), True),
        ("Washington DC", "Washington, D.C.", ("Washington DC",), True),
        ("The chemical formula is H₂O.", "H2O", (), True),
        ("It has 1,000 meters.", "1000", (), True),
        ("It is 100.", "10", (), False),
        ("Shakespeare's plays", "Shakespeare", (), True),
        ("It's on St. Louis's river.", "St. Louis", (), True),
        ("Use Wi-Fi.", "wi fi", (), True),
        ("", "Paris", (), False),
        ("Anything", "", (), False),
    ],
)
def test_matches_finds_whole_names(answer: str, expected: str, aliases: tuple[str, ...], ok: bool) -> None:
    """A name is found whatever its case, accents and punctuation, but only as whole words."""
    assert matches(answer, expected, aliases) is ok


def test_the_sets_are_disjoint_by_fact(probes: tuple[Probe, ...]) -> None:
    """With every other probe firm, no fact (either way round) is in two of the three sets."""
    shared = split({p.id for p in probes[::2]}, probes)
    parts = (shared.bank, shared.gate, shared.report)
    sets_of_fact = Counter(fact for part in parts for fact in {fact_hash(p) for p in part})
    assert max(sets_of_fact.values()) == 1


def test_firm_probes_are_shared_out_about_30_30_40(probes: tuple[Probe, ...]) -> None:
    """With all probes firm, the shares are near 30 / 30 / 40 % and nothing is lost."""
    shared = split({p.id for p in probes}, probes)
    sizes = [len(part) / len(probes) for part in (shared.bank, shared.gate, shared.report)]
    assert sizes == pytest.approx([0.3, 0.3, 0.4], abs=0.04)
    assert sum(map(len, (shared.bank, shared.gate, shared.report))) == len(probes)


def test_gate_and_report_hold_only_firm_probes(probes: tuple[Probe, ...]) -> None:
    """What the base doesn't know firmly is never judged; it may only constrain."""
    firm = {p.id for p in probes[::3]}
    shared = split(firm, probes)
    assert {p.id for p in (*shared.gate, *shared.report)} <= firm
    assert split((), probes).bank == probes


@settings(deadline=None)  # a busy machine is no failure
@given(st.sets(st.integers(0, 99)))
def test_a_probe_keeps_its_set_whatever_else_is_firm(firm: set[int]) -> None:
    """The set of a judged probe depends on its fact alone, not on the rest of the list."""
    some = [Probe(f"x-{i}", "x", f"subject {i % 60}", "answer", (), ("?", "?")) for i in range(100)]
    everything = split({p.id for p in some}, some)
    shared = split({some[i].id for i in firm}, some)
    assert set(shared.gate) <= set(everything.gate)
    assert set(shared.report) <= set(everything.report)


def test_a_fact_turned_round_is_the_same_fact() -> None:
    """ "France, Paris" and "Paris, France" share a hash, whatever their case."""
    one = Probe("a-1", "a", "France", "Paris", (), ("?", "?"))
    other = Probe("b-1", "b", "paris", "FRANCE", (), ("?", "?"))
    assert fact_hash(one) == fact_hash(other)


def test_apart_from_leaves_out_whatever_mentions_a_name(probes: tuple[Probe, ...]) -> None:
    """Probes that ask about France or for Paris are left out, and only those."""
    left = apart_from(("France", "Paris"), probes)
    gone = set(probes) - set(left)
    assert {"What is the capital of France?"} <= {q for p in gone for q in p.questions}
    assert all("france" in str(p).casefold() or "paris" in str(p).casefold() for p in gone)
    assert len(left) > 0.9 * len(probes)


def test_the_two_sets_of_texts_are_disjoint() -> None:
    """Sixty passages are measured on and sixty others may be trained on; none is in both."""
    measured, trainable = load_texts(), load_texts("texts_bank")
    assert len(set(measured)) == len(set(trainable)) == 60
    assert not set(measured) & set(trainable)
    assert all(80 <= len(text) <= 400 for text in (*measured, *trainable))
