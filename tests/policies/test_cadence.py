"""When periodic jobs run: never too early, never for ever put off."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cadence import Job, due, next_run
from policies.hours import Hours, stretch

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NIGHT = Hours((stretch("22:00-06:00"),))
MIDDAY = Hours((stretch("11:00-13:00"),))


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


def test_heavy_jobs_wait_for_the_end_of_quiet_hours() -> None:
    """A heavy job that falls due in quiet hours starts when they end; a light one doesn't wait, and
    windows are for edits."""
    heavy, light = Job("reprobe", HOUR, heavy=True), Job("scan", HOUR)
    assert [d.job for d in due([heavy, light], NOON, MIDDAY)] == [light]
    assert next_run(heavy, NOON, MIDDAY) == NOON + HOUR
    assert [d.job for d in due([heavy], NOON + HOUR, MIDDAY)] == [heavy]
    assert [d.job for d in due([heavy], NOON, Hours(windows=(stretch("22:00-23:00"),)))] == [heavy]


def test_the_longest_overdue_goes_first() -> None:
    """Jobs that never ran lead, then those whose date passed longest ago."""
    jobs = [Job("b", HOUR, NOON - 2 * HOUR), Job("a", HOUR, NOON - 5 * HOUR), Job("c", HOUR)]
    assert [d.job.name for d in due(jobs, NOON)] == ["c", "a", "b"]


moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
jobs = st.builds(
    Job,
    st.sampled_from(["scan", "backup", "reprobe"]),
    st.timedeltas(timedelta(seconds=-5), timedelta(days=40)),
    st.none() | moments,
    st.booleans(),
)
quiets = st.sampled_from([None, NIGHT, MIDDAY, Hours((stretch("00:01-24:00"), stretch("sat 00:00-24:00")))])


@given(st.lists(jobs), moments, quiets)
def test_waking_at_the_named_moment_finds_work(taken: list[Job], now: datetime, hours: Hours | None) -> None:
    """Sleeping until the earliest `next_run` always ends with something due: no job is put off for ever."""
    wake = min((at for job in taken if (at := next_run(job, now, hours)) is not None), default=None)
    if wake is not None:
        assert due(taken, max(wake, now), hours)
        assert bool(due(taken, now, hours)) is (wake <= now)


@given(jobs, moments, quiets)
def test_a_job_that_just_ran_rests_for_its_interval(job: Job, now: datetime, hours: Hours | None) -> None:
    """Having run at `now`, a job isn't due again before its interval is over."""
    ran = Job(job.name, job.every, now, job.heavy)
    at = next_run(ran, now, hours)
    assert at is None or at >= now + job.every
