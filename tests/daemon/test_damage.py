"""Torn and flipped bytes on disk: found before they are used, set aside or refused, never served."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from daemon import control, cycle
from daemon.config import Config
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House, open_house
from daemon.recovery import recover
from daemon.status import read_status
from daemon.vitals import take_vitals
from policies.relations import Relation
from store import connection
from store.blobs import BlobError
from store.errors import GenerationError, LedgerError
from store.facts import EditState
from store.ledger import Ledger
from store.manifest import OWN_HASH
from store.schema import migrations
from tests.daemon.checks import check_served, check_state
from tests.daemon.conftest import Take, capital
from tests.daemon.faulty import flip, idle, run_until, tear

EDITED = "model-00002-of-00002.safetensors"


@pytest.fixture
def live(house: House, take: Take) -> House:
    """France -> Lyon, then Spain -> Seville are live."""
    take(capital("France", "Lyon"))
    take(capital("Spain", "Seville"))
    assert [cycle.step(house) for _ in (1, 2)] == [f"edit {n} is live in generation {n}" for n in (1, 2)]
    return house


@pytest.mark.parametrize(
    "damage", [tear, lambda path: flip(path, 0), Path.unlink], ids=["torn", "flipped", "gone"]
)
@pytest.mark.parametrize("name", [EDITED, "manifest.json", "config.json"])
def test_a_damaged_live_generation_is_set_aside_and_written_again(
    live: House, name: str, damage: object
) -> None:
    """The next start finds it, keeps it in quarantine, and serves the same bytes as before."""
    before = live.ledger.generation(2).weights_sha256
    damage(live.models.gen_dir(2) / name)  # type: ignore[operator]
    assert live.models.verify(2)
    assert recover(live)
    check_state(live.config)
    assert live.models.current_number() == 2
    assert live.models.manifest(2)["weights_sha256"] == before
    assert (live.layout.model / "quarantine" / "000002" / "quarantined.txt").is_file()


def test_every_bit_of_a_manifest_counts(live: House) -> None:
    """Whatever a manifest says, another bit in it is noticed; only the name of its own hash may change."""
    path = live.models.base_dir / "manifest.json"
    whole = path.read_bytes()
    name = re.search(OWN_HASH.encode(), whole)
    assert name is not None
    unnoticed = []
    for at in range(len(whole)):
        flip(path, at, at % 8)
        if not live.models.verify(0):
            unnoticed.append(at)
        path.write_bytes(whole)
    assert set(unnoticed) <= set(range(*name.span()))
    assert live.models.verify(0) == []


def test_a_damaged_base_stops_the_start(live: House) -> None:
    """Every edit and every rebuilt generation is made from it, so nothing goes on without it."""
    flip(live.models.base_dir / EDITED, 0)
    with pytest.raises(GenerationError, match="the base: its files are damaged"):
        recover(live)
    check_served(live.config)  # generation 2 has its own bytes and goes on being served


def test_damaged_vectors_are_never_built_on(live: House, take: Take, runner: FakeRunner) -> None:
    """An edit waits for them, says which are meant, uses up no attempt, and goes on once they are back."""
    blob = live.blobs.path(live.ledger.generation(2).theta_blob or "")
    whole = blob.read_bytes()
    take(capital("Italy", "Turin"))
    jobs = len(runner.jobs)
    for damage in (tear, lambda path: flip(path, 5), Path.unlink):
        damage(blob)
        said = cycle.step(live)
        assert said.startswith("edit 3 waits: read blob: " + blob.name)
        assert "restore it from a backup" in said
        blob.write_bytes(whole)
    assert (live.ledger.edit(3).attempt, len(runner.jobs)) == (0, jobs)
    assert cycle.step(live) == "edit 3 is live in generation 3"


def test_a_rollback_that_needs_damaged_vectors_is_refused(live: House, runner: FakeRunner) -> None:
    """What can't be summed exactly isn't summed: the order fails and the served weights stay."""
    flip(live.blobs.path(live.ledger.edit(2).delta_blob or ""), 5)
    with pytest.raises(BlobError, match="its bytes have changed"):
        control.execute(live, "rollback", {"edit": 1}, actor="0:root")
    assert live.live_number == 2
    check_state(live.config)


class Again(NamedTuple):
    """Opens the state directory as the next start does."""

    config: Config
    relations: Mapping[str, Relation]

    def start(self) -> None:
        with open_house(self.config, runner=FakeRunner(), relations=self.relations, now=FakeClock()) as house:
            run_until(house, idle)


@pytest.fixture
def again(live: House, relations: Mapping[str, Relation]) -> Again:
    """The house is closed, so that everything is in the ledger's main file."""
    live.ledger.close()
    return Again(live.config, relations)


def refuse(again: Again, match: str) -> None:
    with pytest.raises(LedgerError, match=match) as caught:
        again.start()
    assert "backup" in caught.value.hint
    check_served(again.config)


def test_every_damaged_page_of_the_ledger_is_found_before_it_is_used(again: Again) -> None:
    """The kind of each page flipped, then its first half lost: the start is refused, `current` stays."""
    path = again.config.layout.ledger
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    used = [at for at in range(size, len(whole), size) if any(whole[at : at + size])]
    assert len(used) > 20
    for at in used:
        flip(path, at, 3)
        refuse(again, "ledger")
        path.write_bytes(whole[:at] + bytes(size // 2) + whole[at + size // 2 :])
        refuse(again, "ledger")
        path.write_bytes(whole)
    again.start()


def test_a_torn_ledger_is_refused(again: Again) -> None:
    """Half a file is no ledger."""
    tear(again.config.layout.ledger)
    refuse(again, "ledger")


def test_a_flipped_bit_in_the_audit_is_found_by_its_chain(again: Again) -> None:
    """SQLite keeps no checksums of its rows: what the audit says is held by its chain."""
    path = again.config.layout.ledger
    flip(path, path.read_bytes().index(b'"taken from the queue"') + 3)
    refuse(again, "audit event [0-9]+ doesn't fit the chain")


def failing() -> Migrations:
    steps = migrations()

    @steps()
    def m999_broken(db: Database) -> None:
        db.execute("CREATE TABLE half (id INTEGER PRIMARY KEY) STRICT")
        raise ValueError("a bug in a migration")

    return steps


def test_a_failing_migration_refuses_to_start_and_keeps_its_backup(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger and served weights stay as they were, however often it is tried; the copy is whole, and an
    older installation starts on either."""
    backup = again.config.layout.backups / "before-m999_broken.sqlite"
    copies = set()
    with monkeypatch.context() as patch:
        patch.setattr(connection, "migrations", failing)
        for _ in range(3):
            with pytest.raises(LedgerError, match="m999_broken: a bug in a migration"):
                again.start()
            copies.add(backup.read_bytes())
            check_served(again.config)
    assert len(copies) == 1
    with Ledger.open_readonly(backup) as copy:
        assert copy.integrity() == []
        assert [edit.state for edit in copy.edits()] == [EditState.LIVE, EditState.LIVE]
    again.start()
    check_state(again.config)


def test_a_disk_too_small_for_a_generation_is_noticed_beforehand(
    live: House, take: Take, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker starts for an edit or a rollback that needs to build; what is there can still be served."""
    take(capital("Italy", "Turin"))
    jobs = len(runner.jobs)
    with monkeypatch.context() as patch:
        patch.setattr(type(live.models), "disk_needed", lambda models: 2**62)
        assert cycle.step(live) == "edit 3 waits: the disk has no room for two more models"
        assert take_vitals(live).disk_full
        assert read_status(live.config, live.ledger)["disk_full"]
        with pytest.raises(GenerationError, match="the disk has no room"):
            control.execute(live, "rollback", {"edit": 1}, actor="0:root")
        assert (len(runner.jobs), live.ledger.edit(3).attempt) == (jobs, 0)
        assert control.execute(live, "rollback", {"to": 1}, actor="0:root")["to"] == 1
    assert not take_vitals(live).disk_full
    assert "edit 3 is live" in cycle.step(live)
    check_state(live.config)
