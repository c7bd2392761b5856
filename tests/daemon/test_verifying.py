"""Whatever was changed behind the daemon's back is named by `verify`, each with what to do."""

import json
import sqlite3
from collections.abc import Callable

import pytest

from daemon import backups, cycle
from daemon.house import House
from daemon.verifying import verify
from tests.daemon.conftest import Take, capital


@pytest.fixture
def made(house: House, take: Take) -> House:
    """One live edit and one backup."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    backups.make(house)
    return house


def weights(house: House) -> None:
    path = house.models.gen_dir(1) / "model-00002-of-00002.safetensors"
    path.write_text(path.read_text().replace("Lyon", "Nice"))


def base(house: House) -> None:
    (house.models.base_dir / "config.json").write_text("{ }")


def link(house: House) -> None:
    house.models.promote(0)


def blob(house: House) -> None:
    (sha256, *_) = sorted(house.ledger.referenced_blobs())
    house.blobs.path(sha256).write_bytes(b"x")


def file(house: House) -> None:
    (path,) = house.layout.done.glob("*/file1.jsonl")
    path.write_text("other\n")


def backup(house: House) -> None:
    (path,) = house.layout.backups.glob("*/ledger.sqlite")
    path.write_bytes(path.read_bytes()[:-1])


def audit(house: House) -> None:
    house.ledger.close()
    with sqlite3.connect(house.layout.ledger) as db:
        db.execute("DROP TRIGGER IF EXISTS audit_no_update")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute("UPDATE audit SET detail = '{}' WHERE id = 3")


@pytest.mark.parametrize(
    ("harm", "where"),
    [
        (audit, "ledger"),
        (base, "base"),
        (weights, "generation 1"),
        (link, "current"),
        (blob, "blob"),
        (file, "done/"),
        (backup, "backup"),
    ],
)
def test_each_kind_of_damage_is_named(made: House, harm: Callable[[House], None], where: str) -> None:
    """Nothing is wrong before; afterwards the damaged thing comes first, with a hint."""
    assert verify(made.config) == []
    harm(made)
    faults = verify(made.config)
    assert faults[0].where.startswith(where)
    assert faults[0].hint


def test_every_stage_is_shown(made: House) -> None:
    """Whoever waits sees how far it is, in a form that moves a bar."""
    stages: list[str] = []
    verify(made.config, stages.append)
    counted = [stage.rpartition(" ")[2].split("/") for stage in stages]
    assert [int(at) for at, _ in counted] == list(range(len(stages)))
    assert {int(total) for _, total in counted} == {len(stages)}


def test_an_archived_file_is_no_fault(made: House) -> None:
    """Operators may move what is done elsewhere; its report stays readable."""
    (path,) = made.layout.done.glob("*/file1.jsonl")
    report = path.with_name(path.name + ".result.json")
    path.unlink()
    assert verify(made.config) == []
    report.write_text(json.dumps({}))
    assert [fault.where for fault in verify(made.config)] == [f"done/{path.parent.name}/{report.name}"]
