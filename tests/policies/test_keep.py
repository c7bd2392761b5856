"""Which generations stay on disk, and that the ones in use always do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.keep import plan_keep
from store.facts import Generation

STATES = ("building", "live", "retired", "rolled_back", "quarantined")


def generation(
    number: int, state: str = "retired", *, pinned: bool = False, blob: str | None = "b"
) -> Generation:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return Generation(number, number - 1, state, "w", blob, (number,), created, pinned=pinned)


def test_the_plan_reads_as_it_will_be_done() -> None:
    """Each generation is listed once with every reason that speaks for it, or why it goes."""
    plan = plan_keep(
        [
            generation(0, blob=None),
            generation(1),
            generation(2, pinned=True),
            generation(3, blob=None),
            generation(4),
            generation(5, "quarantined"),
            generation(6),
            generation(7, "live"),
            generation(8, "building"),
        ],
        newest=2,
        live=7,
        previous=4,
    )
    assert str(plan).splitlines() == [
        "keep   000008: building: not finished with",
        "keep   000007: live, among the newest 2",
        "keep   000006: among the newest 2",
        "keep   000005: quarantined: not finished with",
        "keep   000004: previous: the quickest way back",
        "keep   000003: has no blob to be rebuilt from",
        "keep   000002: pinned",
        "keep   000000: the base",
        "remove 000001: not among the newest 2; its vectors stay in the blob store",
    ]


def test_keeping_none_is_refused() -> None:
    """A count below one is a mistake in the caller, not a wish to delete everything."""
    with pytest.raises(ValueError, match="at least 1"):
        plan_keep([], newest=0)


generations = st.lists(
    st.builds(
        generation,
        st.integers(0, 30),
        st.sampled_from(STATES),
        pinned=st.booleans(),
        blob=st.none() | st.just("b"),
    ),
    unique_by=lambda g: g.number,
)
numbers = st.none() | st.integers(0, 30)


@given(generations, st.integers(1, 5), numbers, numbers)
def test_what_is_in_use_is_never_removed(
    taken: list[Generation], newest: int, live: int | None, previous: int | None
) -> None:
    """Links, ledger state, pins, the base, unfinished work and the newest N all survive any mixture."""
    plan = plan_keep(taken, newest=newest, live=live, previous=previous)
    kept = {c.generation for c in plan.keep}
    removed = {c.generation for c in plan.remove}
    assert kept | removed == {g.number for g in taken}
    assert not kept & removed
    assert not removed & {0, live, previous}
    finished = sorted(
        (g.number for g in taken if g.state in ("live", "retired", "rolled_back")), reverse=True
    )
    assert not removed & set(finished[:newest])
    for g in taken:
        if g.number in removed:
            assert g.state in ("retired", "rolled_back")
            assert not g.pinned
            assert g.theta_blob is not None
    assert all(c.reasons for c in (*plan.keep, *plan.remove))


@given(generations, st.integers(1, 5), numbers, numbers)
def test_keeping_more_never_removes_more(
    taken: list[Generation], newest: int, live: int | None, previous: int | None
) -> None:
    """Raising N only moves generations from removed to kept, and what stays is stable when planned again."""
    few = plan_keep(taken, newest=newest, live=live, previous=previous)
    more = plan_keep(taken, newest=newest + 1, live=live, previous=previous)
    assert {c.generation for c in more.remove} <= {c.generation for c in few.remove}
    left = [g for g in taken if g.number in {c.generation for c in few.keep}]
    assert not plan_keep(left, newest=newest, live=live, previous=previous).remove
