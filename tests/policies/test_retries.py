"""What becomes of an edit that didn't make it, and that it always comes to an end."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.retries import (
    LADDER,
    Breakdown,
    Decision,
    Limits,
    after_breakdown,
    after_judgement,
    backoff,
    next_recipe,
)
from store.facts import EditState, Judgement, Verdict

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOT_PASSED = (Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)


def judgement(verdict: Verdict) -> Judgement:
    return Judgement(verdict, f"{verdict.name.lower()}: neighbours: 0.1", ())


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_candidate_that_is_not_good_enough_climbs_the_ladder(verdict: Verdict) -> None:
    """The next recipe is tried at once; after the last rung the edit is held with the gate's reason."""
    first = after_judgement(judgement(verdict), recipe="default", attempts=1, now=NOW)
    assert (first.state, first.recipe, first.not_before) == (EditState.PENDING, "gentle", NOW)
    assert first.reason == f"{verdict.name.lower()}: neighbours: 0.1; next recipe: gentle"
    last = after_judgement(judgement(verdict), recipe="gentle", attempts=2, now=NOW)
    assert (last.state, last.recipe, last.not_before) == (EditState.HELD, "gentle", None)
    assert "a human must look" in last.reason


def test_a_failed_measurement_repeats_the_same_recipe() -> None:
    """An error says nothing of the candidate, so neither the recipe nor the verdict moves on."""
    decision = after_judgement(judgement(Verdict.ERROR), recipe="default", attempts=1, now=NOW)
    assert (decision.state, decision.recipe) == (EditState.PENDING, "default")
    assert decision.not_before == NOW + timedelta(seconds=30)


def test_a_pass_needs_no_retry() -> None:
    """Asking what to do about a success is a fault of the caller."""
    with pytest.raises(ValueError, match="passed"):
        after_judgement(judgement(Verdict.PASS), recipe="default", attempts=1, now=NOW)


def test_a_foreign_recipe_is_held_and_not_replaced() -> None:
    """A recipe that an operator named, and that isn't on the ladder, isn't swapped for another."""
    decision = after_judgement(judgement(Verdict.FAIL), recipe="mine", attempts=1, now=NOW)
    assert (decision.state, decision.recipe) == (EditState.HELD, "mine")


@pytest.mark.parametrize("breakdown", list(Breakdown))
def test_a_broken_worker_is_retried_and_then_given_up(breakdown: Breakdown) -> None:
    """The same recipe comes back later, until the attempts are used up; then the edit has failed."""
    limits = Limits(attempts=2)
    again = after_breakdown(
        breakdown, recipe="default", attempts=1, now=NOW, detail="signal 9", limits=limits
    )
    assert again == Decision(
        EditState.PENDING,
        "default",
        NOW + timedelta(seconds=30),
        f"{breakdown.value}: signal 9; attempt 1 of 2, again in 30 s",
    )
    over = after_breakdown(breakdown, recipe="default", attempts=2, now=NOW, limits=limits)
    assert (over.state, over.not_before) == (EditState.FAILED, None)
    assert over.reason == f"{breakdown.value}; gave up after 2 attempts"


def test_the_waits_double_up_to_their_cap() -> None:
    """Backoff starts at the first wait, doubles, and stays at the longest one."""
    assert [backoff(n).total_seconds() for n in (-1, 0, 1, 2, 3, 7, 8, 10**9)] == [
        30, 30, 30, 60, 120, 1920, 3600, 3600,
    ]  # fmt: skip


@given(st.lists(st.sampled_from(NOT_PASSED) | st.sampled_from(Breakdown), min_size=20), st.integers(1, 9))
def test_every_run_of_bad_luck_ends(failures: list[Verdict | Breakdown], cap: int) -> None:
    """Whatever goes wrong in whatever order, no edit is tried more often than the limit allows."""
    limits, recipe = Limits(attempts=cap), LADDER[0]
    for attempts, failure in enumerate(failures, start=1):
        if isinstance(failure, Verdict):
            decision = after_judgement(
                judgement(failure), recipe=recipe, attempts=attempts, now=NOW, limits=limits
            )
        else:
            decision = after_breakdown(failure, recipe=recipe, attempts=attempts, now=NOW, limits=limits)
        assert decision.reason
        if decision.state is not EditState.PENDING:
            assert decision.state in (EditState.HELD, EditState.FAILED)
            assert decision.not_before is None
            assert attempts <= cap
            return
        assert decision.not_before is not None
        assert decision.not_before >= NOW
        assert decision.recipe in (recipe, next_recipe(recipe))
        recipe = decision.recipe
    pytest.fail("still retrying")
