"""Hours: what a text means, when edits may start in any zone, and who waits until when."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.hours import DAY, Hours, Stretch, closed_until, stretch, waiting
from policies.sources import For
from store.facts import Edit, EditState, FactKey, Op, Priority

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ATHENS = ZoneInfo("Europe/Athens")
NIGHT = Hours((stretch("22:00-06:00"),))
WEEKEND = Hours(windows=(stretch("sat 01:00-05:00"), stretch("sun 23:00-02:00")))


def day(number: int, hour: int = 0, minute: int = 0) -> datetime:
    """A moment of the week that begins on Monday, 2 March 2026."""
    return datetime(2026, 3, 2 + number, hour, minute, tzinfo=UTC)


def edit(number: int = 1, **fields: object) -> Edit:
    made = {"key": FactKey("France", "capital"), "op": Op.UPSERT, "new": "Lyon", "aliases": (), "old": None}
    made |= {"old_aliases": (), "state": EditState.PENDING, **fields}
    return Edit(id=number, **made)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "days", "start", "minutes"),
    [
        ("22:00-06:00", range(7), 22 * 60, 8 * 60),
        ("02:00-04:30", range(7), 120, 150),
        ("00:00-24:00", range(7), 0, DAY),
        ("12:00-24:00", range(7), 720, 720),
        (" sat 01:00-05:00 ", [5], 60, 240),
        ("Mon-Fri 08:00-20:00", range(5), 480, 720),
        ("fri-mon,wed 23:59-00:00", [4, 5, 6, 0, 2], 1439, 1),
    ],
)
def test_a_text_is_a_stretch(text: str, days: list[int], start: int, minutes: int) -> None:
    """Days, ranges of days over the week's end, and times over midnight."""
    assert stretch(text) == Stretch(text, frozenset(days), start, minutes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' isn't like 22:00-06:00"),
        ("22-6", "'22-6' isn't like"),
        ("25:00-06:00", "isn't like"),
        ("24:00-06:00", "isn't like"),
        ("22:00-06:60", "isn't like"),
        ("9:00-17:00", "isn't like"),
        ("22:00 - 06:00", "isn't like"),
        ("05:00-05:00", "'05:00-05:00' ends when it starts; the whole day is 00:00-24:00"),
        ("00:00-00:00", "ends when it starts"),
        ("sam 01:00-05:00", "'sam' is no day or range of days; they are mon, tue"),
        ("mon-fri- 01:00-05:00", "'mon-fri-' is no day"),
        ("sat, 01:00-05:00", "'' is no day"),
        ("٢٢:00-06:00", "isn't like"),
    ],
)
def test_a_bad_text_is_told(text: str, said: str) -> None:
    """What it is and how it should look."""
    with pytest.raises(ValueError, match=re.escape(said)):
        stretch(text)


@pytest.mark.parametrize(
    ("quiet", "windows", "said"),
    [
        (["00:00-24:00"], [], "quiet: every hour of the week is quiet"),
        (["mon-wed 00:00-24:00", "wed-sun 00:00-24:00"], [], "quiet: every hour"),
        (["22:00-06:00"], ["23:00-05:00"], "windows: all of them lie in quiet hours"),
        (["22:00-06:00"], ["sat 22:00-06:00", "sun 01:00-02:00"], "windows: all of them"),
        (["sat-sun 00:00-24:00"], ["sat 01:00-24:00"], "windows: all of them"),
    ],
)
def test_hours_at_which_nothing_could_start_are_refused(
    quiet: list[str], windows: list[str], said: str
) -> None:
    """Whatever way they come about; the error begins with the key."""
    with pytest.raises(ValueError, match=said):
        Hours(tuple(map(stretch, quiet)), tuple(map(stretch, windows)))


def test_a_window_that_sticks_out_of_quiet_hours_is_enough() -> None:
    """One free minute a week suffices."""
    hours = Hours((stretch("22:00-06:00"),), (stretch("sun 21:59-23:00"),))
    assert hours.open_at(NOON) == day(6, 21, 59)
    assert hours.open_until(day(6, 21, 59)) == day(6, 22)


@pytest.mark.parametrize(
    ("hours", "moment", "quiet", "opens", "closes"),
    [
        (NIGHT, day(0, 21, 59), False, None, day(0, 22)),
        (NIGHT, day(0, 22), True, day(1, 6), None),
        (NIGHT, day(0), True, day(0, 6), None),
        (NIGHT, day(0, 6), False, None, day(0, 22)),
        (WEEKEND, NOON, False, day(5, 1), None),
        (WEEKEND, day(5, 4, 59), False, None, day(5, 5)),
        (WEEKEND, day(5, 5), False, day(6, 23), None),
        (WEEKEND, day(7, 1), False, None, day(7, 2)),  # Monday night belongs to Sunday's window
        (WEEKEND, day(6, 1), False, day(6, 23), None),
    ],
)
def test_hours_hold_their_start_and_not_their_end(
    hours: Hours, moment: datetime, quiet: bool, opens: datetime | None, closes: datetime | None
) -> None:
    """Over midnight and over the week's end; seconds within a minute don't matter."""
    for at in (moment, moment + timedelta(seconds=59, microseconds=999_999)):
        assert hours.are_quiet(at) is quiet
        assert hours.are_open(at) is (opens is None)
        assert hours.open_at(at) == (at if opens is None else opens)
        if closes is not None:
            assert hours.open_until(at) == closes


def test_without_any_hours_edits_start_whenever_they_like() -> None:
    """And nothing ever closes."""
    hours = Hours()
    assert hours.are_open(NOON)
    assert (hours.open_at(NOON), hours.quiet_until(NOON), hours.open_until(NOON)) == (NOON, NOON, None)


def test_local_hours_follow_the_clocks() -> None:
    """In Athens 22:00 is 20:00 UTC in winter and 19:00 in summer."""
    night = Hours((stretch("22:00-06:00"),), zone=ATHENS)
    for month, at, distance in ((1, 20, 2), (7, 19, 3)):
        begin = datetime(2026, month, 5, at, tzinfo=UTC)
        assert (night.are_quiet(begin - MINUTE), night.are_quiet(begin)) == (False, True)
        assert night.quiet_until(begin) == begin + 8 * HOUR
        assert night.told(begin) == f"2026-0{month}-05T22:00+0{distance}:00"


def test_a_night_with_changed_clocks_is_an_hour_shorter_or_longer() -> None:
    """Spring: clocks go from 03:00 to 04:00 on 29 March 2026; autumn: from 04:00 to 03:00 on 25 October."""
    night = Hours((stretch("22:00-06:00"),), zone=ATHENS)
    spring = datetime(2026, 3, 28, 22, tzinfo=ATHENS).astimezone(UTC)
    autumn = datetime(2026, 10, 24, 22, tzinfo=ATHENS).astimezone(UTC)
    assert night.quiet_until(spring) - spring == 7 * HOUR
    assert night.quiet_until(autumn) - autumn == 9 * HOUR


def test_an_end_that_is_skipped_comes_with_the_change() -> None:
    """At the moment that 03:30 should have been it is 04:30: quiet hours ended at 04:00, when clocks
    jumped past their end; a window inside the skipped hour waits for the next day."""
    change = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert Hours((stretch("01:00-03:30"),), zone=ATHENS).quiet_until(change - HOUR) == change
    window = Hours(windows=(stretch("03:10-03:50"),), zone=ATHENS)
    assert window.told(window.open_at(change - HOUR)) == "2026-03-30T03:10+03:00"
    rare = Hours(windows=(stretch("sun 03:10-03:50"),), zone=ATHENS)
    assert rare.told(rare.open_at(change - HOUR)) == "2026-04-05T03:10+03:00"


zones = st.sampled_from(
    [UTC, *map(ZoneInfo, ("Europe/Athens", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"))]
)
texts = st.builds(
    lambda days, a, b: f"{days} {a:02}:{b % 60:02}-{(a + 1 + b // 7) % 24:02}:{b % 60:02}",
    st.sampled_from(["mon", "sat-sun", "mon-sun", "tue,thu", "fri-mon"]),
    st.integers(0, 23),
    st.integers(0, 150),
)
stretches = st.lists(texts.map(stretch), max_size=3).map(tuple)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


@settings(deadline=None, max_examples=60)
@given(stretches, stretches, zones, moments)
def test_the_next_opening_is_what_a_look_at_every_minute_finds(
    quiet: tuple[Stretch, ...], windows: tuple[Stretch, ...], zone: ZoneInfo, now: datetime
) -> None:
    """Whatever the zone does meanwhile; the same for the end of quiet hours and for the next closing."""
    try:
        hours = Hours(quiet, windows, zone)
    except ValueError:
        return
    minutes = [now, *(now.replace(second=0, microsecond=0) + n * MINUTE for n in range(1, 21 * DAY))]
    assert hours.open_at(now) == next(at for at in minutes if hours.are_open(at))
    assert hours.quiet_until(now) == next(at for at in minutes if not hours.are_quiet(at))
    assert hours.open_until(now) == next((at for at in minutes if not hours.are_open(at)), None)


def test_due_edits_wait_for_the_end_of_quiet_hours() -> None:
    """With the same reason for all; what isn't due or isn't pending waits for nothing here."""
    later, working = edit(2, effective_at=day(9)), edit(3, state=EditState.EDITING)
    found = waiting([edit(1), later, working], NIGHT, day(0, 23))
    (wait,) = found.values()
    assert (list(found), wait.reason, wait.until) == ([1], For.HOURS, day(1, 6))
    assert str(wait) == ("quiet hours until 2026-03-03T06:00+00:00: [hours] quiet = 22:00-06:00, zone = UTC")
    assert waiting([edit(1)], NIGHT, NOON) == {}


def test_outside_of_windows_edits_wait_for_the_next_one() -> None:
    """Told in the zone's own time; inside one nobody waits."""
    hours = Hours((stretch("03:00-04:00"),), WEEKEND.windows, ATHENS)
    (wait,) = waiting([edit()], hours, NOON).values()
    assert str(wait) == (
        "the window at 2026-03-07T01:00+02:00: "
        "[hours] windows = sat 01:00-05:00, sun 23:00-02:00, zone = Europe/Athens"
    )
    assert closed_until(hours, day(4, 23)) == ""
    assert closed_until(hours, day(5, 1)) == "quiet hours until 2026-03-07T04:00+02:00"


@pytest.mark.parametrize("passes", [True, False])
def test_whether_high_priority_passes_is_the_operators_choice(passes: bool) -> None:
    """By default it waits as well; normal and low never pass."""
    hours = Hours(NIGHT.quiet, high_priority_passes=passes)
    edits = [edit(at, priority=priority) for at, priority in enumerate(Priority)]
    assert set(waiting(edits, hours, day(0, 23))) == ({1, 2} if passes else {0, 1, 2})
    assert Hours().let_start(Priority.LOW, NOON)
