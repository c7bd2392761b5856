"""When periodic jobs run: never too early, never for ever put off."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cadence import Job, QuietHours, due, next_run, next_wake

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NIGHT = QuietHours(time(22), time(6))
MIDDAY = QuietHours(time(11), time(13))


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (Job("scan", HOUR), "scan: never ran"),
        (Job("scan", HOUR, NOON - HOUR), "scan: last run 1 h ago, due every 1 h"),
        (Job("scan", HOUR, NOON - 30 * HOUR), "scan: last run 1.25 d ago, due every 1 h"),
        (
            Job("scan", HOUR, NOON + HOUR),
            "scan: its last run is dated 2026-03-01T13:00:00+00:00, which is still to come",
        ),
        (Job("scan", HOUR, NOON - HOUR / 2), None),
        (Job("scan", timedelta(0)), None),
        (Job("scan", -HOUR, NOON - 9 * HOUR), None),
    ],
)
def test_a_job_is_due_for_one_stated_reason(job: Job, reason: str | None) -> None:
    """A job runs when its interval is over, when it never ran, or when the clock went back."""
    assert [d.reason for d in due([job], NOON)] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("quiet", "hour", "expected"),
    [
        (NIGHT, 21, False),
        (NIGHT, 22, True),
        (NIGHT, 0, True),
        (NIGHT, 6, False),
        (MIDDAY, 12, True),
        (MIDDAY, 13, False),
        (QuietHours(time(5), time(5)), 5, False),
    ],
)
def test_quiet_hours_hold_their_start_and_not_their_end(quiet: QuietHours, hour: int, expected: bool) -> None:
    """Quiet hours may run over midnight, and an empty stretch is never quiet."""
    assert quiet.holds(NOON.replace(hour=hour)) is expected


def test_heavy_jobs_wait_for_the_end_of_quiet_hours() -> None:
    """A heavy job that falls due in quiet hours starts when they end; a light one doesn't wait."""
    heavy, light = Job("reprobe", HOUR, heavy=True), Job("scan", HOUR)
    assert [d.job for d in due([heavy, light], NOON, MIDDAY)] == [light]
    assert next_run(heavy, NOON, MIDDAY) == NOON + HOUR
    assert [d.job for d in due([heavy], NOON + HOUR, MIDDAY)] == [heavy]
    assert NIGHT.ends_after(NOON.replace(hour=23)) == NOON.replace(day=2, hour=6)


def test_the_longest_overdue_goes_first() -> None:
    """Jobs that never ran lead, then those whose date passed longest ago."""
    jobs = [Job("b", HOUR, NOON - 2 * HOUR), Job("a", HOUR, NOON - 5 * HOUR), Job("c", HOUR)]
    assert [d.job.name for d in due(jobs, NOON)] == ["c", "a", "b"]
    assert next_wake([], NOON) is None


moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
jobs = st.builds(
    Job,
    st.sampled_from(["scan", "backup", "reprobe"]),
    st.timedeltas(timedelta(seconds=-5), timedelta(days=40)),
    st.none() | moments,
    st.booleans(),
)
quiets = st.none() | st.builds(QuietHours, st.times(), st.times())


@given(st.lists(jobs), moments, quiets)
def test_waking_at_the_named_moment_finds_work(
    taken: list[Job], now: datetime, quiet: QuietHours | None
) -> None:
    """Sleeping until `next_wake` always ends with something due: no job is put off for ever."""
    wake = next_wake(taken, now, quiet)
    if wake is not None:
        assert due(taken, max(wake, now), quiet)
        assert bool(due(taken, now, quiet)) is (wake <= now)


@given(jobs, moments, quiets)
def test_a_job_that_just_ran_rests_for_its_interval(
    job: Job, now: datetime, quiet: QuietHours | None
) -> None:
    """Having run at `now`, a job isn't due again before its interval is over."""
    ran = Job(job.name, job.every, now, job.heavy)
    at = next_run(ran, now, quiet)
    assert at is None or at >= now + job.every
