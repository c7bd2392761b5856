"""The shipped relations are complete, operators' files are checked, and requests never mix sets."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.relations import (
    SLOT,
    Relation,
    generic_relation,
    load_relations,
    parse_relation,
    relation_for,
    relation_key,
    request_for,
)
from store.errors import ConfigError
from store.facts import Edit, EditState, FactKey, Op
from tests.relation_text import GOOD

RELATIONS = load_relations()
SHIPPED = sorted({r.name: r for r in RELATIONS.values()}.values(), key=lambda r: r.name)


def an_edit(**changes: object) -> Edit:
    edit = Edit(1, FactKey("South Korea", "capital"), Op.UPSERT, "Athens", (), "Seoul", (), EditState.PENDING)
    return replace(edit, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("relation", SHIPPED, ids=lambda r: r.name)
def test_shipped_relations_are_rich_enough(relation: Relation) -> None:
    """Each has at least 6 wordings to train on, 4 held out and 40 neighbours, each wording asked once."""
    assert len(relation.questions) >= 5
    assert len(relation.cloze) >= 3
    assert len(relation.held_out_questions) >= 3
    assert len(relation.held_out) >= 4
    assert 40 <= len(relation.neighbours) <= 240
    texts = [*relation.training, *relation.held_out]
    assert len({text.casefold() for text in texts}) == len(texts)
    assert all(text.count(SLOT) == 1 for text in texts)


def test_at_least_24_relations_ship() -> None:
    """Common relations need no file from the operator, under the names operators give them."""
    assert len(SHIPPED) >= 24
    for name in (
        "capital",
        "country_capital_city",
        "Capital city",
        "ceo",
        "companyCEO",
        "phone number",
        "version",
    ):
        assert not relation_for(name, RELATIONS).generic, name


@pytest.mark.parametrize("name", ["shoe_size", "Shoe size", "shoeSize", "shoe-size", " shoe  size "])
def test_spellings_of_a_name_are_one_relation(name: str) -> None:
    """Case, separators and camel case make no difference."""
    assert relation_key(name) == "shoe_size"
    assert generic_relation(name).questions[0] == "What is the shoe size of {subject}?"


def test_a_name_of_separators_is_no_name() -> None:
    """A relation must be called something: "." and "_ /" would all be the same empty name."""
    relation, faults = parse_relation(
        "a.toml", GOOD.replace('"shoe_size"', '"."').replace("size of shoe", "_ /")
    )
    assert relation is None
    assert [fault.split(": ")[1] for fault in faults] == ["name", "aliases"]


def test_an_unknown_relation_falls_back_and_says_so() -> None:
    """Generic templates are as many as a file must hold, are marked, and bring neighbours."""
    relation = relation_for("shoe_size", RELATIONS)
    assert relation.generic
    assert len(relation.training) >= 6
    assert len(relation.held_out) >= 4
    assert not {t.casefold() for t in relation.training} & {t.casefold() for t in relation.held_out}
    assert len(relation.neighbours) >= 100
    assert "The shoe size of {subject} is" in relation.cloze


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("IMEI_number", "IMEI number"),
        ("number of GitHub stars", "number of GitHub stars"),
        ("has_owner_of", "owner"),
    ],
)
def test_generic_phrases_read_well(name: str, phrase: str) -> None:
    """Abbreviations keep their case, and filler around the noun is dropped."""
    assert generic_relation(name).questions[0] == f"What is the {phrase} of {{subject}}?"


def test_operators_add_and_replace_relations() -> None:
    """An operator's file serves under its name and aliases, before a shipped one of the same name."""
    mine = GOOD.replace('aliases = ["size of shoe"]', 'aliases = ["capital"]')
    relations = load_relations({"shoe_size.toml": mine})
    assert relation_for("shoe size", relations).object_type == "number"
    assert relation_for("capital", relations).name == "shoe_size"
    assert relation_for("capital_city", relations).name == "capital"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('name = "shoe_size"', "", "name: must be a non-empty string"),
        ('object_type = "number"', "object_type = 3", "object_type: must be"),
        ('"Q3 {subject}?"', '"Q3 {subject}"', "must end in"),
        ('"Q3 {subject}?"', '"Q3?"', "exactly once"),
        ('"Q3 {subject}?"', '"Q3 {subject} {subject}?"', "exactly once"),
        ('"Q3 {subject}?"', '"Q3 {subject} {object}?"', "no other braces"),
        ('"Q3 {subject}?"', '"H1 {subject}."', "is also in"),
        ('"Q3 {subject}?", ', "", "questions: 4 given, at least 5"),
        ("of {subject} is", "of {subject} is ", "must end right before the answer"),
        ("of {subject} is", "of {subject} is.", "must end right before the answer"),
        ('"H3 {subject}?"', "", "held_out_questions: 2 given, at least 3"),
        ('["A", ', "[1, ", "neighbours: must be a list of strings"),
        ('"A", ', "", "neighbours: 9 given"),
        ('"A", ', '"b", ', "given twice: b"),
        ("cloze = [", "clozes = [", "clozes: unknown key"),
        ("cloze = [", "cloze = ", "not TOML"),
    ],
)
def test_a_fault_names_file_key_and_hint(old: str, new: str, fault: str) -> None:
    """Each kind of fault is found, names its file and its key, and says what to do."""
    assert old in GOOD
    relation, faults = parse_relation("mine.toml", GOOD.replace(old, new, 1))
    assert relation is None
    assert any(f.startswith("mine.toml: ") and fault in f and f.endswith(")") for f in faults), faults


def test_all_faults_of_all_files_are_reported_at_once() -> None:
    """One error lists what is wrong in every file, and a name taken twice among the operator's."""
    texts = {"a.toml": GOOD, "b.toml": GOOD, "c.toml": "x =", "d.toml": "name = 1"}
    with pytest.raises(ConfigError) as caught:
        load_relations(texts)
    cause = caught.value.cause
    assert "b.toml: aliases: 'shoe_size' is taken by a.toml" in cause
    assert "c.toml: not TOML" in cause
    assert "d.toml: name" in cause
    assert "d.toml: neighbours" in cause


def test_a_request_is_filled_from_the_relation() -> None:
    """Without own phrasings the relation's are used, the subject filled in and questions told from cloze."""
    request = request_for(an_edit(), RELATIONS["capital"])
    train = {p.text: p.is_question for p in request.train}
    assert train["What is the capital of South Korea?"]
    assert train["Name the capital city of South Korea."]
    assert not train["The capital of South Korea is"]
    assert len(request.train) == len(RELATIONS["capital"].training)
    assert len(request.held_out) == len(RELATIONS["capital"].held_out)
    assert {p.text for p in request.templates} == set(RELATIONS["capital"].training)
    assert {p.text for p in request.held_out_templates} == set(RELATIONS["capital"].held_out)


def test_own_phrasings_replace_the_relations() -> None:
    """An edit's prompts are what is trained on and its paraphrases what is held out, word for word."""
    edit = an_edit(
        prompts=("The seat of government of {subject} is", "What does South Korea call its capital?"),
        paraphrases=("Where is {subject} governed from?",),
    )
    request = request_for(edit, RELATIONS["capital"])
    assert [p.text for p in request.train] == [
        "The seat of government of South Korea is",
        "What does South Korea call its capital?",
    ]
    assert [p.text for p in request.held_out] == ["Where is South Korea governed from?"]
    templates = [p.text for p in request.templates]
    assert templates[:2] == [
        "The seat of government of {subject} is",
        "What does {subject} call its capital?",
    ]
    assert "What is the capital of {subject}?" in templates


def test_a_paraphrase_that_the_relation_trains_on_is_held_out() -> None:
    """An operator's paraphrase wins over the same wording in the relation's training templates."""
    edit = an_edit(paraphrases=("what is the capital of {subject}?",))
    request = request_for(edit, RELATIONS["capital"])
    assert [p.text for p in request.held_out] == ["what is the capital of South Korea?"]
    assert "What is the capital of South Korea?" not in {p.text for p in request.train}
    assert "What is the capital of {subject}?" not in {p.text for p in request.templates}


def test_a_prompt_given_twice_is_trained_on() -> None:
    """A wording that the operator gives as prompt and as paraphrase isn't measured as unseen."""
    edit = an_edit(prompts=("Q {subject}?",), paraphrases=("Q {subject}?", "P {subject}?"))
    request = request_for(edit, RELATIONS["capital"])
    assert [p.text for p in request.train] == ["Q South Korea?"]
    assert [p.text for p in request.held_out] == ["P South Korea?"]


def test_known_neighbours_come_first_and_the_subject_never() -> None:
    """The ledger's subjects lead, nobody comes twice, and the subject isn't its own neighbour."""
    known = ("Narnia", "france", "SOUTH KOREA")
    request = request_for(an_edit(), RELATIONS["capital"], known_neighbours=known)
    folded = [name.casefold() for name in request.neighbours]
    assert folded[:2] == ["narnia", "france"]
    assert "south korea" not in folded
    assert len(folded) == len(set(folded))


def test_a_subject_with_braces_is_only_text() -> None:
    """Subjects are filled in as they are, never interpreted as templates."""
    request = request_for(an_edit(key=FactKey("{x} {subject", "capital")), RELATIONS["capital"])
    assert request.train[0].text == "What is the capital of {x} {subject?"


phrasing = st.sampled_from([t for r in SHIPPED[:3] for t in (*r.training, *r.held_out)])


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(phrasing, max_size=6), st.lists(phrasing, max_size=6), st.sampled_from(SHIPPED))
def test_nothing_is_both_trained_on_and_held_out(
    prompts: list[str], held: list[str], relation: Relation
) -> None:
    """Whatever an edit brings, training and held-out wordings are disjoint, filled in and as templates."""
    request = request_for(an_edit(prompts=tuple(prompts), paraphrases=tuple(held)), relation)
    assert not {p.text.casefold() for p in request.train} & {p.text.casefold() for p in request.held_out}
    templates = {p.text.casefold() for p in request.templates}
    assert not templates & {p.text.casefold() for p in request.held_out_templates}
