"""The way back: which edits remain, what is reused, what is asked again, and when to halt."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from policies.rollback import (
    History,
    Way,
    facts_to_reprobe,
    to_generation,
    to_parent,
    to_requeue,
    without_edit,
    without_fact,
)
from store.errors import GenerationError, UsageError
from store.facts import Edit, EditState, FactKey, Generation, Op


def generation(
    number: int, edits: Iterable[int], state: str = "retired", blob: str | None = "b"
) -> Generation:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return Generation(number, number - 1, state, "w", blob, tuple(edits), created)


def history(*generations: Generation, live: int, gone: Iterable[int] = ()) -> History:
    return History({g.number: g for g in generations}, live, {g.number for g in generations} - set(gone))


def edit(number: int, subject: str) -> Edit:
    key = FactKey(subject, "capital")
    return Edit(number, key, Op.UPSERT, "x", (), None, (), EditState.LIVE)


LINE = (generation(1, [1]), generation(2, [1, 2]), generation(3, [1, 2, 3], "live"))
EDITS = {1: edit(1, "a"), 2: edit(2, "b"), 3: edit(3, "a")}


def test_back_to_a_generation_switches_to_its_directory() -> None:
    """A known good generation on disk is promoted as it is, and nothing needs asking."""
    plan = to_generation(history(*LINE, live=3), 1)
    assert (plan.way, plan.generation, plan.edits) == (Way.PROMOTE, 1, (1,))
    assert (plan.removed, plan.restored, plan.reprobe) == ((2, 3), (), ())


def test_a_directory_that_is_gone_is_written_again() -> None:
    """The generation keeps its number: the same vectors give the same bytes."""
    plan = to_generation(history(*LINE, live=3, gone=[1]), 1)
    assert (plan.way, plan.generation) == (Way.MATERIALIZE, 1)


def test_the_base_is_always_a_way_back() -> None:
    """Generation 0 needs no row in the ledger to be gone to."""
    plan = to_generation(history(*LINE, live=3), 0)
    assert (plan.way, plan.edits, plan.removed) == (Way.PROMOTE, (), (1, 2, 3))


def test_going_forward_again_restores_edits() -> None:
    """From an older generation to a newer one the plan names the edits that come back."""
    plan = to_generation(history(*LINE, live=1), 2)
    assert (plan.removed, plan.restored) == ((), (2,))


@pytest.mark.parametrize("state", ["rolled_back", "quarantined", "building"])
def test_a_target_that_is_not_known_good_halts(state: str) -> None:
    """Nothing is planned, and the error names the states and the good ones to choose from."""
    past = history(LINE[0], generation(2, [1, 2], state), LINE[2], live=3)
    with pytest.raises(GenerationError) as caught:
        to_generation(past, 2)
    assert str(caught.value) == (
        f"roll back: generation 2: it isn't known good (state {state}), so nothing was changed"
        " (known good are 1, 0)"
    )
    with pytest.raises(GenerationError):
        to_parent(past)


def test_force_reaches_only_weights_that_were_once_whole() -> None:
    """A generation that was served and taken back may be forced and is re-probed; a broken one may not."""
    past = history(LINE[0], generation(2, [1, 2], "rolled_back"), LINE[2], live=3)
    plan = to_generation(past, 2, force=True)
    assert (plan.generation, plan.reprobe) == (2, (1, 2))
    assert plan.reason == "back to generation 2, which isn't known good: forced"
    broken = history(LINE[0], generation(2, [1, 2], "quarantined"), LINE[2], live=3)
    with pytest.raises(GenerationError):
        to_generation(broken, 2, force=True)


def test_the_caller_may_know_better_than_the_states() -> None:
    """An explicit set of known good generations replaces the rule of the states."""
    past = replace(history(*LINE, live=3), known_good={1})
    with pytest.raises(GenerationError):
        to_parent(past)
    assert to_generation(past, 1).generation == 1


def test_the_automatic_way_is_one_step_and_never_more() -> None:
    """Taking the live generation back leads to its parent; the base has none."""
    assert to_parent(history(*LINE, live=3)).generation == 2
    with pytest.raises(UsageError, match="nothing to take back"):
        to_parent(history(*LINE, live=0))
    orphan = replace(generation(4, [9], "live"), parent=None)
    with pytest.raises(GenerationError, match="isn't recorded"):
        to_parent(history(orphan, live=4))


def test_senseless_targets_are_refused() -> None:
    """Unknown, live and lost generations each have their own reason."""
    with pytest.raises(GenerationError, match="no such generation"):
        to_generation(history(*LINE, live=3), 9)
    with pytest.raises(UsageError, match="live already"):
        to_generation(history(*LINE, live=3), 3)
    with pytest.raises(GenerationError, match="no blob"):
        to_generation(history(generation(1, [1], blob=None), LINE[2], live=3, gone=[1]), 1)


def test_the_last_edit_taken_out_gives_the_generation_before() -> None:
    """Equal edits in equal order are equal bytes, so the old directory is served and nothing is built."""
    plan = without_edit(history(*LINE, live=3), 3)
    assert (plan.way, plan.generation, plan.removed, plan.reprobe) == (Way.PROMOTE, 2, (3,), ())
    assert plan.reason == "the live generation less edit 3, which is generation 2"


def test_an_edit_out_of_the_middle_is_built_and_asked_about() -> None:
    """Edits that never stood together are summed anew, and every remaining one is re-probed."""
    plan = without_edit(history(*LINE, live=3), 2)
    assert (plan.way, plan.generation, plan.edits, plan.reprobe) == (Way.BUILD, None, (1, 3), (1, 3))
    assert [e.id for e in facts_to_reprobe(plan, EDITS)] == [3]  # 1 and 3 are the same fact: the last counts


def test_the_only_edit_taken_out_gives_the_base() -> None:
    """No edits are the base, whatever generations there are."""
    plan = without_edit(history(generation(1, [1], "live"), live=1), 1)
    assert (plan.way, plan.generation) == (Way.PROMOTE, 0)


def test_equal_edits_are_reused_only_from_a_good_generation() -> None:
    """A discarded twin isn't served; among good twins the one on disk wins."""
    live = generation(5, [1, 2], "live")
    bad = history(generation(1, [1], "rolled_back"), live, live=5)
    assert without_edit(bad, 2).way is Way.BUILD
    twins = history(generation(1, [1]), generation(4, [1]), live, live=5, gone=[4])
    assert (without_edit(twins, 2).way, without_edit(twins, 2).generation) == (Way.PROMOTE, 1)


def test_an_edit_that_is_not_live_cannot_be_taken_out() -> None:
    """Rolling an edit back twice is refused by name, as is a fact that was never edited."""
    with pytest.raises(UsageError, match="edit 7: not part of the live generation 3"):
        without_edit(history(*LINE, live=3), 7)
    with pytest.raises(UsageError, match="z / capital"):
        without_fact(history(*LINE, live=3), FactKey("z", "capital"), EDITS)


def test_a_fact_goes_back_by_its_newest_edit() -> None:
    """Undoing a fact that was edited twice returns to what the first edit made of it."""
    plan = without_fact(history(*LINE, live=3), FactKey("a", "capital"), EDITS)
    assert (plan.removed, plan.edits) == ((3,), (1, 2))


def test_what_the_rollback_broke_is_made_again() -> None:
    """Only the re-probed facts that now answer wrongly are queued."""
    assert [e.id for e in to_requeue([EDITS[1], EDITS[2]], lambda e: e.id == 1)] == [2]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A line of generations, each with its parent's edits less some, plus one new edit."""
    made = [generation(1, [1], draw(st.sampled_from(["retired", "rolled_back"])))]
    for number in range(2, draw(st.integers(2, 8)) + 1):
        held = [e for e in made[-1].edits if draw(st.integers(0, 4))]
        made.append(
            generation(
                number, [*held, number], draw(st.sampled_from(["retired", "rolled_back", "quarantined"]))
            )
        )
    made[-1] = replace(made[-1], state="live")
    gone = draw(st.sets(st.integers(1, len(made) - 1)))
    return history(*made, live=made[-1].number, gone=gone)


@given(histories(), st.data())
def test_taking_one_edit_out_takes_out_exactly_that_one(past: History, data: st.DataObject) -> None:
    """The others stay in order, and unless a good generation held just them, all are re-probed."""
    live = past.edits_of(past.live)
    out = data.draw(st.sampled_from(live))
    plan = without_edit(past, out)
    assert plan.removed == (out,)
    assert plan.restored == ()
    assert plan.edits == tuple(e for e in live if e != out)
    if plan.generation is None:
        assert (plan.way, plan.reprobe) == (Way.BUILD, plan.edits)
    else:
        assert past.edits_of(plan.generation) == plan.edits
        assert past.is_good(plan.generation)
        assert (plan.way is Way.PROMOTE) is past.has_directory(plan.generation)


@given(histories(), st.integers(0, 9), st.booleans())
def test_no_plan_leads_to_a_bad_generation_unasked(past: History, number: int, force: bool) -> None:
    """Every plan that comes back is to the generation named, and good unless it was forced."""
    try:
        plan = to_generation(past, number, force=force)
    except (GenerationError, UsageError):
        assume(False)
    assert plan.generation == number
    assert force or past.is_good(number)
    assert set(plan.edits) == (set(past.edits_of(past.live)) - set(plan.removed)) | set(plan.restored)
