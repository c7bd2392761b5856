"""Nouns over the wire and times as text."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import facts
from store.times import parse_time, time_text
from store.wire import WireError, from_wire, to_wire

NOUNS = [
    facts.FactKey, facts.FactUpdate, facts.FactRow, facts.DiffRow, facts.Edit, facts.EditRequest,
    facts.Phrasing, facts.Reading, facts.Judgement, facts.ModuleScore, facts.Generation, facts.Outcome,
    facts.LatentReading,
]  # fmt: skip
GENERATION: dict[str, object] = {
    "number": 1, "parent": None, "state": "live", "weights_sha256": "", "theta_blob": None, "edits": [],
    "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
READING: dict[str, object] = {"suite": "efficacy", "value": 1, "low": 1, "high": 1, "n": 1}

st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@given(st.sampled_from(NOUNS).flatmap(st.from_type))
def test_every_noun_survives_the_wire(noun: object) -> None:
    """Any value of any noun comes back equal from JSON."""
    assert from_wire(type(noun), json.loads(json.dumps(to_wire(noun)))) == noun


@pytest.mark.parametrize(
    ("cls", "data", "cause"),
    [
        (facts.FactKey, {"subject": "a"}, "missing keys relation"),
        (facts.FactKey, {"subject": "a", "relation": "b", "x": 1}, "unknown keys x"),
        (facts.FactKey, {"subject": 1, "relation": "b"}, "FactKey.subject: expected str, got int '1'"),
        (facts.FactKey, [], "expected an object"),
        (facts.Phrasing, {"text": "a", "is_question": 1}, "expected bool"),
        (facts.ModuleScore, {"module": "m", "attribution": True}, "expected float"),
        (facts.Generation, {**GENERATION, "edits": [1, "2"]}, r"edits\[1\]: expected int"),
        (facts.Generation, {**GENERATION, "created_at": "yesterday"}, "isn't an RFC 3339 time"),
        (facts.Reading, {**READING, "suite": "luck"}, "'luck' is not a valid Suite"),
        (facts.Outcome, {"seconds": [["a"]]}, "missing keys edit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(cls: type, data: object, cause: str) -> None:
    """A wrong key, type, length or choice raises WireError, which says where."""
    with pytest.raises(WireError, match=cause):
        from_wire(cls, data)


def test_what_json_cannot_hold_is_refused() -> None:
    """A type without a JSON form isn't guessed at."""
    with pytest.raises(WireError, match="no JSON form"):
        to_wire({"x": object()})


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.just(UTC)))
def test_times_survive_and_sort_as_text(one: datetime, other: datetime) -> None:
    """Stored times come back equal and sort as the times do."""
    in_utc = one.astimezone(UTC) if 1 < one.year < 9999 else other
    assert parse_time(time_text(in_utc)) == in_utc
    assert (time_text(in_utc) < time_text(other)) == (in_utc < other)


def test_offsets_and_fractions_are_read() -> None:
    """Any offset and any number of decimals that RFC 3339 allows."""
    assert parse_time("2026-01-31t09:00:00.5+02:00") == datetime(2026, 1, 31, 7, 0, 0, 500_000, UTC)
    assert parse_time("2026-01-31 09:00:00.123456789Z").microsecond == 123456
    assert (
        time_text(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5)))) == "2026-01-01T05:00:00.000000Z"
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31T09:00:00",
        "2026-W05-1T00:00:00Z",
        "20260131T090000Z",
        "2026-01-31T24:01:00Z",
        "2026-13-01T00:00:00Z",
        "٢٠٢٦-01-31T00:00:00Z",
        "",
    ],
)
def test_other_forms_are_no_times(text: str) -> None:
    """ISO 8601 forms outside RFC 3339, and impossible times, are refused."""
    with pytest.raises(ValueError):  # noqa: PT011
        parse_time(text)


def test_a_time_without_offset_is_never_stored() -> None:
    """A naive datetime is a bug, not a time in UTC."""
    with pytest.raises(ValueError, match="without an offset"):
        time_text(datetime(2026, 1, 1))
