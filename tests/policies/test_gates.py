"""The gates: every verdict for every kind of reading, and that bad news is never averaged away."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gates import Confidence, Direction, Gate, gates_for, judge, worst
from store.facts import Op, Reading, Suite, Verdict

SHARE = Gate(Suite.UNRELATED, 0.8, min_n=10)
EXACT = Gate(Suite.EFFICACY, 0.95, min_n=3, confidence=Confidence.VALUE)
COST = Gate(Suite.OVER_REFUSAL, 0.05, Direction.AT_MOST, min_n=10)
OPTIONAL = Gate(Suite.LIVE_FACTS, 0.9, may_be_empty=True)

PASS, INCONCLUSIVE, ERROR, FAIL = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL
NAN = math.nan


@dataclass(frozen=True)
class Set:
    threshold: float | None = None
    min_n: int | None = None


def perfect(gate: Gate) -> Reading:
    """A reading no gate can object to."""
    value = 1.0 if gate.direction is Direction.AT_LEAST else 0.0
    return Reading(gate.suite, value, value, value, max(gate.min_n, 1))


@pytest.mark.parametrize(
    ("gate", "value", "low", "high", "n", "expected"),
    [
        (SHARE, 0.8, 0.7, 0.9, 100, PASS),  # on the threshold
        (SHARE, 0.79, 0.7, 0.86, 100, INCONCLUSIVE),
        (SHARE, 0.5, 0.4, 0.6, 100, FAIL),
        (SHARE, 0.5, 0.4, 0.8, 100, INCONCLUSIVE),  # the favourable bound touches
        (SHARE, 1.0, 0.7, 1.0, 9, INCONCLUSIVE),  # too few, however good
        (SHARE, 0.0, 0.0, 0.3, 9, INCONCLUSIVE),  # too few, however bad
        (SHARE, NAN, 0.0, 1.0, 100, ERROR),
        (SHARE, 0.9, NAN, 1.0, 100, ERROR),
        (SHARE, 0.9, 0.8, 1.0, -1, ERROR),
        (SHARE, 1.2, 0.8, 1.3, 100, ERROR),
        (SHARE, 0.9, 1.0, 0.8, 100, ERROR),
        (SHARE, NAN, NAN, NAN, 0, ERROR),
        (SHARE, 1.0, 1.0, 1.0, 0, INCONCLUSIVE),
        (EXACT, 0.9, 0.6, 1.0, 10, FAIL),  # no benefit of the doubt
        (EXACT, 1.0, 0.6, 1.0, 3, PASS),
        (COST, 0.05, 0.01, 0.1, 100, PASS),
        (COST, 0.08, 0.04, 0.12, 100, INCONCLUSIVE),
        (COST, 0.3, 0.2, 0.4, 100, FAIL),
        (OPTIONAL, NAN, NAN, NAN, 0, PASS),
        (OPTIONAL, 0.5, 0.1, 0.8, 2, FAIL),
        (OPTIONAL, NAN, NAN, NAN, 1, ERROR),
        (Gate(Suite.PERPLEXITY, 1.2, Direction.AT_MOST), math.inf, 1.0, math.inf, 8, INCONCLUSIVE),
        (Gate(Suite.PERPLEXITY, 1.2, Direction.AT_MOST), math.inf, math.inf, math.inf, 8, FAIL),
        (Gate(Suite.KL_DRIFT, 0.2, Direction.AT_MOST), -1e-7, -1e-7, 0.0, 8, PASS),
        (Gate(Suite.KL_DRIFT, 0.2, Direction.AT_MOST), -math.inf, -math.inf, 0.0, 8, ERROR),
        (Gate(Suite.UNRELATED, NAN), 1.0, 1.0, 1.0, 8, ERROR),
    ],
)
def test_each_kind_of_reading_has_its_verdict(
    gate: Gate, value: float, low: float, high: float, n: int, expected: Verdict
) -> None:
    """A gate passes on its value alone; bounds, n and nonsense only ever take a pass away."""
    judgement = judge([Reading(gate.suite, value, low, high, n)], [gate])
    assert judgement.verdict is expected
    assert judgement.suites[0].verdict is expected


@pytest.mark.parametrize("op", list(Op))
def test_every_suite_has_exactly_one_default_gate(op: Op) -> None:
    """No suite of the house can be measured and then forgotten by the judge."""
    assert sorted(g.suite for g in gates_for(op)) == sorted(Suite)


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("missing", list(Suite))
def test_a_suite_that_was_not_measured_is_inconclusive(op: Op, missing: Suite) -> None:
    """Leaving any one reading out turns a clean pass into an inconclusive verdict that names it."""
    gates = gates_for(op)
    assert judge([perfect(g) for g in gates], gates, op).verdict is PASS
    judgement = judge([perfect(g) for g in gates if g.suite is not missing], gates, op)
    assert judgement.verdict is INCONCLUSIVE
    assert judgement.reason == f"inconclusive: {missing}: not measured"


def test_no_gates_and_no_readings_are_not_a_pass() -> None:
    """A judge who was asked nothing has shown nothing."""
    assert judge([], []).verdict is INCONCLUSIVE
    assert judge([perfect(SHARE)], []).verdict is INCONCLUSIVE
    assert worst([]) is INCONCLUSIVE


def test_an_empty_suite_says_so_in_its_reason() -> None:
    """A suite with nothing to measure passes only by being declared, and the reason shows it."""
    judgement = judge([Reading(Suite.LIVE_FACTS, NAN, 0.0, 1.0, 0)], [OPTIONAL])
    assert judgement.suites[0].reason == "live_facts: there was nothing to measure for this fact"


def test_a_suite_measured_twice_must_meet_its_gate_twice() -> None:
    """A second good reading doesn't paint over a bad one."""
    bad = Reading(Suite.UNRELATED, 0.1, 0.0, 0.2, 100)
    for readings in ([perfect(SHARE), bad], [bad, perfect(SHARE)]):
        assert judge(readings, [SHARE]).verdict is FAIL


def test_reasons_carry_the_numbers() -> None:
    """An operator can read value, interval, n and threshold off the verdict's sentence."""
    judgement = judge([Reading(Suite.UNRELATED, 0.5, 0.4, 0.6, 100)], [SHARE])
    assert judgement.reason == ("fail: unrelated: 0.5 (95 % interval 0.4 to 0.6, n=100), wanted at least 0.8")


def test_a_retraction_is_measured_by_unsure_answers() -> None:
    """The same reading is worded as doubt for a retraction, and asked a little less of."""
    reading = Reading(Suite.EFFICACY, 0.85, 0.6, 0.95, 20)
    gates = [g for g in gates_for(Op.RETRACT) if g.suite is Suite.EFFICACY]
    judgement = judge([reading], gates, Op.RETRACT)
    assert judgement.verdict is PASS
    assert "0.85 of answers unsure" in judgement.suites[0].reason
    assert judge([reading], gates_for(Op.UPSERT)).verdict is FAIL


def test_the_operator_can_move_a_gate() -> None:
    """An override replaces what it names and leaves the rest of the gate as it was."""
    gates = {
        g.suite: g
        for g in gates_for(Op.UPSERT, {"neighbours": Set(threshold=0.1), "unrelated": Set(min_n=7)})
    }
    assert gates[Suite.NEIGHBOURS].threshold == 0.1
    assert gates[Suite.NEIGHBOURS].may_be_empty
    assert (gates[Suite.UNRELATED].threshold, gates[Suite.UNRELATED].min_n) == (0.8, 7)


numbers = st.floats(-0.5, 2.0) | st.sampled_from([NAN, math.inf, -math.inf])
readings_of_any_kind = st.builds(
    Reading, st.sampled_from(Suite), numbers, numbers, numbers, st.integers(-1, 200)
)


@given(st.lists(readings_of_any_kind), st.lists(st.sampled_from(gates_for(Op.UPSERT))), st.data())
def test_another_gate_never_improves_the_verdict(
    readings: list[Reading], gates: list[Gate], data: st.DataObject
) -> None:
    """Asking more questions can only make a judgement worse or leave it, once one was asked."""
    extra = data.draw(st.sampled_from(gates_for(Op.UPSERT)))
    if gates:
        assert judge(readings, [*gates, extra]).verdict >= judge(readings, gates).verdict


@given(st.lists(readings_of_any_kind), readings_of_any_kind)
def test_a_second_reading_never_improves_a_measured_suite(readings: list[Reading], extra: Reading) -> None:
    """Once a suite has a reading, further readings of it can only make the judgement worse."""
    gates = gates_for(Op.UPSERT)
    if any(r.suite is extra.suite for r in readings):
        assert judge([*readings, extra], gates).verdict >= judge(readings, gates).verdict


@given(st.lists(readings_of_any_kind))
def test_a_pass_means_that_every_gate_was_met(readings: list[Reading]) -> None:
    """A judgement is the maximum of its suites, each of which is there with a reason."""
    judgement = judge(readings, gates_for(Op.UPSERT))
    assert judgement.verdict is max(s.verdict for s in judgement.suites)
    assert {s.suite for s in judgement.suites} == set(Suite)
    assert all(s.reason for s in judgement.suites)
