"""The walk along the audit's chain: slow, endless, and not to be fooled while the daemon runs."""

import io
import json
import math
import sqlite3

import pytest

from daemon.chain import EVERY_SECONDS, ChainWatch
from daemon.fakes import FakeClock
from daemon.house import House
from store.audit import FIRST, event_hash
from tests.daemon.conftest import Take, capital


@pytest.fixture
def watch(house: House, take: Take, clock: FakeClock) -> ChainWatch:
    """On a ledger with some history, three events in a look."""
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    return ChainWatch(house, events=3, monotonic=clock.monotonic)


def chain_ok(house: House) -> float:
    return house.metrics.registry.get_sample_value("palimpsest_audit_chain_ok") or 0.0


def looks_until(watch: ChainWatch, house: House, wanted: float) -> int:
    """How many looks it takes until the gauge shows `wanted`."""
    for count in range(1, 1000):
        watch.look()
        if chain_ok(house) == wanted:
            return count
    raise AssertionError(f"the chain never became {wanted}")


def tamper(house: House, *statements: str) -> None:
    """What someone does to the file who isn't stopped by triggers."""
    with sqlite3.connect(house.layout.ledger) as db:
        for name in [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)


def rewrite(house: House) -> None:
    """Change the first event and make all hashes anew, so that the chain by itself is whole."""
    tamper(house, "UPDATE audit SET detail = '{}' WHERE id = 1")
    with sqlite3.connect(house.layout.ledger) as db:
        previous = FIRST
        for row in db.execute("SELECT id, at, event, subject, detail FROM audit ORDER BY id").fetchall():
            made = event_hash(previous, *row)
            db.execute("UPDATE audit SET previous = ?, hash = ? WHERE id = ?", [previous, made, row[0]])
            previous = made


def test_it_is_unknown_until_the_first_walk_is_done(watch: ChainWatch, house: House) -> None:
    """A few events a look, then a verdict and its time."""
    sample = house.metrics.registry.get_sample_value
    watch.look()
    assert math.isnan(chain_ok(house))
    assert looks_until(watch, house, 1.0) > 1
    assert sample("palimpsest_last_success_timestamp_seconds", {"stage": "audit"}) == house.now().timestamp()


def test_it_rests_between_two_walks(watch: ChainWatch, house: House, clock: FakeClock) -> None:
    """What was changed just after a walk is found by the next one, an hour later."""
    looks_until(watch, house, 1.0)
    tamper(house, "UPDATE audit SET detail = '{}' WHERE id = 2")
    for _ in range(100):
        watch.look()
    assert chain_ok(house) == 1.0
    clock.advance(EVERY_SECONDS)
    looks_until(watch, house, 0.0)


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("UPDATE audit SET detail = '{}' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 1", 2),
        ("DELETE FROM audit WHERE id = 3", 4),
    ],
)
def test_a_changed_or_missing_event_is_found(
    watch: ChainWatch, house: House, logged: io.StringIO, statement: str, number: int
) -> None:
    """The first walk finds it, and the log says which event doesn't fit."""
    tamper(house, statement)
    looks_until(watch, house, 0.0)
    (line,) = [line for line in map(json.loads, logged.getvalue().splitlines()) if "chain" in line["event"]]
    assert (line["level"], line["event"], line["number"]) == ("error", "audit.chain_broken", number)


def test_an_end_that_was_cut_off_is_found(watch: ChainWatch, house: House, clock: FakeClock) -> None:
    """The chain that is left is whole, but shorter than it was an hour ago."""
    looks_until(watch, house, 1.0)
    tamper(house, "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)")
    assert house.ledger.verify_audit() is None
    clock.advance(EVERY_SECONDS)
    looks_until(watch, house, 0.0)


def test_a_chain_that_was_rewritten_whole_is_found(
    watch: ChainWatch, house: House, clock: FakeClock, take: Take
) -> None:
    """Every hash fits, but the newest event isn't the one that was seen; later ones don't hide it."""
    looks_until(watch, house, 1.0)
    rewrite(house)
    take(capital("Italy", "Milan"))
    assert house.ledger.verify_audit() is None
    clock.advance(EVERY_SECONDS)
    looks_until(watch, house, 0.0)


def test_a_ledger_that_grows_stays_whole(
    watch: ChainWatch, house: House, clock: FakeClock, take: Take
) -> None:
    """Events that come during and between walks are no fault."""
    looks_until(watch, house, 1.0)
    for city in ("Nice", "Lille", "Brest"):
        take(capital("France", city))
        clock.advance(EVERY_SECONDS)
        for _ in range(100):
            watch.look()
            assert chain_ok(house) == 1.0
        assert house.metrics.registry.get_sample_value(
            "palimpsest_last_success_timestamp_seconds", {"stage": "audit"}
        ) == pytest.approx(house.now().timestamp())
