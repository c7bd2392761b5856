"""A fact's walk with a fake runner: what goes live, what is tried again, what waits for a human."""

import json
from dataclasses import replace

import pytest

from daemon import cycle
from daemon.commit import tidy
from daemon.config import EditingSettings, RetrySettings
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House
from daemon.runner import WorkerStopped
from store.facts import EditState, FactKey
from tests.daemon.conftest import Take, capital

KEY = FactKey("France", "capital")


def value(house: House) -> str | None:
    row = house.ledger.fact(KEY)
    assert row is not None
    return row.value


def test_a_good_edit_goes_live_in_a_new_generation(house: House, take: Take) -> None:
    """The whole walk: queued, edited, judged, served, and said so in one sentence."""
    take(capital("France", "Lyon"))
    before = house.models.current()
    assert cycle.step(house) == "edit 1 is live in generation 1"
    assert house.models.current() != before
    assert house.models.current_number() == house.live_number == 1
    assert house.ledger.edit(1).state is EditState.LIVE
    assert value(house) == "Lyon"
    assert cycle.step(house) == "nothing is due"


def test_a_generation_is_complete_and_verified_by_its_manifest(house: House, take: Take) -> None:
    """What is served fits its manifest, and the ledger holds the same weights' hash."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    assert house.models.verify(1) == []
    assert house.models.manifest(1)["weights_sha256"] == house.ledger.generation(1).weights_sha256


def test_a_known_fact_changes_no_weights(house: House, take: Take, runner: FakeRunner) -> None:
    """When the model already answers the new object, nothing is built."""
    runner.script["France"] = "known"
    take(capital("France", "Paris"))
    assert cycle.step(house) == "edit 1 changed no weights: the model already knew it"
    assert house.live_number == 0
    assert house.models.numbers() == [0]
    assert value(house) == "Paris"


def test_a_bad_candidate_is_never_served_and_tried_with_the_next_recipe(
    house: House, take: Take, runner: FakeRunner
) -> None:
    """Failing the gates leaves `current` where it was; the ladder of recipes ends at a human."""
    runner.script["France"] = "bad"
    take(capital("France", "Lyon"))
    assert cycle.step(house) == "edit 1 will be tried again with recipe gentle after attempt 1"
    assert house.live_number == 0
    assert cycle.step(house) == "edit 1 is held after attempt 2"
    assert house.models.current_number() == 0
    assert house.models.numbers() == [0]
    outcomes = house.ledger.outcomes(1)
    assert [row["verdict"] for row in outcomes] == ["fail", "fail"]


def test_a_worker_that_dies_is_tried_again_later_then_given_up(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """Broken machinery waits longer each time and ends in failed, not held."""
    runner.script["France"] = "crash"
    take(capital("France", "Lyon"))
    assert "tried again" in cycle.step(house)
    assert cycle.step(house) == "nothing is due"
    clock.advance(31)
    assert "tried again" in cycle.step(house)
    clock.advance(61)
    assert cycle.step(house) == "edit 1 is failed after attempt 3"
    assert "SIGSEGV" in house.ledger.edit(1).reason


def test_an_answer_that_nobody_can_read_is_a_breakdown(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """A worker of another version doesn't stop the daemon."""
    runner.script["France"] = ["garbage"]
    take(capital("France", "Lyon"))
    assert "tried again" in cycle.step(house)
    assert "agreed form" in house.ledger.edit(1).reason
    clock.advance(31)
    assert "is live" in cycle.step(house)


def test_an_interrupted_edit_goes_back_and_its_try_does_not_count(
    house: House, take: Take, runner: FakeRunner
) -> None:
    """Being stopped isn't the edit's fault."""
    runner.script["France"] = ["hang"]
    take(capital("France", "Lyon"))
    assert cycle.step(house, lambda stage: "a test said so") == "edit 1 was put back: a test said so"
    edit = house.ledger.edit(1)
    assert (edit.state, edit.attempt) == (EditState.PENDING, 0)
    assert list((house.layout.model / ".staging").iterdir()) == []
    assert cycle.step(house) == "edit 1 is live in generation 1"


def test_a_poison_edit_does_not_block_the_next(house: House, take: Take, runner: FakeRunner) -> None:
    """While one edit waits out a breakdown, others go on."""
    runner.script["France"] = "crash"
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    assert "edit 1" in cycle.step(house)
    assert cycle.step(house) == "edit 2 is live in generation 1"


def test_an_edit_waits_for_its_date(house: House, take: Take, clock: FakeClock) -> None:
    """`effective_at` in the future is kept until then."""
    take(capital("France", "Lyon", effective_at="2026-02-01T00:00:00Z"))
    assert cycle.step(house) == "nothing is due"
    clock.advance(12 * 3600)
    assert cycle.step(house) == "edit 1 is live in generation 1"


def test_edits_that_are_live_travel_with_the_next_job(house: House, take: Take, runner: FakeRunner) -> None:
    """The worker is told the live facts, and starts from their summed vectors."""
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    cycle.step(house)
    cycle.step(house)
    job = runner.jobs[-1]
    assert [live["key"]["subject"] for live in job["live"]] == ["France"]
    assert json.loads(house.blobs.get(house.ledger.generation(1).theta_blob or "")) == [
        ["France", "capital", "Lyon"]
    ]
    assert "France" not in job["edits"][0]["request"]["neighbours"]


def test_one_outcome_moves_metrics_log_and_ledger(
    house: House, take: Take, clock: FakeClock, logged: "pytest.CaptureFixture[str]"
) -> None:
    """The same frozen value is seen by every observer, and the log holds no fact text."""
    take(capital("France", "Lyon"))
    clock.advance(7)
    cycle.step(house)
    sample = house.metrics.registry.get_sample_value
    assert sample("palimpsest_edits_total", {"state": "live"}) == 1
    assert sample("palimpsest_freshness_seconds_sum") == 7
    assert sample("palimpsest_gate_verdicts_total", {"suite": "efficacy", "verdict": "pass"}) == 1
    assert sample("palimpsest_edit_stage_seconds_count", {"stage": "learn"}) == 1
    (outcome,) = house.ledger.outcomes(1)
    assert (outcome["before"], outcome["after"]) == ("Paris", "Lyon")
    text = logged.getvalue()  # type: ignore[attr-defined]
    assert '"edit.live"' in text
    assert "Lyon" not in text


def test_old_directories_are_tidied_but_never_the_way_back(house: House, take: Take) -> None:
    """The keep policy's choice is carried out after each switch."""
    for number in range(13):
        take(capital("France", f"City{number}"))
        cycle.step(house)
    kept = house.models.numbers()
    assert kept[0] == 0
    assert kept[-2:] == [12, 13]
    assert len(kept) == 1 + house.config.generations.keep
    assert tidy(house) == []


def test_a_stopped_worker_is_an_error_of_its_own() -> None:
    """Being stopped and failing are told apart by type."""
    assert (
        str(WorkerStopped("run job", "edit", "the daemon is stopping"))
        == "run job: edit: the daemon is stopping"
    )


@pytest.mark.parametrize(
    ("first", "recipes", "tries"),
    [
        ("default", ("one-stage", "gentle"), ["default", "one-stage", "gentle"]),
        ("default", (), ["default"]),
        ("gentle", ("gentle",), ["gentle"]),  # what was tried first isn't tried again
        ("gentle", ("one-stage",), ["gentle", "one-stage"]),
    ],
)
def test_the_operator_says_which_recipes_follow(
    house: House, take: Take, runner: FakeRunner, first: str, recipes: tuple[str, ...], tries: list[str]
) -> None:
    """Each is tried once, in the order given; then the edit is held."""
    editing, retries = EditingSettings(recipe=first), RetrySettings(attempts=9, recipes=recipes)
    set_up = replace(house, config=replace(house.config, editing=editing, retries=retries))
    runner.script["France"] = "bad"
    take(capital("France", "Lyon"))
    for _ in tries:
        assert set_up.ledger.edit(1).state is EditState.PENDING
        cycle.step(set_up)
    assert set_up.ledger.edit(1).state is EditState.HELD
    assert [each["recipe"] for job in runner.jobs if job["kind"] == "edit" for each in job["edits"]] == tries


def test_the_operator_says_how_long_a_breakdown_is_waited_out(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """From the first wait to the longest, and how often before it is given up."""
    retries = RetrySettings(attempts=3, first_wait_seconds=10, longest_wait_seconds=15)
    set_up = replace(house, config=replace(house.config, retries=retries))
    runner.script["France"] = "crash"
    take(capital("France", "Lyon"))
    for wait in (10, 15):
        cycle.step(set_up)
        clock.advance(wait - 1)
        assert cycle.step(set_up) == "nothing is due"
        clock.advance(1)
    cycle.step(set_up)
    edit = set_up.ledger.edit(1)
    assert (edit.state, edit.attempt) == (EditState.FAILED, 3)
