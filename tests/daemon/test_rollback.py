"""Back to other weights: exact, audited, and what it broke is queued again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import control, cycle, rollback
from daemon.fakes import FakeRunner
from daemon.house import House
from daemon.recovery import recover
from daemon.runner import WorkerStopped
from daemon.vitals import take_vitals
from store.errors import GenerationError, UsageError
from store.facts import EditState, FactKey
from store.failpoints import armed
from tests.daemon.conftest import Take, capital

Cycle = Callable[..., None]


@pytest.fixture
def live(house: House, take: Take) -> Cycle:
    """Makes rows live, one generation each."""

    def make(*rows: tuple[str, str]) -> None:
        for subject, object in rows:
            take(capital(subject, object))
            assert "is live" in cycle.step(house)

    return make


def facts_served(house: House) -> list[list[str]]:
    """The fake model's facts, as they lie on disk."""
    text = (house.models.current() / "model-00002-of-00002.safetensors").read_text()
    return [fact[::2] for fact in json.loads(text)]


def test_back_to_a_generation_is_the_same_bytes(house: House, live: Cycle) -> None:
    """`rollback --to` serves the directory that was served, by its hash."""
    live(("France", "Lyon"), ("Spain", "Seville"))
    sha256 = house.ledger.generation(1).weights_sha256
    result = rollback.to_generation(house, 1)
    assert result["weights_sha256"] == sha256 == house.models.manifest(1)["weights_sha256"]
    assert house.models.current_number() == house.live_number == 1
    assert house.models.verify(1) == []
    assert house.ledger.edit(2).state is EditState.ROLLED_BACK
    assert house.ledger.generation(2).state == "rolled_back"
    assert result["requeued"] == []


def test_back_to_the_base_is_the_base(house: House, live: Cycle) -> None:
    """Generation 0 is always there."""
    live(("France", "Lyon"))
    rollback.to_generation(house, 0)
    assert facts_served(house) == []
    fact = house.ledger.fact(FactKey("France", "capital"))
    assert fact is not None
    assert fact.value is None


def test_a_generation_that_was_tidied_away_is_rebuilt_to_the_same_hash(house: House, live: Cycle) -> None:
    """Vectors outlive directories."""
    live(("France", "Lyon"), ("Spain", "Seville"), ("Italy", "Milan"))
    sha256 = house.ledger.generation(1).weights_sha256
    house.models.delete(1)
    result = rollback.to_generation(house, 1)
    assert result["weights_sha256"] == sha256
    assert house.models.verify(1) == []
    assert facts_served(house) == [["France", "Lyon"]]


def test_a_damaged_target_is_set_aside_and_rebuilt(house: House, live: Cycle) -> None:
    """Bytes that don't fit their manifest are never served."""
    live(("France", "Lyon"), ("Spain", "Seville"))
    target = house.models.gen_dir(1) / "model-00002-of-00002.safetensors"
    target.chmod(0o644)
    target.write_text("damaged")
    rollback.to_generation(house, 1)
    assert facts_served(house) == [["France", "Lyon"]]
    assert len(list((house.layout.model / "quarantine").iterdir())) >= 1


def test_rebuilt_bytes_that_differ_are_refused(
    house: House, live: Cycle, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the same vectors no longer give the same bytes, nothing is switched."""
    live(("France", "Lyon"), ("Spain", "Seville"))
    house.models.delete(1)

    def other_bytes(base: Path, staging: Path, facts: object) -> None:
        (staging / "config.json").write_text("{}")
        (staging / "model-00002-of-00002.safetensors").write_text("other")

    monkeypatch.setattr("daemon.fakes.write_model", other_bytes)
    with pytest.raises(GenerationError, match="differ"):
        rollback.to_generation(house, 1)
    assert house.models.current_number() == house.live_number == 2


def test_the_newest_edit_is_undone_by_going_back(house: House, live: Cycle, runner: FakeRunner) -> None:
    """A generation without that edit exists already, so no worker is needed and bytes are equal."""
    live(("France", "Lyon"), ("Spain", "Seville"))
    jobs = len(runner.jobs)
    result = rollback.without_edit(house, 2)
    assert result["to"] == 1
    assert len(runner.jobs) == jobs


def test_an_edit_in_the_middle_is_taken_out_and_the_rest_asked_again(
    house: House, live: Cycle, runner: FakeRunner
) -> None:
    """The sum of the other vectors becomes a new generation; what it broke is queued again."""
    live(("France", "Lyon"), ("Spain", "Seville"), ("Italy", "Milan"))
    runner.forgets.add("Italy")
    result = rollback.without_edit(house, 2)
    assert result["to"] == 4
    assert facts_served(house) == [["France", "Lyon"], ["Italy", "Milan"]]
    assert result["requeued"] == [4]
    again = house.ledger.edit(4)
    assert (again.key.subject, again.new, again.state) == ("Italy", "Milan", EditState.PENDING)
    assert house.ledger.edit(2).state is EditState.ROLLED_BACK
    assert cycle.step(house) == "edit 4 is live in generation 5"


def test_asking_again_that_is_cut_off_is_made_up_for(
    house: House, live: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch is done and stays done; the look at the other facts is noted as owed."""
    live(("France", "Lyon"), ("Spain", "Seville"), ("Italy", "Milan"))

    def broken(self: object, job: object, idle: object) -> None:
        raise WorkerStopped("run job", "measure", "the daemon is stopping")

    with monkeypatch.context() as patch:
        patch.setattr(FakeRunner, "_measure", broken)
        assert rollback.without_edit(house, 1)["to"] == 4
    assert house.ledger.get_setting(rollback.REPROBE_WANTED) is True
    rollback.reprobe_live(house)
    assert house.ledger.get_setting(rollback.REPROBE_WANTED) is False


def test_a_fact_is_undone_to_what_it_was_before(house: House, live: Cycle) -> None:
    """`rollback --fact` takes the newest edit of the fact out, in any spelling of its key."""
    live(("France", "Lyon"), ("France", "Nice"))
    rollback.without_fact(house, FactKey("france", "capital"))
    fact = house.ledger.fact(FactKey("France", "capital"))
    assert fact is not None
    assert fact.value == "Lyon"
    with pytest.raises(UsageError):
        rollback.without_fact(house, FactKey("Atlantis", "capital"))


def test_a_rollback_is_counted_audited_and_remembered(house: House, live: Cycle) -> None:
    """Metrics say that it happened, the audit who and why, the ledger what was live when."""
    live(("France", "Lyon"))
    before = house.now()
    order = house.ledger.add_intent("rollback", {"to": 0}, now=house.now(), actor="ada")
    assert control.execute_open(house) == [f"order {order} (rollback) is done"]
    assert take_vitals(house).rollbacks == 1
    assert house.ledger.verify_audit() is None
    assert house.ledger.intent(order)["result"]["to"] == 0
    then = house.ledger.generation_as_of(before)
    assert then is not None


def test_an_order_that_makes_no_sense_is_finished_with_its_error(house: House) -> None:
    """A bad order neither stays open nor stops the daemon."""
    for kind, args in (("rollback", {"to": 99}), ("rollback", {}), ("dance", {}), ("cancel", {"edit": 7})):
        house.ledger.add_intent(kind, args, now=house.now(), actor="ada")
    said = control.execute_open(house)
    assert all("is failed" in sentence for sentence in said)
    assert len(said) == 4
    assert house.ledger.open_intents() == []


def test_the_periodic_look_queues_lost_facts_once(house: House, live: Cycle, runner: FakeRunner) -> None:
    """A live fact that the served model lost is made again."""
    live(("France", "Lyon"), ("Spain", "Seville"))
    runner.forgets.add("France")
    assert rollback.reprobe_live(house) == [3]
    assert rollback.reprobe_live(house) == [3]
    assert len(house.ledger.edits()) == 3
    runner.forgets.clear()
    assert cycle.step(house) == "edit 3 is live in generation 3"


@pytest.mark.parametrize(
    "place",
    ["commit.intent", "stage.renamed", "commit.built", "serve.swapped", "serve.live", "serve.announced",
     "order.executed"],
)  # fmt: skip
def test_an_order_that_is_cut_off_is_carried_out_once(house: House, live: Cycle, place: str) -> None:
    """Undoing the newest edit of a fact stays that, however near to its end the daemon died."""
    live(("France", "Lyon"), ("Spain", "Seville"), ("France", "Nice"), ("Italy", "Milan"))
    order = house.ledger.add_intent("rollback", {"fact": ["France", "capital"]}, now=house.now(), actor="ada")

    def die(name: str) -> None:
        if name == place:
            raise KeyboardInterrupt(name)

    with armed(die), pytest.raises(KeyboardInterrupt):
        control.execute_open(house)
    recover(house)
    assert control.execute_open(house) == [f"order {order} (rollback) is done"]
    assert facts_served(house) == [["France", "Lyon"], ["Spain", "Seville"], ["Italy", "Milan"]]
    result = house.ledger.intent(order)["result"]
    assert (result["to"], result["removed"]) == (house.live_number, [3])
    assert house.ledger.edit(3).state is EditState.ROLLED_BACK
    assert control.execute_open(house) == []
