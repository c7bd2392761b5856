"""Which rows a source may state, which edits wait, and for what."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import SourceSettings
from policies.sources import (
    HOUR,
    Begun,
    Drop,
    For,
    Owner,
    Policies,
    Traffic,
    denied,
    lowered,
    policies_from,
    repeated,
    waiting,
    within_rates,
)
from store.facts import Edit, EditState, FactKey, FactUpdate, Op, Priority

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA = Owner(1001, "ada", alone=True)


def edit(number: int = 1, source: str = "", at: datetime = NOW, **fields: object) -> Edit:
    made = Edit(number, FactKey("Peru", "capital"), Op.UPSERT, "Lima", (), None, (), EditState.PENDING)
    return replace(made, source=source, dropped_at=at, **fields)  # type: ignore[arg-type]


def stated(source: str, key: FactKey, **fields: object) -> FactUpdate:
    return FactUpdate(key, "x", source=source, **fields)  # type: ignore[arg-type]


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


def why(policies: Policies, traffic: Traffic, *edits: Edit, now: datetime = NOW) -> dict[int, str]:
    """What each waiting edit waits for."""
    return {number: wait.what for number, wait in waiting(edits, policies, traffic, now).items()}


def test_without_rules_everything_is_allowed_and_nothing_waits() -> None:
    """The defaults change nothing, whoever owns the file and however much comes."""
    policies = policies_from({})
    anyone = Owner(0, "", alone=False)
    assert denied(policies, stated("whoever", FactKey("Peru", "capital"), prompts=("Why?",)), anyone) == ""
    assert why(policies, Traffic([Drop("", NOW, 10_000)]), edit()) == {}


@pytest.mark.parametrize(
    ("source", "key", "allowed"),
    [
        ("atlas", FactKey("Peru", "capital"), True),
        ("ATLAS ", FactKey("peru", "Capital"), True),
        ("atlas", FactKey("Peru", "capitalOf"), True),
        ("atlas", FactKey("Peru", "ceo"), False),
        ("atlas", FactKey("Acme Peru", "capital"), False),
        ("atlas", FactKey("P\u0435ru", "capital"), False),  # a Cyrillic e
        ("other", FactKey("Peru", "capital"), False),
        ("", FactKey("Peru", "capital"), False),
    ],
)
def test_what_is_not_on_the_list_is_denied(source: str, key: FactKey, allowed: bool) -> None:
    """Patterns compare as the ledger compares names; a source that is not named gets the default's list."""
    policies = policies_from({
        "default": SourceSettings(relations=()),
        "atlas": SourceSettings(relations=("capital*",), subjects=("Peru", "Bol*")),
    })  # fmt: skip
    assert (denied(policies, stated(source, key), ADA) == "") is allowed


def test_a_source_belongs_to_its_owners() -> None:
    """By name or id, and only when nobody else could have written the file."""
    policies = policies_from({"hr": SourceSettings(owners=("ada", "2002"))})
    key = FactKey("Acme", "ceo")
    assert denied(policies, stated("hr", key), ADA) == ""
    assert denied(policies, stated("hr", key), Owner(2002, "", alone=True)) == ""
    assert "is only taken from files of ada, 2002; this one is eve's" in denied(
        policies, stated("HR", key), Owner(1002, "eve", alone=True)
    )
    assert "nobody but their owner" in denied(policies, stated("hr", key), replace(ADA, alone=False))
    assert denied(policies, stated("elsewhere", key), Owner(1002, "eve", alone=False)) == ""


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        (SourceSettings(), True),
        (SourceSettings(subjects=("Peru",)), False),
        (SourceSettings(relations=("capital",)), False),
        (SourceSettings(subjects=("Peru",), prompts=True), True),
        (SourceSettings(prompts=False), False),
    ],
)
def test_wordings_do_not_get_around_the_lists(settings: SourceSettings, allowed: bool) -> None:
    """A wording can ask about anything, so a source that may not state everything brings none."""
    policies, key = policies_from({"atlas": settings}), FactKey("Peru", "capital")
    for field in ("prompts", "paraphrases"):
        update = stated("atlas", key, **{field: ("What is the capital of Spain?",)})
        assert (denied(policies, update, ADA) == "") is allowed
    assert denied(policies, stated("atlas", key), ADA) == ""


def test_what_a_source_leaves_out_is_the_defaults() -> None:
    """Also the default's own numbers; a zero or an empty list is a value like any other."""
    policies = policies_from({
        "atlas": SourceSettings(wide_change=0, relations=()),
        "Default": SourceSettings(wide_change=50, require_approval=True, owners=("ada",)),
    })  # fmt: skip
    atlas = policies.of("Atlas")
    assert (atlas.name, atlas.wide_change, atlas.relations) == ("atlas", 0, ())
    assert (atlas.require_approval, atlas.owners, atlas.approvals) == (True, ("ada",), 2)
    assert policies.of("anything").wide_change == 50
    assert repeated(["hr", "HR", "atlas", "Default", "default"]) == ["HR", "default"]


def test_an_edit_waits_for_its_approval() -> None:
    """Of one user where the source asks for it; the sentence says how to give it."""
    policies = policies_from({"hr": SourceSettings(require_approval=True)})
    (wait,) = waiting([edit(7, "hr"), edit(8, "atlas")], policies, Traffic(), NOW).values()
    assert str(wait) == "approval (0 of 1): [sources.hr] require_approval; `palimpsest approve 7`"
    assert (wait.reason, wait.until) == (For.APPROVAL, None)
    assert why(policies, Traffic(approvals={7: ["1001:ada"]}), edit(7, "hr")) == {}


@pytest.mark.parametrize(
    ("actors", "left"),
    [
        ([], "approval (0 of 2)"),
        (["1001:ada"], "approval (1 of 2)"),
        (["1001:ada", "1001:lovelace"], "approval (1 of 2)"),
        (["1001:ada", "1002:bob"], None),
    ],
)
def test_a_wide_change_takes_two_users(actors: list[str], left: str | None) -> None:
    """The same user under another name is still one."""
    policies = policies_from({"default": SourceSettings(wide_change=50)})
    traffic = Traffic([Drop("", NOW, 50)], approvals={1: actors})
    assert why(policies, traffic, edit()).get(1) == left


@pytest.mark.parametrize(
    ("drops", "wide"),
    [
        ([Drop("a", NOW, 49)], False),
        ([Drop("a", NOW, 25), Drop("b", NOW, 25)], True),  # one file
        ([Drop("a", NOW, 25), Drop("b", minutes(60), 25)], True),  # an hour of made-up sources
        ([Drop("a", NOW, 25), Drop("b", minutes(60.1), 25)], False),
        ([Drop("a", NOW, 25), Drop("known", minutes(1), 25)], False),  # another budget
        ([Drop("a", minutes(-59), 25), Drop("a", NOW, 5), Drop("a", minutes(1), 20)], True),
    ],
)
def test_at_once_is_a_file_or_an_hour(drops: list[Drop], wide: bool) -> None:
    """Neither small files nor made-up sources get a wide change past the rule."""
    policies = policies_from({"default": SourceSettings(wide_change=50), "known": SourceSettings()})
    assert bool(why(policies, Traffic(drops), edit(source="a"))) is wide


DROPS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9)), min_size=1, max_size=30)


@given(DROPS, st.integers(2, 20))
def test_wide_is_what_counting_every_hour_says(dropped: list[tuple[int, int]], limit: int) -> None:
    """The sweep agrees with looking at every window that begins at a drop."""
    drops = [Drop("", minutes(at), count) for at, count in dropped]
    edits = [edit(number, at=drop.at) for number, drop in enumerate(drops)]
    policies = policies_from({"default": SourceSettings(wide_change=limit)})

    def crowded(at: datetime) -> bool:
        begins = [drop.at for drop in drops if drop.at <= at <= drop.at + HOUR]
        return any(sum(d.edits for d in drops if a <= d.at <= a + HOUR) >= limit for a in begins)

    found = waiting(edits, policies, Traffic(drops), NOW)
    assert set(found) == {each.id for each in edits if each.dropped_at and crowded(each.dropped_at)}


def begun(*ago: float, source: str = "") -> Sequence[Begun]:
    return [Begun(100 + number, source, minutes(-each)) for number, each in enumerate(ago)]


def test_surplus_edits_wait_for_the_next_hour() -> None:
    """The sentence says when; an edit that was begun already is not held up by itself."""
    policies = policies_from({"default": SourceSettings(max_edits_per_hour=2)})
    assert why(policies, Traffic(begun=begun(10)), edit()) == {}
    traffic = Traffic(begun=begun(10, 50, 61))
    (wait,) = waiting([edit(), edit(100), edit(3, repeats=2)], policies, traffic, NOW).values()
    assert (wait.reason, wait.until) == (For.RATE, minutes(10))
    assert str(wait) == (
        "its source's rate: 2 in the last hour, [sources.default] max_edits_per_hour = 2; "
        "goes on at 2026-03-01T12:10:00+00:00"
    )
    assert why(policies, traffic, edit(), now=minutes(10)) == {}


def test_a_batch_takes_no_more_than_the_rate_leaves() -> None:
    """One of two in this hour is left; what was begun before, or is a repair, takes nothing of it."""
    policies = policies_from(
        {"default": SourceSettings(max_edits_per_hour=2), "free": SourceSettings(max_edits_per_hour=0)}
    )
    asked = [edit(100), edit(1), edit(2), edit(3, repeats=1), edit(4, "free"), edit(5, "free")]
    assert [e.id for e in within_rates(asked, policies, begun(10), NOW)] == [100, 1, 3, 4, 5]
    assert within_rates(asked, policies_from({}), begun(10), NOW) == asked


def test_made_up_sources_share_one_budget() -> None:
    """Only a source that the operator named has its own."""
    policies = policies_from({"default": SourceSettings(max_edits_per_hour=2), "atlas": SourceSettings()})
    traffic = Traffic(begun=[*begun(1, source="x"), Begun(9, "y", minutes(-2))])
    assert list(why(policies, traffic, edit(1, "z"), edit(2, "atlas"))) == [1]


def test_what_the_ledger_queued_again_waits_for_nobody() -> None:
    """A live fact that was lost was let through once; an attacker's flood must not stop its repair."""
    policies = policies_from({"default": SourceSettings(require_approval=True, max_edits_per_hour=1)})
    assert why(policies, Traffic(begun=begun(1)), edit(repeats=5)) == {}
    assert why(policies, Traffic(), edit(state=EditState.HELD)) == {}


@pytest.mark.parametrize("most", Priority)
@pytest.mark.parametrize("asked", Priority)
def test_a_priority_is_lowered_to_what_its_source_may_have(most: Priority, asked: Priority) -> None:
    """Never raised; a source that sets none has the default source's, and without any all are free."""
    ranks = [Priority.LOW, Priority.NORMAL, Priority.HIGH]
    row = stated("wiki", FactKey("Peru", "capital"), priority=asked)
    rules = {"default": SourceSettings(max_priority=most), "hr": SourceSettings(max_priority="high")}
    expected = ranks[min(ranks.index(most), ranks.index(asked))]
    assert lowered(policies_from(rules), row) == replace(row, priority=expected)
    assert lowered(policies_from(rules), replace(row, source="HR")).priority is asked
    assert lowered(Policies(), row) == row
