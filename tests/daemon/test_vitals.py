"""Gauges read from the ledger: they say the same after a restart, and nothing that nobody knows."""

import math
import sys
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from daemon import backups, control, cycle, orders, rollback
from daemon.config import BackupSettings, GateOverride, Hook, PublishSettings, SourceSettings
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House
from daemon.metrics import Metrics, Stage
from daemon.vitals import describe, take_vitals
from store.facts import EditRequest, Reading, Suite
from tests.daemon.conftest import Take, capital


def shown(house: House, name: str, **labels: str) -> float:
    """One sample as a scrape would show it now."""
    house.metrics.show(take_vitals(house))
    value = house.metrics.registry.get_sample_value(f"palimpsest_{name}", labels)
    assert value is not None, f"{name} isn't exported with {labels}"
    return value


def restarted(house: House, **settings: object) -> House:
    """The same state directory as another process would see it."""
    config = replace(house.config, **settings)  # type: ignore[arg-type]
    made = replace(
        house,
        metrics=Metrics(CollectorRegistry()),
        capacities={},
        suites={},
        waiting={},
        rollbacks={},
        config=config,
    )
    describe(made)
    return made


def last(house: House, stage: Stage) -> float:
    return shown(house, "last_success_timestamp_seconds", stage=stage)


def test_what_never_happened_is_not_a_number(house: House) -> None:
    """A time of 0 would look like 56 years ago to an alert."""
    for stage in (Stage.INGEST, Stage.EDIT, Stage.BACKUP, Stage.REPROBE, Stage.AUDIT):
        assert math.isnan(last(house, stage)), stage
    for name in ("served_generation", "audit_chain_ok", "paused_since_timestamp_seconds"):
        assert math.isnan(shown(house, name)), name
    assert all(math.isnan(shown(house, "suite_value", suite=suite)) for suite in Suite)


def test_each_stage_has_its_last_success_also_after_a_restart(
    house: House, take: Take, clock: FakeClock, runner: FakeRunner
) -> None:
    """File, edit, publication and backup, each at its own time; a failure moves none of them."""
    began = clock.now.timestamp()
    runner.script = {"Spain": "bad"}
    take(capital("France", "Lyon"))
    clock.advance(10)
    cycle.step(house)
    clock.advance(10)
    backups.make(house)
    take(capital("Spain", "Seville"))
    clock.advance(10)
    cycle.step(house)
    for seen in (house, restarted(house)):
        assert last(seen, Stage.INGEST) == began + 20
        assert last(seen, Stage.EDIT) == last(seen, Stage.PUBLISH) == began + 10
        assert last(seen, Stage.BACKUP) == began + 20
    assert last(house, Stage.SCAN) == began + 20


def test_a_rollback_is_a_publication_and_counts_its_edits(house: House, take: Take, clock: FakeClock) -> None:
    """`current` moved, and one live edit is rolled back."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    clock.advance(60)
    rollback.to_generation(house, 0)
    assert last(house, Stage.PUBLISH) == clock.now.timestamp()
    assert shown(house, "edits_total", state="rolled_back") == 1
    assert shown(house, "rollbacks_total", trigger="manual") == 1


def test_suites_are_those_of_the_served_weights(house: House, take: Take, runner: FakeRunner) -> None:
    """After a commit, after a restart and after a rollback; the base was never measured."""
    runner.retention = (0.93, 0.86)
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    cycle.step(house)
    cycle.step(house)
    assert shown(house, "suite_value", suite="unrelated") == 0.86
    assert shown(restarted(house), "suite_value", suite="unrelated") == 0.86
    rollback.to_generation(house, 1)
    assert shown(house, "suite_value", suite="unrelated") == 0.93
    rollback.to_generation(house, 0)
    assert math.isnan(shown(house, "suite_value", suite="unrelated"))


class NothingBefore(FakeRunner):
    """Measures live facts where there are none."""

    def _readings(self, request: EditRequest, way: str, facts: int) -> list[Reading]:
        readings = super()._readings(request, way, facts)
        return [replace(r, value=0.0, n=0) if r.suite is Suite.LIVE_FACTS else r for r in readings]


def test_a_suite_that_had_nothing_to_measure_has_no_value(house: House, take: Take) -> None:
    """The first edit has no live facts before it: a share of none isn't 0."""
    seen = replace(house, runner=NothingBefore(base={"France": "Paris"}))
    take(capital("France", "Lyon"))
    assert cycle.step(seen) == "edit 1 is live in generation 1"
    assert math.isnan(shown(seen, "suite_value", suite="live_facts"))
    assert shown(seen, "suite_value", suite="unrelated") > 0


def test_thresholds_say_which_side_is_bad(house: House) -> None:
    """A share has a min, a distance a max, and both follow the configuration."""
    seen = restarted(house, gates={"unrelated": GateOverride(threshold=0.7)})
    assert shown(seen, "suite_threshold", suite="unrelated", bound="min") == 0.7
    assert shown(seen, "suite_threshold", suite="kl_drift", bound="max") == 0.25


def test_pausing_twice_does_not_start_over(house: House, clock: FakeClock) -> None:
    """Since when is since the first time; resuming clears it."""
    began = clock.now.timestamp()
    control.execute(house, "pause", {}, actor="test")
    clock.advance(3600)
    control.execute(house, "pause", {}, actor="test")
    assert shown(restarted(house), "paused_since_timestamp_seconds") == began
    assert shown(house, "paused") == 1
    control.execute(house, "resume", {}, actor="test")
    assert shown(house, "paused") == 0
    assert math.isnan(shown(house, "paused_since_timestamp_seconds"))


def test_what_does_not_change_is_said_once(house: House) -> None:
    """Periods, the age of the state directory and the room that a build needs."""
    seen = restarted(house, backup=BackupSettings(every_hours=2))
    assert shown(seen, "period_seconds", stage="backup") == 7200
    assert shown(seen, "period_seconds", stage="scan") == 30
    assert shown(seen, "initialised_timestamp_seconds") == house.now().timestamp()
    assert shown(seen, "disk_needed_bytes") == house.models.disk_needed() > 0


def test_capacity_is_shown_while_edits_wait_for_it(house: House, take: Take, runner: FakeRunner) -> None:
    """1 from the edit that has no room to the rollback that makes some."""
    runner.retention = (0.93, 0.84, 0.83)
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    assert shown(house, "capacity_full") == 0
    cycle.step(house)
    cycle.step(house)
    assert shown(house, "capacity_full") == 1
    rollback.to_generation(house, 0)
    assert shown(house, "capacity_full") == 0


def test_a_whole_try_is_timed_and_a_cancelled_edit_counted(
    house: House, take: Take, clock: FakeClock
) -> None:
    """From the queue to the outcome; an order that ends an edit is no outcome but counts as well."""
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    cycle.step(house)
    control.execute(house, "cancel", {"edit": 2}, actor="test")
    assert shown(house, "edit_seconds_count") == 1
    assert shown(house, "edits_total", state="cancelled") == 1


def test_the_served_generation_outlives_a_restart(house: House, take: Take) -> None:
    """It is what the hooks last found; without hooks nobody knows."""
    say = [sys.executable, "-S", "-c", "print('{\"served_generation\": 1}')"]
    hooked = restarted(house, publish=PublishSettings((Hook(tuple(say)),)))
    assert math.isnan(shown(hooked, "served_generation"))
    take(capital("France", "Lyon"))
    cycle.step(hooked)
    again = restarted(hooked)
    assert shown(hooked, "served_generation") == shown(again, "served_generation") == 1
    assert math.isnan(shown(restarted(house, publish=PublishSettings()), "served_generation"))


def test_rollbacks_without_a_daemon_are_counted_by_the_next_one(house: House, take: Take) -> None:
    """The counter is the ledger's: back to a generation, and an edit from the middle; it never falls."""
    for subject, object in (("France", "Lyon"), ("Spain", "Seville")):
        take(capital(subject, object))
        cycle.step(house)
    assert shown(house, "rollbacks_total", trigger="manual") == 0
    orders.give(house.config, "rollback", {"to": 1}, runner=house.runner)
    orders.give(house.config, "rollback", {"to": 2, "force": True}, runner=house.runner)
    assert shown(house, "rollbacks_total", trigger="manual") == 2
    orders.give(house.config, "rollback", {"edit": 1}, runner=house.runner)
    assert shown(restarted(house), "rollbacks_total", trigger="manual") == 3
    told = [(row["from"], row["to"]) for row in house.ledger.rollbacks()]
    assert told == [(2, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_is_exported_from_the_start(house: House, stage: Stage) -> None:
    """A dashboard needn't guess which series will come."""
    assert shown(house, "last_success_timestamp_seconds", stage=stage) is not None


def test_an_edit_that_waits_for_approval_is_shown_and_does_not_age_the_queue(
    house: House, take: Take, clock: FakeClock
) -> None:
    """Nobody could make it now: only what is free to go says how long the queue keeps facts waiting."""
    strict = restarted(house, sources={"wiki": SourceSettings(require_approval=True)})
    take(capital("France", "Lyon", source="wiki"))
    clock.advance(600)
    assert shown(strict, "edits_waiting", reason="approval") == 1
    assert shown(strict, "oldest_pending_age_seconds") == 0
    assert shown(house, "oldest_pending_age_seconds") == 600
