"""Hours in a house and in a running daemon: who waits until when, what goes on, and what is said of it."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import control, cycle, rollback, submission, waits
from daemon.config import BackupSettings, Config, DaemonSettings, HoursSettings, SourceSettings, parse
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House, utc_now
from daemon.periodic import Periodic
from daemon.runner import WorkerError, never
from daemon.vitals import take_vitals
from policies.hours import DAYS
from policies.sources import For
from store.errors import ConfigError
from store.facts import EditState
from store.ledger import Ledger
from tests.daemon.conftest import Cli, Take, capital
from tests.daemon.running import Daemon, Start

NIGHT = HoursSettings(quiet=("22:00-06:00",))
EVENING, MORNING = datetime(2026, 1, 31, 22, tzinfo=UTC), datetime(2026, 2, 1, 6, tzinfo=UTC)
SAID = "quiet hours until 2026-02-01T06:00+00:00: [hours] quiet = 22:00-06:00, zone = UTC"
HOUR = 3600


def at_hours(house: House, hours: HoursSettings = NIGHT, **settings: Any) -> House:
    """The same parts under other hours, as after a restart."""
    return replace(house, config=replace(house.config, hours=hours, **settings), waiting={})


def in_three_days() -> str:
    """A window that is closed now, whatever the time is, and stays closed for two days at least."""
    return f"{DAYS[(utc_now().weekday() + 3) % 7]} 00:00-24:00"


def test_edits_wait_for_the_end_of_quiet_hours(
    house: House, take: Take, clock: FakeClock, runner: FakeRunner
) -> None:
    """A file is still taken in; no worker starts, no attempt counts, and at the very end it goes on."""
    quiet = at_hours(house)
    clock.now = EVENING - timedelta(seconds=1)
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    assert cycle.step(quiet) == "edit 1 is live in generation 1"
    clock.now = EVENING
    jobs = len(runner.jobs)
    take(capital("Italy", "Milan"))
    assert cycle.step(quiet) == f"edit 2 waits: {SAID}"
    clock.now = MORNING - timedelta(seconds=1)
    assert cycle.step(quiet) == f"edit 2 waits: {SAID}"
    assert (len(runner.jobs), quiet.ledger.edit(2).attempt) == (jobs, 0)
    assert waits.next_change(quiet) == MORNING
    clock.now = MORNING
    assert cycle.step(quiet) == "edit 2 is live in generation 2"
    assert waits.next_change(quiet) is None


def test_an_edit_in_work_is_finished_and_its_next_try_waits(
    house: House, take: Take, clock: FakeClock, runner: FakeRunner
) -> None:
    """The hour only says what is started: a refused candidate's next recipe is a new start."""
    quiet = at_hours(house)
    clock.now = EVENING - timedelta(seconds=1)
    runner.script["France"] = ["bad", "good"]
    take(capital("France", "Lyon"))

    def idle(_stage: str) -> None:
        clock.now = EVENING

    assert "again with recipe gentle" in cycle.step(quiet, idle)
    assert cycle.step(quiet) == f"edit 1 waits: {SAID}"
    clock.now = MORNING
    assert cycle.step(quiet) == "edit 1 is live in generation 1"


def test_rollbacks_and_approvals_go_on_at_any_hour(house: House, take: Take, clock: FakeClock) -> None:
    """Taking an edit out builds a generation and asks facts again; nothing of that waits."""
    quiet = at_hours(house, sources={"hr": SourceSettings(require_approval=True)})
    take(capital("France", "Lyon"), capital("Spain", "Seville"), capital("Italy", "Milan", source="hr"))
    cycle.step(quiet)
    cycle.step(quiet)
    clock.now = EVENING
    assert rollback.without_edit(quiet, 1)["removed"] == [1]
    assert cycle.step(quiet).startswith("edit 3 waits: approval")
    assert control.execute(quiet, "approve", {"edits": [3]}, actor="1:ada")["still_wait"] == {}
    assert cycle.step(quiet) == f"edit 3 waits: {SAID}"


def test_high_priority_passes_where_it_may(house: House, take: Take, clock: FakeClock) -> None:
    """Only with the key set, and only up to the priority that a source may have."""
    clock.now = EVENING
    passing = at_hours(house, replace(NIGHT, high_priority_passes=True))
    take(capital("France", "Lyon"), capital("Spain", "Seville", priority="high"))
    assert cycle.step(at_hours(house)) == f"edit 2 waits: {SAID}"
    assert cycle.step(passing) == "edit 2 is live in generation 1"
    assert cycle.step(passing) == f"edit 1 waits: {SAID}"


def test_waiting_for_the_hour_is_counted_and_ages_no_queue(
    house: House, take: Take, clock: FakeClock
) -> None:
    """Edits of the future and those that need an approval aren't among them, nor are those that pass."""
    rules = {"hr": SourceSettings(require_approval=True)}
    passing = at_hours(house, replace(NIGHT, high_priority_passes=True), sources=rules)
    clock.now = EVENING
    later = "2026-02-03T00:00:00Z"
    take(
        capital("France", "Lyon"), capital("Spain", "Seville"), capital("Italy", "Milan", effective_at=later)
    )
    take(capital("Peru", "Cusco", source="hr"))
    clock.advance(HOUR)
    vitals = take_vitals(passing)
    assert vitals.waiting == {"approval": 1, "rate": 0, "hours": 2}
    assert vitals.oldest_pending_age == 0
    take(capital("Chile", "Arica", priority="high"))
    clock.advance(60)
    assert take_vitals(passing).oldest_pending_age == 60
    clock.now = MORNING
    vitals = take_vitals(passing)
    assert vitals.waiting[For.HOURS] == 0
    assert vitals.oldest_pending_age == 8 * HOUR


class Measuring(FakeRunner):
    """Fails each re-probe."""

    def run(self, job: Any, idle: Any = never) -> Any:
        if job["kind"] == "measure":
            raise WorkerError("run worker", "measure", "it died")
        return super().run(job, idle)


def test_periodic_jobs_wait_for_the_end_of_quiet_hours(house: House, take: Take, clock: FakeClock) -> None:
    """Both run when they are due and no more often; in quiet hours they wait, outside windows they don't."""
    hours = replace(NIGHT, windows=("12:00-13:00",))
    periods = {"backup": BackupSettings(every_hours=10), "daemon": DaemonSettings(reprobe_hours=5)}
    quiet, periodic = at_hours(house, hours, **periods), Periodic()
    began = clock.now  # noon

    def ran() -> tuple[float | None, float | None]:
        periodic.run_due(quiet, never)
        times = [control.last_run(quiet, name) for name in ("backup", "reprobe")]
        found = [None if at is None else (at - began).total_seconds() / HOUR for at in times]
        return found[0], found[1]

    assert ran() == (0, 0)
    clock.advance(5 * HOUR)
    assert ran() == (0, 5)
    clock.advance(5 * HOUR)
    assert ran() == (0, 5)  # it is ten in the evening
    clock.now = MORNING - timedelta(seconds=1)
    assert ran() == (0, 5)
    clock.now = MORNING
    assert ran() == (18, 18)


def test_a_re_probe_that_fails_is_tried_again_after_its_period(
    house: House, take: Take, clock: FakeClock, runner: FakeRunner
) -> None:
    """Not at every turn of the loop; one that is owed is done at once, even where none is periodic."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    runs = {"backup": BackupSettings(every_hours=0), "daemon": DaemonSettings(reprobe_hours=5)}
    broken = replace(at_hours(house, HoursSettings(), **runs), runner=Measuring())
    periodic = Periodic()
    for _ in range(2):
        with pytest.raises(WorkerError):
            periodic.run_due(broken, never)
        periodic.run_due(broken, never)
        clock.advance(5 * HOUR)
    house.ledger.set_setting(rollback.REPROBE_WANTED, True, now=house.now())
    owed = at_hours(house, HoursSettings(), backup=runs["backup"], daemon=DaemonSettings(reprobe_hours=0))
    Periodic().run_due(owed, never)
    assert control.last_run(house, "reprobe") == clock.now
    assert house.ledger.get_setting(rollback.REPROBE_WANTED) is False


@pytest.fixture
def closed(house: House, take: Take, palimpsest: Cli) -> Cli:
    """Commands on a house whose only window opens in three days, with one edit queued."""
    take(capital("France", "Lyon"))
    (palimpsest.state / "config.toml").write_text(f'[hours]\nwindows = ["{in_three_days()}"]\n')
    return palimpsest


def test_commands_say_until_when(closed: Cli) -> None:
    """`status`, `plan` and `explain`, as text within its columns and as JSON."""
    opens = datetime.combine(utc_now().date() + timedelta(days=3), datetime.min.time(), UTC)
    what = f"the window at {opens.isoformat(timespec='minutes')}"
    status = closed("status")[1]
    assert f"waiting     1 edit, for {what}\n" in status
    assert closed.json("status")[1]["hours"] == what
    (step,) = closed.json("plan")[1]["steps"]
    assert step["reason"].endswith(f"; waits for {what}, see `palimpsest explain 1`")
    explained = closed("explain", "1")[1]
    assert f"state pending: waits for {what}\n" in explained
    assert f"waits for {what}: [hours] windows = {in_three_days()}" in " ".join(explained.split())


def test_open_hours_are_not_talked_about(house: House, palimpsest: Cli) -> None:
    """Without hours, `status` has no line about them."""
    assert "waiting" not in palimpsest("status")[1]
    assert palimpsest.json("status")[1]["hours"] == ""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            'quiet = ["22-6"]\nwindows = ["sat 01:00-05:00", "x 01:00-05:00"]\nzone = "Mars/Olympus"',
            [
                "hours.zone: 'Mars/Olympus' is no time zone known here",
                "hours.quiet[0]: '22-6' isn't like 22:00-06:00",
                "hours.windows[1]: 'x' is no day or range of days",
            ],
        ),
        ('zone = "../etc"', ["hours.zone: '../etc' is no time zone"]),
        ('zone = "Europe"', ["hours.zone: 'Europe' is no time zone"]),
        ('quiet = ["05:00-05:00"]', ["hours.quiet[0]: '05:00-05:00' ends when it starts"]),
        ('quiet = ["00:00-24:00"]', ["hours.quiet: every hour of the week is quiet"]),
        ('quiet = ["22:00-06:00"]\nwindows = ["23:00-01:00"]', ["hours.windows: all of them lie in quiet"]),
        (
            "quiet = 3\nhigh_priority_passes = 1",
            ["hours.quiet: expected a list", "hours.high_priority_passes"],
        ),
    ],
)
def test_every_fault_of_the_hours_is_reported(text: str, faults: list[str]) -> None:
    """With its key, what it is and what is wanted."""
    with pytest.raises(ConfigError) as caught:
        parse(f"[hours]\n{text}", "bad.toml")
    lines = caught.value.cause.splitlines()
    assert len(lines) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(lines, faults, strict=True)), lines


def test_good_hours_are_read(config: Config) -> None:
    """As settings and as what they mean."""
    read = parse('[hours]\nquiet = ["22:00-06:00"]\nzone = "Europe/Athens"\n', "good.toml").hours
    assert read.resolved().are_quiet(datetime(2026, 1, 1, 20, tzinfo=UTC))
    assert config.hours.resolved().are_open(EVENING)


@pytest.fixture
def shut(start: Start, tmp_path: Path) -> Daemon:
    """A running daemon whose only window opens in three days."""
    (tmp_path / "state").mkdir()
    rules = f'[hours]\nwindows = ["{in_three_days()}"]\n[sources.default]\nmax_priority = "normal"\n'
    (tmp_path / "state" / "config.toml").write_text(rules)
    return start()


@pytest.mark.slow
def test_a_running_daemon_waits_for_its_window(shut: Daemon, tmp_path: Path) -> None:
    """The file is taken, the edit waits, `submit --wait` neither hangs nor fails; when the window opens
    the edit is made without anybody's doing."""
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(capital("France", "Lyon", priority="high")) + "\n")
    (row,) = submission.wait(shut.config, submission.drop(shut.config, path), lambda stage: None, 30)
    assert (row["state"], row["ok"]) == ("pending", True)
    assert row["reason"].startswith("the window at ")
    shut.wait_for(lambda: 'palimpsest_edits_waiting{reason="hours"} 1.0' in shut.scrape(), "metric")
    assert "palimpsest_oldest_pending_age_seconds 0.0" in shut.scrape()
    time.sleep(0.5)
    assert shut.state_of(1) is EditState.PENDING
    commands = replace(shut.config, hours=HoursSettings())  # that don't know the daemon's configuration
    with Ledger.open_readonly(shut.config.layout.ledger) as ledger:
        (wait,) = waits.standing(commands, ledger, ledger.edits(), running=True).values()
        assert wait.what in row["reason"]
        assert ledger.edit(1).priority == "normal"
    (shut.config.layout.state / "ahead").write_text(str(3 * 24 * HOUR))
    shut.wait_for(lambda: shut.state_of(1) is EditState.LIVE, "live edit")


@pytest.mark.slow
def test_submit_waits_where_the_window_opens_in_time(shut: Daemon, tmp_path: Path) -> None:
    """It says what is waited for meanwhile, and ends when the fact is live."""
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(capital("France", "Lyon")) + "\n")
    stages: list[str] = []

    def on_stage(stage: str) -> None:
        stages.append(stage)
        if stage.startswith("waiting for the window at "):
            (shut.config.layout.state / "ahead").write_text(str(3 * 24 * HOUR))

    dropped = submission.drop(shut.config, path)
    (row,) = submission.wait(shut.config, dropped, on_stage, 7 * 24 * HOUR)
    assert (row["state"], row["ok"]) == ("live", True)
    assert any(stage.startswith("waiting for the window at ") for stage in stages)
