"""Capacity: what readings leave, what an edit costs, when edits wait and what brings them back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.capacity import IDEAL, Capacity, Chain, capacity, expected_cost, headroom, share_left
from policies.gates import Direction, Gate, gates_for
from store.facts import Generation, Op, Reading, Suite

GATES = gates_for(Op.UPSERT)
BY_SUITE = {gate.suite: gate for gate in GATES}
NOW = datetime(2026, 3, 1, tzinfo=UTC)
BASE = Generation(0, None, "retired", "", None, (), NOW)


@dataclass(frozen=True)
class Threshold:
    """An operator's override of one gate."""

    threshold: float | None
    min_n: int | None = None


def read(value: float, suite: Suite = Suite.UNRELATED, n: int = 60) -> Reading:
    return Reading(suite, value, value, value, n)


def grown(*kept: float | None) -> Chain:
    """One edit after the other, generation N with the edits 1 to N; None: nobody measured it."""
    numbers = range(1, len(kept) + 1)
    rows = {n: Generation(n, n - 1, "retired", "", None, tuple(range(1, n + 1)), NOW) for n in numbers}
    readings = {n: [read(value)] for n, value in zip(numbers, kept, strict=True) if value is not None}
    return Chain({0: BASE, **rows}, len(kept), readings)


def taken_out(chain: Chain, edit: int) -> Chain:
    """The live generation less one edit, built anew and never measured."""
    number = max(chain.generations) + 1
    edits = tuple(e for e in chain.generations[chain.live].edits if e != edit)
    row = Generation(number, chain.live, "live", "", None, edits, NOW)
    return Chain({**chain.generations, number: row}, number, chain.readings)


def left(chain: Chain, reserve: float = 0.05) -> Capacity:
    return capacity(chain, GATES, reserve=reserve)


@pytest.mark.parametrize(
    ("suite", "value", "share"),
    [
        (Suite.UNRELATED, 1.0, 1.0),
        (Suite.UNRELATED, 0.9, 0.5),
        (Suite.UNRELATED, 0.8, 0.0),
        (Suite.UNRELATED, 0.3, 0.0),
        (Suite.LIVE_FACTS, 0.95, 0.5),
        (Suite.KL_DRIFT, -0.0001, 1.0),
        (Suite.KL_DRIFT, 0.05, 0.8),
        (Suite.KL_DRIFT, float("inf"), 0.0),
        (Suite.KL_DRIFT, float("nan"), 0.0),
        (Suite.PERPLEXITY, 1.0, 1.0),
        (Suite.PERPLEXITY, 0.97, 1.0),
        (Suite.PERPLEXITY, 1.05, 0.75),
    ],
)
def test_what_one_reading_leaves(suite: Suite, value: float, share: float) -> None:
    """The way from what the base reads to the gate's threshold: 1 at the base, 0 at the threshold."""
    assert share_left(BY_SUITE[suite], value) == pytest.approx(share)


@pytest.mark.parametrize(
    ("suite", "threshold", "value", "share"),
    [
        (Suite.UNRELATED, 1.0, 1.0, 1.0),
        (Suite.UNRELATED, 1.0, 0.99, 0.0),
        (Suite.UNRELATED, 1.5, 1.0, 0.0),
        (Suite.KL_DRIFT, 0.0, 0.0, 1.0),
        (Suite.KL_DRIFT, 0.0, 0.1, 0.0),
        (Suite.PERPLEXITY, 0.9, 1.0, 0.0),
        (Suite.UNRELATED, float("nan"), 1.0, 0.0),
    ],
)
def test_a_gate_that_allows_no_loss_leaves_all_or_nothing(
    suite: Suite, threshold: float, value: float, share: float
) -> None:
    """No share of nothing is worked out, whatever an operator sets."""
    direction = BY_SUITE[suite].direction
    assert share_left(Gate(suite, threshold, direction), value) == share


def test_the_worst_suite_counts_and_is_named() -> None:
    """A model that keeps its answers but drifts is as full as its drift says."""
    found = headroom([read(0.95), read(0.2, Suite.KL_DRIFT), read(1.0, Suite.LIVE_FACTS)], GATES)
    assert found is not None
    assert (found.suite, found.value, found.threshold) == (Suite.KL_DRIFT, 0.2, 0.25)
    assert found.share == pytest.approx(0.2)


def test_suites_of_one_fact_and_empty_suites_say_nothing_of_the_model() -> None:
    """Neighbours differ from fact to fact, and a first edit has no other live facts."""
    assert headroom([read(0.6, Suite.NEIGHBOURS), read(0.0, Suite.LIVE_FACTS, n=0)], GATES) is None
    found = headroom([read(0.9), read(0.0, Suite.LIVE_FACTS, n=0)], GATES)
    assert found is not None
    assert found.suite is Suite.UNRELATED


def test_the_base_is_full_and_nothing_is_known_of_costs() -> None:
    """Before the first edit there is no limit, no cost and no waiting."""
    assert left(Chain({0: BASE}, 0, {})) == Capacity(0, 1.0, None, None, None, None, None)


def test_one_edit_is_no_trend() -> None:
    """What the first edit cost doesn't keep the second from being tried."""
    found = left(grown(0.86))
    assert (found.cost, found.edits_left, found.waits) == (None, None, "")
    assert found.headroom == pytest.approx(0.3)


def test_the_cost_is_the_mean_of_the_last_edits() -> None:
    """Of seven edits the last five count; gains count against losses."""
    found = left(grown(0.99, 0.98, 0.97, 0.96, 0.97, 0.94, 0.92))
    assert found.cost == pytest.approx((0.98 - 0.92) / 5 / 0.2)
    assert found.edits_left == 10
    assert expected_cost([0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1]) == pytest.approx(0.1)


def test_the_edits_of_a_batch_share_its_cost() -> None:
    """Four edits at once that take a fifth of the way cost a twentieth each, and give that back."""
    batch = Generation(2, 1, "retired", "", None, (1, 2, 3, 4, 5), NOW)
    chain = grown(0.96)
    both = Chain({**chain.generations, 2: batch}, 2, {**chain.readings, 2: [read(0.92)]})
    assert left(both).cost == pytest.approx(0.05)
    assert left(both).edits_left == 12
    assert left(taken_out(both, 3)).headroom == pytest.approx(0.6 + 0.05)


def test_the_first_batch_says_no_more_than_the_first_edit() -> None:
    """Nobody knows under which of its edits broke what can break but once."""
    first = Generation(1, 0, "retired", "", None, (1, 2, 3), NOW)
    alone = Chain({0: BASE, 1: first}, 1, {1: [read(0.94)]})
    assert (left(alone).cost, left(alone).edits_left) == (None, None)
    then = Generation(2, 1, "live", "", None, (1, 2, 3, 4), NOW)
    two = Chain({**alone.generations, 2: then}, 2, {**alone.readings, 2: [read(0.92)]})
    assert left(two).cost == pytest.approx(0.1)


def test_the_first_edit_says_nothing_of_the_next() -> None:
    """What breaks under the first edit can't break again: only later costs are averaged."""
    assert expected_cost([0.6]) is None
    assert expected_cost([0.6, 0.1, 0.2]) == pytest.approx(0.15)


@pytest.mark.parametrize("kept", [(1.0, 1.0, 1.0), (0.9, 0.95, 1.0), (0.9, 1.0, 1.0)])
def test_no_measurable_cost_means_no_known_limit(kept: tuple[float, ...]) -> None:
    """A model that lost nothing over its edits gives no number to divide by."""
    found = left(grown(*kept))
    assert (found.cost, found.edits_left, found.waits) == (None, None, "")


def test_a_whole_number_of_edits_left_is_not_lost_to_rounding() -> None:
    """0.6 of headroom at 0.2 an edit are three edits, whatever floats make of it."""
    assert left(grown(0.96, 0.92)).edits_left == 3


def test_edits_wait_below_the_reserve() -> None:
    """The reason names the suite, its value, the gate, and what can be done."""
    found = left(grown(0.95, 0.805))
    assert found.waits == (
        "capacity: unrelated 0.805, at least 0.8 wanted; headroom 0.025, an edit costs about 0.72; about 0 "
        "edits left; roll back edits that are no longer needed, relax [gates.unrelated], set [capacity] "
        "enforce = false, or start from a new base"
    )
    assert found.edits_left == 0
    assert left(grown(0.805)).waits.startswith(
        "capacity: unrelated 0.805, at least 0.8 wanted; headroom 0.02"
    )


def test_edits_wait_when_one_is_expected_to_cost_more_than_is_left() -> None:
    """Above the reserve, but the next edit would spoil the model."""
    found = left(grown(0.92, 0.84))
    assert (found.edits_left, found.headroom > 0.05) == (0, True)
    assert "headroom 0.2, an edit costs about 0.4;" in found.waits


def test_an_at_most_gate_is_said_as_one() -> None:
    """The operator of a drifting model reads which way to relax the gate."""
    row = Generation(1, 0, "live", "", None, (1,), NOW)
    found = left(Chain({0: BASE, 1: row}, 1, {1: [read(0.249, Suite.KL_DRIFT)]}))
    assert "kl_drift 0.249, at most 0.25 wanted" in found.waits
    assert "relax [gates.kl_drift]" in found.waits


def test_an_operator_can_go_on_regardless() -> None:
    """Not enforced, nothing waits and the numbers are the same; a relaxed gate gives room."""
    chain = grown(0.92, 0.83)
    free = capacity(chain, GATES, reserve=0.05, enforce=False)
    assert (free.waits, free.edits_left) == ("", 0)
    relaxed = gates_for(Op.UPSERT, {"unrelated": Threshold(0.6)})
    assert capacity(chain, relaxed, reserve=0.05).edits_left == 2


def test_going_back_brings_the_headroom_back() -> None:
    """A generation that was measured leaves what it left then; the base leaves everything."""
    chain = grown(0.95, 0.9, 0.81)
    assert left(chain).waits
    back = Chain(chain.generations, 2, chain.readings)
    assert left(back).headroom == pytest.approx(0.5)
    assert left(back).waits == ""
    assert left(Chain(chain.generations, 0, chain.readings)).headroom == 1.0


def test_an_edit_from_the_middle_gives_back_what_it_cost() -> None:
    """Nobody measured the rest, so the value is left open and the share estimated."""
    found = left(taken_out(grown(0.97, 0.85, 0.81), 2))
    assert found.headroom == pytest.approx(0.05 + 0.6)
    assert (found.suite, found.value, found.edits_left) == (Suite.UNRELATED, None, 3)
    assert found.cost == pytest.approx(0.2)


def test_an_estimate_credits_no_gain_and_never_more_than_everything() -> None:
    """Taking out an edit that seemed to do good makes nothing worse and nothing better."""
    assert left(taken_out(grown(0.9, 0.94, 0.88), 2)).headroom == pytest.approx(0.4)
    chain = taken_out(taken_out(grown(0.82, 1.0, 0.99), 1), 2)
    assert left(chain).headroom == 1.0


def test_an_estimate_that_is_too_low_says_that_it_is_one() -> None:
    """The operator isn't shown a reading that nobody took."""
    found = left(taken_out(grown(0.9, 0.88, 0.81), 2), reserve=0.5)
    assert found.waits.startswith("capacity: generation 4 was never measured, unrelated is estimated;")


def test_a_generation_without_readings_counts_as_its_parent() -> None:
    """A crash can cost the readings: the edit is taken for free until the next one is measured."""
    found = left(grown(0.95, None))
    assert found.headroom == pytest.approx(0.75)
    assert found.value is None
    after = left(grown(0.95, None, 0.85))
    assert after.headroom == pytest.approx(0.25)
    assert after.cost == pytest.approx(0.5)


shares = st.floats(-0.5, 1.5)
chains = st.lists(st.none() | st.floats(0.0, 1.0), max_size=8).map(lambda kept: grown(*kept))
thresholds = st.floats(0.0, 2.0)


@given(st.sampled_from(sorted(IDEAL)), thresholds, shares, shares)
def test_a_better_reading_never_leaves_less(suite: Suite, threshold: float, one: float, two: float) -> None:
    """Shares stay in [0, 1] and are monotone in the reading, for every threshold."""
    gate = Gate(suite, threshold, BY_SUITE[suite].direction)
    worse, better = sorted((one, two), reverse=gate.direction is Direction.AT_MOST)
    assert 0.0 <= share_left(gate, worse) <= share_left(gate, better) <= 1.0


@given(chains, st.floats(0.0, 1.0), st.booleans())
def test_waiting_has_a_cause_and_full_headroom_never_waits(
    chain: Chain, reserve: float, enforce: bool
) -> None:
    """Headroom is a share; edits wait exactly when it is enforced and none is left."""
    found = capacity(chain, GATES, reserve=reserve, enforce=enforce)
    assert 0.0 <= found.headroom <= 1.0
    assert bool(found.waits) is (enforce and found.edits_left == 0)
    assert found.edits_left is None or found.edits_left >= 0
    if found.headroom == 1.0:
        assert not found.waits


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.data())
def test_taking_an_edit_out_never_leaves_less(kept: list[float], data: st.DataObject) -> None:
    """An estimate is no lower than what the generation with the edit left, and no share above 1."""
    chain = grown(*kept)
    edit = data.draw(st.integers(1, len(kept)))
    before, after = left(chain).headroom, left(taken_out(chain, edit)).headroom
    assert before <= after <= 1.0


@given(chains, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_smaller_reserve_never_makes_more_edits_wait(chain: Chain, one: float, two: float) -> None:
    """What goes on under a larger reserve goes on under a smaller one."""
    low, high = sorted((one, two))
    waits: Mapping[float, bool] = {r: bool(left(chain, r).waits) for r in (low, high)}
    assert waits[high] or not waits[low]
