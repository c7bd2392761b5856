"""When periodic jobs are due.

Knows intervals, the last run and which hours are quiet (`policies.hours`). Doesn't know the clock, the
scheduler or what a job does. Times are aware.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from policies.hours import Hours


@dataclass(frozen=True, slots=True)
class Job:
    """A periodic job. `every` of zero or less: never. `heavy` jobs wait for the end of quiet hours."""

    name: str
    every: timedelta
    last: datetime | None = None
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    job: Job
    reason: str


def due(jobs: Iterable[Job], now: datetime, hours: Hours | None = None) -> tuple[Due, ...]:
    """The jobs to start now, longest overdue first.

    A job that never ran is due at once. So is one whose last run lies in the future: the clock was
    set back, and waiting for it to catch up could take years. Missed runs aren't made up for: one
    run covers them.
    """
    ready = [(at, job) for job in jobs if (at := next_run(job, now, hours)) is not None and at <= now]
    ready.sort(
        key=lambda pair: (pair[0] if pair[1].last else datetime.min.replace(tzinfo=now.tzinfo), pair[1].name)
    )
    return tuple(Due(job, _reason(job, now)) for _, job in ready)


def next_run(job: Job, now: datetime, hours: Hours | None = None) -> datetime | None:
    """When the job should start: never (None), in the past when overdue, else a moment to come."""
    if job.every <= timedelta(0):
        return None
    at = now if job.last is None or job.last > now else job.last + job.every
    if not (job.heavy and hours):
        return at
    return at if at <= now and not hours.are_quiet(now) else hours.quiet_until(max(at, now))


def _reason(job: Job, now: datetime) -> str:
    if job.last is None:
        return f"{job.name}: never ran"
    if job.last > now:
        return f"{job.name}: its last run is dated {job.last.isoformat()}, which is still to come"
    return f"{job.name}: last run {_span(now - job.last)} ago, due every {_span(job.every)}"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
