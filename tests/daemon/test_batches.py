"""Several edits in one candidate: served together, sorted out when they don't pass, each still its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import capacity, control, cycle, rollback, status
from daemon.config import EditingSettings, HoursSettings, SourceSettings
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House
from daemon.recovery import recover
from daemon.runner import never
from store import failpoints
from store.errors import GenerationError
from store.facts import EditState, FactKey
from tests.daemon.checks import check_state
from tests.daemon.conftest import Cli, Take, capital
from tests.daemon.running import Start
from tests.invariants import violations

NAMES = ("France", "Spain", "Italy", "Peru")
LIVE, PENDING, HELD = EditState.LIVE, EditState.PENDING, EditState.HELD


@pytest.fixture
def four(house: House, take: Take) -> House:
    """A house that tries up to four edits together, with four in its queue."""
    take(*(capital(name, f"New {name}") for name in NAMES))
    return replace(house, config=replace(house.config, editing=EditingSettings(batch_size=4)))


def states(house: House) -> list[EditState]:
    return [edit.state for edit in sorted(house.ledger.edits(), key=lambda edit: edit.id)]


def tried(runner: FakeRunner) -> list[list[str]]:
    """The subjects of each job that edited."""
    jobs = [job for job in runner.jobs if job["kind"] == "edit"]
    return [[each["request"]["key"]["subject"] for each in job["edits"]] for job in jobs]


def work_off(house: House, idle: Callable[[str], str | None] = never, most: int = 20) -> list[str]:
    """Every step until nothing is due."""
    said: list[str] = []
    while (sentence := cycle.step(house, idle)) != "nothing is due":
        said.append(sentence)
        assert len(said) < most, said
    return said


def test_a_batch_that_passes_is_one_generation(four: House, runner: FakeRunner, palimpsest: Cli) -> None:
    """One worker, one candidate, all live at once; each has vectors of its own and says who came with it."""
    assert cycle.step(four) == "edits 1-4 were tried together: edits 1-4: live in generation 1"
    assert tried(runner) == [list(NAMES)]
    assert states(four) == [LIVE] * 4
    assert four.ledger.generation(1).edits == (1, 2, 3, 4)
    assert len({four.ledger.edit(number).delta_blob for number in (1, 2, 3, 4)}) == 4
    check_state(four.config)
    assert "in one batch: edits 1-4" in palimpsest("explain", "2")[1]
    assert palimpsest.json("explain", "2")[1]["batch"] == [1, 2, 3, 4]


def test_the_good_are_kept_and_the_bad_one_climbs_its_ladder(four: House, runner: FakeRunner) -> None:
    """The others are served without it, and only it is charged with tries."""
    runner.script["Italy"] = "bad"
    work_off(four)
    assert states(four) == [LIVE, LIVE, HELD, LIVE]
    assert tried(runner) == [list(NAMES), ["France", "Spain", "Peru"], ["Italy"], ["Italy"]]
    assert [four.ledger.edit(n).attempt for n in (1, 2, 3, 4)] == [0, 0, 2, 0]
    assert four.ledger.generation(four.live_number or 0).edits == (1, 2, 4)
    check_state(four.config)


def test_who_spoils_the_whole_model_is_found_by_halves(four: House, runner: FakeRunner) -> None:
    """No suite of its own gives it away, so that the batch is halved until it is alone."""
    runner.script["Peru"] = "harm"
    work_off(four)
    assert states(four) == [LIVE, LIVE, LIVE, HELD]
    assert tried(runner)[:4] == [list(NAMES), ["France", "Spain"], ["Italy", "Peru"], ["Italy"]]
    check_state(four.config)


def test_a_known_fact_and_one_that_gives_up_drop_out(four: House, runner: FakeRunner) -> None:
    """The rest is served in the same step."""
    runner.script |= {"France": "known", "Peru": "failed"}
    cycle.step(four)
    assert states(four) == [EditState.ALREADY_KNOWN, LIVE, LIVE, PENDING]
    work_off(four)
    assert four.ledger.edit(4).state is HELD
    check_state(four.config)


def test_a_worker_that_dies_charges_nobody_but_who_was_alone(
    four: House, runner: FakeRunner, clock: FakeClock
) -> None:
    """Halved like a refused batch; the one that kills workers by itself waits and is then given up."""
    runner.script["Spain"] = "crash"
    for _ in range(4):
        work_off(four)
        clock.advance(3600)
    assert states(four) == [LIVE, EditState.FAILED, LIVE, LIVE]
    assert [four.ledger.edit(n).attempt for n in (1, 2, 3, 4)] == [1, 3, 0, 0]
    check_state(four.config)


def test_a_candidate_that_is_no_generation_charges_nobody(
    four: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that can't be sealed are a breakdown of all: none goes live, and halves are tried."""
    commit = four.models.commit
    monkeypatch.setattr(four.models, "commit", fail_once(commit))
    said = cycle.step(four)
    assert said == "edits 1-4 were tried together: edits 1-4: to be tried again in a smaller batch"
    assert states(four) == [PENDING] * 4
    assert [four.ledger.edit(n).attempt for n in (1, 2, 3, 4)] == [0] * 4
    assert four.ledger.generation(1).state == "quarantined"
    check_state(four.config)
    work_off(four)
    assert states(four) == [LIVE] * 4


def fail_once(call: Callable[..., object]) -> Callable[..., object]:
    """`call`, which refuses the first time."""
    refusals = iter([GenerationError("seal directory", "staging", "there are no *.safetensors files in it")])

    def refuse_or_call(*args: object) -> object:
        for error in refusals:
            raise error
        return call(*args)

    return refuse_or_call


def test_a_rate_holds_for_the_edits_of_a_batch(four: House, take: Take) -> None:
    """With two an hour no batch begins a third."""
    rules = {"default": SourceSettings(max_edits_per_hour=2)}
    strict = replace(four, config=replace(four.config, sources=rules), waiting={})
    assert cycle.step(strict) == "edits 1-2 were tried together: edits 1-2: live in generation 1"
    assert cycle.step(strict).startswith("edit 3 waits: its source's rate")


def test_an_edit_retried_by_hand_is_tried_alone(four: House, runner: FakeRunner, take: Take) -> None:
    """What was held spoils no other's batch."""
    runner.script["Italy"] = ["bad", "bad", "bad"]
    work_off(four)
    take(capital("Chile", "Arica"), capital("Japan", "Kyoto"))
    four.ledger.retry(3, reason="asked for", now=four.now())
    work_off(four)
    assert tried(runner)[-2:] == [["Italy"], ["Chile", "Japan"]]
    assert states(four) == [LIVE] * 6


def test_one_measurement_counts_as_one_candidate(four: House, clock: FakeClock) -> None:
    """Four edits committed are one generation, and each took its share of the time."""

    def idle(_stage: str) -> None:
        clock.advance(8)

    cycle.step(four, idle)
    value = four.metrics.registry.get_sample_value
    assert value("palimpsest_generations_total", {"result": "committed"}) == 1
    assert value("palimpsest_edits_total", {"state": "live"}) == 4
    assert value("palimpsest_edit_seconds_count") == 4
    assert value("palimpsest_edit_seconds_sum") == 8


@pytest.mark.parametrize("place", ["edit.taken", "edit.refused", "commit.built", "edit.concluded"])
@pytest.mark.slow
def test_a_killed_daemon_goes_on_with_its_batches(start: Start, tmp_path: Path, place: str) -> None:
    """Three of four live, the bad one held after its own ladder, whatever the daemon died of in between."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "config.toml").write_text("[editing]\nbatch_size = 4\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, f"{place}:kill")
        dying = start({"Italy": "bad"})
    dying.drop("facts.jsonl", *(capital(name, f"New {name}") for name in NAMES))
    assert dying.process.wait(timeout=30) == -9
    again = start({"Italy": "bad"})
    wanted = [LIVE, LIVE, HELD, LIVE]
    again.wait_for(lambda: [again.state_of(n) for n in (1, 2, 3, 4)] == wanted, "end")
    again.stop()
    assert violations(again.config, recovered=True) == []


@pytest.mark.slow
def test_status_names_the_batch_in_work(start: Start, tmp_path: Path) -> None:
    """Which edits, which of them, and its stage."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "config.toml").write_text("[editing]\nbatch_size = 4\n")
    daemon = start({"Spain": "hang"})
    daemon.drop("facts.jsonl", *(capital(name, f"New {name}") for name in NAMES))
    work = daemon.wait_for(lambda: status.read_work(daemon.config), "work")
    assert (work["edits"], work["stage"]) == ([1, 2, 3, 4], "2 of 4, learn")


def test_a_restart_between_the_halves_goes_on_with_them(four: House, runner: FakeRunner) -> None:
    """Which edits belong together is in the ledger."""
    runner.script["Peru"] = "harm"
    cycle.step(four)
    recover(four)
    fresh = replace(four, not_before={}, waiting={})
    cycle.step(fresh)
    assert tried(runner) == [list(NAMES), ["France", "Spain"]]
    assert states(fresh) == [LIVE, LIVE, PENDING, PENDING]


def test_a_batch_cut_off_is_halved_by_recovery(four: House) -> None:
    """Nobody knows which of it brought the daemon down; none is charged."""
    batch = cycle.next_batch(four)
    cycle._take(four, batch)
    recover(four)
    assert states(four) == [PENDING] * 4
    assert [four.ledger.edit(n).attempt for n in (1, 2, 3, 4)] == [0] * 4
    assert [edit.id for edit in cycle.next_batch(four)] == [1, 2]
    check_state(four.config)


def test_a_member_that_is_left_alone_by_a_crash_is_not_charged(
    four: House, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others were put aside already: what recovery finds looks like a single edit, but was none."""
    runner.script |= {"France": "known", "Spain": "failed", "Italy": "failed"}

    def cut_off(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cycle, "commit_candidate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        cycle.step(four)
    assert states(four) == [EditState.ALREADY_KNOWN, PENDING, PENDING, EditState.EDITING]
    recover(four)
    assert (four.ledger.edit(4).state, four.ledger.edit(4).attempt) == (PENDING, 0)
    check_state(four.config)


def test_a_batch_is_taken_back_as_a_whole_by_its_generation(four: House) -> None:
    """`rollback --to` the generation before leaves none of its edits live."""
    cycle.step(four)
    rollback.to_generation(four, 0)
    assert states(four) == [EditState.ROLLED_BACK] * 4
    check_state(four.config)


def test_cancelling_one_in_work_puts_the_others_back(four: House, runner: FakeRunner) -> None:
    """They are tried again at once, without a try charged."""
    runner.script["Spain"] = ["hang", "good"]

    def idle(_stage: str) -> str | None:
        if not four.ledger.open_intents():
            four.ledger.add_intent("cancel", {"edit": 3}, now=four.now(), actor="test")
        return control.urgent(four, [1, 2, 3, 4])

    assert cycle.step(four, idle).startswith("edits 1-4 were put back")
    control.execute_open(four)
    work_off(four)
    assert states(four) == [LIVE, LIVE, EditState.CANCELLED, LIVE]
    assert [four.ledger.edit(n).attempt for n in (1, 2, 4)] == [0, 0, 0]


def test_one_of_a_batch_can_be_taken_out_again(four: House) -> None:
    """The others stay, in a generation that is composed of their vectors."""
    cycle.step(four)
    rollback.without_fact(four, FactKey("Spain", "capital"))
    assert states(four) == [LIVE, EditState.ROLLED_BACK, LIVE, LIVE]
    assert four.ledger.generation(four.live_number or 0).edits == (1, 3, 4)
    check_state(four.config)


def test_never_more_than_the_model_can_take(four: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capacity says how many may follow; a batch is no longer than that, and never shorter than the one edit
    that is then said to wait."""
    for left, ids in ((3, [1, 2, 3]), (0, [1]), (None, [1, 2, 3, 4])):
        found = replace(capacity.current(four), edits_left=left)
        monkeypatch.setattr(capacity, "current", lambda _house, found=found: found)
        assert [edit.id for edit in cycle.next_batch(four)] == ids


def test_high_priority_takes_nobody_along_into_quiet_hours(four: House, take: Take) -> None:
    """In a batch with one that may be started at any hour there are only such."""
    take(capital("Chile", "Arica", priority="high"))
    quiet = HoursSettings(quiet=("00:00-23:59",), high_priority_passes=True)
    at_night = replace(four, config=replace(four.config, hours=quiet))
    assert [edit.id for edit in cycle.next_batch(at_night)] == [5]
