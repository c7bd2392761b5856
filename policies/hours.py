"""At which hours edits may be started and heavy jobs run: quiet stretches, windows, a time zone.

Knows the clock on the wall of one zone. Doesn't know what time it is, which zones there are, or the queue. A
moment is tested by what the wall clock shows at it, so that nothing jumps when clocks are changed: a time of
day that is skipped doesn't come that day, one that comes twice counts twice.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from policies.plan import is_due
from policies.sources import For, Wait
from store.facts import Edit, Priority

DAY, WEEK = 24 * 60, 7 * 24 * 60  # minutes
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTE = timedelta(minutes=1)
_FAR = timedelta(weeks=3)  # a week's only window may fall into an hour that is skipped
_STRETCH = re.compile(r"(?:([a-z,-]+) +)?([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of the day, `minutes` long from minute `start` of each of `days` (0: Monday) on; one that
    runs over midnight belongs to the day that it starts on. `text` is how an operator wrote it."""

    text: str
    days: frozenset[int]
    start: int
    minutes: int

    def holds(self, minute: int) -> bool:
        """Whether a minute of the week, counted from Monday's midnight, lies in it; its end doesn't."""
        return any((minute - begin) % WEEK < self.minutes for begin in self.begins())

    def begins(self) -> Iterator[int]:
        """The minutes of the week at which it begins."""
        return (day * DAY + self.start for day in self.days)


def stretch(text: str) -> Stretch:
    """`22:00-06:00`, `sat 01:00-05:00`, `mon-fri,sun 00:00-24:00`. Raises ValueError for anything else."""
    found = _STRETCH.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} isn't like 22:00-06:00 or sat 01:00-05:00 or mon-fri 00:00-24:00")
    days, *numbers = found.groups()
    start_hour, start_minute, end_hour, end_minute = (int(n) if n else 0 for n in numbers)
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute if found[4] else DAY
    if start == end:
        raise ValueError(f"{text!r} ends when it starts; the whole day is 00:00-24:00")
    return Stretch(text, _days(days or "mon-sun"), start, (end - start) % DAY or DAY)


def _days(text: str) -> frozenset[int]:
    found = set[int]()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"{part!r} is no day or range of days; they are {', '.join(DAYS)}")
        begin = DAYS.index(first)
        span = (DAYS.index(last or first) - begin) % 7
        found |= {(begin + at) % 7 for at in range(span + 1)}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Hours:
    """No edit is started and no heavy job run in `quiet` stretches, and with `windows` edits are only
    started in those. Raises ValueError for hours at which no edit could ever be started."""

    quiet: tuple[Stretch, ...] = ()
    windows: tuple[Stretch, ...] = ()
    zone: tzinfo = UTC
    high_priority_passes: bool = False

    def __post_init__(self) -> None:
        # Between two edges nothing changes, so that the edges tell of the whole week.
        if all(self._quiet(edge) for edge in self._edges()):
            raise ValueError("quiet: every hour of the week is quiet, so that no edit could ever start")
        if not any(self._open(edge) for edge in self._edges()):
            raise ValueError("windows: all of them lie in quiet hours, so that no edit could ever start")

    def are_quiet(self, now: datetime) -> bool:
        return self._quiet(self._minute(now))

    def are_open(self, now: datetime) -> bool:
        """Whether edits may be started."""
        return self._open(self._minute(now))

    def let_start(self, priority: Priority, now: datetime) -> bool:
        """Whether an edit of this priority may be started."""
        return self.are_open(now) or (self.high_priority_passes and priority is Priority.HIGH)

    def quiet_until(self, now: datetime) -> datetime:
        """The first moment from `now` on that isn't quiet."""
        return self._first(now, lambda minute: not self._quiet(minute)) or now + _FAR

    def open_at(self, now: datetime) -> datetime:
        """The first moment from `now` on at which edits may be started."""
        return self._first(now, self._open) or now + _FAR

    def open_until(self, now: datetime) -> datetime | None:
        """The first moment from `now` on at which edits may not be started; None when there is none."""
        return self._first(now, lambda minute: not self._open(minute))

    def told(self, moment: datetime) -> str:
        """A moment as the wall clock shows it, to the minute, with its distance from UTC."""
        return moment.astimezone(self.zone).isoformat(timespec="minutes")

    def _quiet(self, minute: int) -> bool:
        return any(stretch.holds(minute) for stretch in self.quiet)

    def _open(self, minute: int) -> bool:
        return not self._quiet(minute) and (
            not self.windows or any(window.holds(minute) for window in self.windows)
        )

    def _edges(self) -> set[int]:
        """Where stretches begin and end, in minutes of the week, and its beginning."""
        found = {0}
        for each in (*self.quiet, *self.windows):
            found |= {edge % WEEK for begin in each.begins() for edge in (begin, begin + each.minutes)}
        return found

    def _minute(self, moment: datetime) -> int:
        local = moment.astimezone(self.zone)
        return local.weekday() * DAY + local.hour * 60 + local.minute

    def _first(self, now: datetime, wanted: Callable[[int], bool]) -> datetime | None:
        """The first moment from `now` on whose minute of the week is `wanted`, if it is near."""
        at, edges = now.astimezone(UTC), self._edges()
        while not wanted(minute := self._minute(at)):
            if at - now > _FAR:
                return None
            at = at.replace(second=0, microsecond=0)
            at += self._step(at, min((edge - minute) % WEEK or WEEK for edge in edges)) * _MINUTE
        return at

    def _step(self, at: datetime, minutes: int) -> int:
        """`minutes`, or as many fewer as it takes not to pass a change of the clocks unseen."""
        before = at.astimezone(self.zone).utcoffset()
        while minutes > 1 and (at + minutes * _MINUTE).astimezone(self.zone).utcoffset() != before:
            minutes //= 2
        return minutes


def waiting(edits: Iterable[Edit], hours: Hours, now: datetime) -> dict[int, Wait]:
    """Those of `edits` that are due and may not be started at this hour, and until when."""
    if hours.are_open(now):
        return {}
    key, stretches = ("quiet", hours.quiet) if hours.are_quiet(now) else ("windows", hours.windows)
    why = f"[hours] {key} = {', '.join(each.text for each in stretches)}, zone = {hours.zone}"
    wait = Wait(For.HOURS, closed_until(hours, now), why, hours.open_at(now))
    return {edit.id: wait for edit in edits if is_due(edit, now) and not hours.let_start(edit.priority, now)}


def closed_until(hours: Hours, now: datetime) -> str:
    """What edits wait for at this hour; empty when they may be started."""
    if hours.are_open(now):
        return ""
    until = hours.told(hours.open_at(now))
    return f"quiet hours until {until}" if hours.are_quiet(now) else f"the window at {until}"
