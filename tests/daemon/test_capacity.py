"""A model that can take no more: edits wait with a reason, nothing is lost, a rollback sets them going."""

import io
import json
import math
from dataclasses import replace

import pytest

from daemon import capacity, cli, cycle, recovery, rollback
from daemon.config import CapacitySettings, GateOverride
from daemon.fakes import FakeRunner
from daemon.house import House
from daemon.service import Service
from daemon.vitals import take_vitals
from store.errors import EXIT_OK, EXIT_PLAN_HAS_CHANGES
from store.facts import EditState, Suite
from tests.daemon.conftest import Take, capital

NEARLY_FULL = (0.93, 0.84, 0.83)  # 0.65 and 0.2 of the allowed loss are left: an edit costs 0.4


@pytest.fixture
def full(house: House, take: Take, runner: FakeRunner) -> House:
    """Two edits live, a third queued that the model has no room for."""
    runner.retention = NEARLY_FULL
    take(capital("France", "Lyon"), capital("Spain", "Seville"), capital("Italy", "Milan"))
    assert cycle.step(house) == "edit 1 is live in generation 1"
    assert cycle.step(house) == "edit 2 is live in generation 2"
    return house


def events(logged: io.StringIO, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    return [line for line in lines if line["event"] == name]


def scraped(house: House) -> tuple[float | None, float | None]:
    """Headroom and edits left as a scrape shows them."""
    house.metrics.show(take_vitals(house))
    value = house.metrics.registry.get_sample_value
    return value("palimpsest_retention_headroom_ratio"), value("palimpsest_capacity_edits_left")


def reconfigured(house: House, **settings: object) -> House:
    """The same parts under another configuration, as after a restart."""
    return replace(house, config=replace(house.config, **settings), capacities={})  # type: ignore[arg-type]


def test_the_third_edit_waits_with_its_reason_and_is_not_lost(full: House, runner: FakeRunner) -> None:
    """It stays pending, no attempt is counted, no worker starts."""
    jobs = len(runner.jobs)
    said = cycle.step(full)
    assert said.startswith("edit 3 waits: capacity: unrelated 0.84, at least 0.8 wanted; headroom 0.2,")
    edit = full.ledger.edit(3)
    assert (edit.state, edit.attempt) == (EditState.PENDING, 0)
    assert len(runner.jobs) == jobs


def test_the_gauges_fall_edit_after_edit(house: House, take: Take, runner: FakeRunner) -> None:
    """From 1 and unknown at the base to what the last candidate's readings leave, and back."""
    runner.retention = NEARLY_FULL
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    headroom, edits_left = scraped(house)
    assert headroom == 1.0
    assert edits_left is not None
    assert math.isnan(edits_left)
    cycle.step(house)
    assert scraped(house)[0] == pytest.approx(0.65)
    cycle.step(house)
    headroom, edits_left = scraped(house)
    assert headroom == pytest.approx(0.2)
    assert edits_left == 0
    rollback.to_generation(house, 0)
    assert scraped(house)[0] == 1.0


def test_a_rollback_sets_the_waiting_edit_going(full: House, logged: io.StringIO) -> None:
    """Nobody has to touch it: the next turn takes it, and the log says why once each way."""
    for _ in range(3):
        assert "waits" in cycle.step(full)
    rollback.to_generation(full, 1)
    assert cycle.step(full) == "edit 3 is live in generation 3"
    (began,), (ended,) = events(logged, "capacity.edits_wait"), events(logged, "capacity.edits_go_on")
    assert (began["generation"], began["edits_left"]) == (2, 0)
    assert str(began["cause"]).startswith("capacity: unrelated 0.84")
    assert (ended["generation"], ended["headroom"]) == (1, pytest.approx(0.65))


def test_an_edit_from_the_middle_gives_back_what_it_cost(full: House) -> None:
    """The generation that is left was never measured: it is estimated, and the next edit measures it."""
    rollback.without_edit(full, 1)
    left = capacity.current(full)
    assert (left.value, left.suite) == (None, Suite.UNRELATED)
    assert left.headroom == pytest.approx(0.2 + 0.35)
    assert cycle.step(full) == "edit 3 is live in generation 4"
    assert capacity.current(full).value == 0.84


def test_retractions_wait_as_well_and_all_of_them_go_on(full: House, take: Take) -> None:
    """Whatever was queued meanwhile is still there, in its order."""
    take(capital("Spain", None))
    assert "waits" in cycle.step(full)
    assert [full.ledger.edit(n).state for n in (3, 4)] == [EditState.PENDING] * 2
    rollback.to_generation(full, 0)
    assert cycle.step(full) == "edit 3 is live in generation 3"
    assert cycle.step(full) == "edit 4 is live in generation 4"


def test_an_operator_can_go_on_or_give_room(full: House) -> None:
    """Not enforced, or with a relaxed gate, the waiting edit is made after a restart."""
    relaxed = reconfigured(full, gates={"unrelated": GateOverride(threshold=0.6)})
    assert capacity.note(relaxed).waits == ""
    regardless = reconfigured(full, capacity=CapacitySettings(enforce=False))
    assert cycle.step(regardless) == "edit 3 is live in generation 3"


def test_a_larger_reserve_makes_edits_wait_sooner(house: House, take: Take, runner: FakeRunner) -> None:
    """The reserve counts from the first edit on, without any trend."""
    runner.retention = NEARLY_FULL
    cautious = reconfigured(house, capacity=CapacitySettings(reserve=0.7))
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    assert "is live" in cycle.step(cautious)
    assert "edit 2 waits: capacity: unrelated 0.93" in cycle.step(cautious)


def test_readings_lost_in_a_crash_are_found_in_the_manifest(
    house: House, take: Take, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery finishes a generation without an outcome; its capacity is known all the same."""
    runner.retention = (0.86,)
    take(capital("France", "Lyon"))

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("daemon.commit.serve", cut_off)
        with pytest.raises(KeyboardInterrupt):
            cycle.step(house)
    recovery.recover(house)
    assert house.live_number == 1
    assert house.ledger.generation_readings() == {}
    assert capacity.current(house).value == 0.86


def test_the_capacity_is_noted_once_for_each_generation(full: House) -> None:
    """Ticks write nothing: the audit grows with what happens, not with time."""
    cycle.step(full)
    before = full.ledger.audit_events(1000)
    for _ in range(3):
        cycle.step(full)
        take_vitals(full)
    assert full.ledger.audit_events(1000) == before
    noted = full.ledger.get_setting(capacity.NOTED)
    assert (noted["generation"], noted["edits_left"]) == (2, 0)


def test_a_daemon_that_starts_shows_its_capacity_before_the_first_edit(full: House) -> None:
    """A restart keeps the waiting edit waiting, and says nothing new."""
    service = Service(full)
    service.stop("a test said so")
    assert service.run() == 0
    value = full.metrics.registry.get_sample_value
    assert value("palimpsest_retention_headroom_ratio") == pytest.approx(0.2)
    assert full.ledger.edit(3).state is EditState.PENDING


def test_status_shows_headroom_and_what_waits(full: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Within 80 columns, wrapped and not cut; JSON holds the numbers."""
    state = ["--state", str(full.layout.state)]
    assert cli.main(["status", *state]) == EXIT_OK
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80, text
    flat = " ".join(text.split())
    assert "headroom 0.20, by unrelated (0.84, gate 0.8), about 0 edits left" in flat
    assert "waiting 1 edit, for capacity: unrelated 0.84, at least 0.8 wanted" in flat
    assert flat.count("or start from a new base") == 1
    assert cli.main(["status", *state, "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)["capacity"]
    assert (found["generation"], found["suite"], found["value"]) == (2, "unrelated", 0.84)
    assert (found["edits_left"], found["waiting"]) == (0, 1)
    assert found["headroom"] == pytest.approx(0.2)


def test_status_of_the_base_has_no_limit(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is edited: everything is left, and nobody knows how far it will go."""
    assert cli.main(["status", "--state", str(house.layout.state)]) == EXIT_OK
    assert "headroom    1.00, no limit is known\n" in capsys.readouterr().out


def test_a_running_daemons_view_wins(full: House) -> None:
    """A command that wasn't given the daemon's configuration shows what the daemon goes by."""
    capacity.note(reconfigured(full, capacity=CapacitySettings(enforce=False)))
    assert capacity.shown(full.config, full.ledger, running=True)["waits"] == ""
    assert capacity.shown(full.config, full.ledger, running=False)["waits"] != ""
    rollback.to_generation(full, 0)
    assert capacity.shown(full.config, full.ledger, running=True)["generation"] == 0


def test_the_plan_says_what_waits(full: House, capsys: pytest.CaptureFixture[str]) -> None:
    """The change is still wanted, so the exit status says that there are changes."""
    status = cli.main(["plan", "--state", str(full.layout.state), "--json"])
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert status == EXIT_PLAN_HAS_CHANGES
    assert step["reason"].endswith("; waits for capacity, see `palimpsest explain 3`")
