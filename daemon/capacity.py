"""The live generation's capacity, read from the ledger, noted there, and shown to whoever asks.

Knows where generations and their readings are and when the daemon's view is to be believed. Doesn't
decide what a reading is worth (`policies.capacity`).
"""

from typing import Any

from daemon.config import Config
from daemon.house import House, utc_now
from policies.capacity import Capacity, Chain, capacity
from policies.gates import gates_for
from policies.plan import is_due
from store.errors import GenerationError
from store.facts import EditState, Op, Reading
from store.generations import ModelStore
from store.ledger import Ledger
from store.wire import from_wire, to_wire

NOTED = "capacity"  # a setting of the ledger


def current(house: House) -> Capacity:
    """Worked out once for each state of the ledger that it depends on."""
    key = (house.live_number, house.ledger.newest_outcome())
    if key not in house.capacities:
        house.capacities.clear()
        house.capacities[key] = assess(house.ledger, house.config)
    return house.capacities[key]


def assess(ledger: Ledger, config: Config) -> Capacity:
    """Of the live generation, by the thresholds and the reserve of `config`."""
    generations = {row.number: row for row in ledger.generations()}
    live = next((row.number for row in generations.values() if row.state == "live"), 0)
    readings = {number: tuple(found) for number, found in ledger.generation_readings().items()}
    if live not in readings:
        readings[live] = _of_manifest(config, live)
    return capacity(
        Chain(generations, live, readings),
        gates_for(Op.UPSERT, config.gates),
        reserve=config.capacity.reserve,
        enforce=config.capacity.enforce,
    )


def live_readings(ledger: Ledger, config: Config) -> tuple[Reading, ...]:
    """What was measured of the live generation; nothing of the base, nor of one that was composed."""
    live = ledger.live_generation()
    number = live.number if live is not None else 0
    return tuple(ledger.generation_readings().get(number, ())) or _of_manifest(config, number)


def _of_manifest(config: Config, number: int) -> tuple[Reading, ...]:
    """A generation that recovery finished has its readings on disk only; a composed one has none."""
    try:
        found = ModelStore(config.layout.model).manifest(number).get("readings", [])
    except GenerationError:
        return ()
    return tuple(from_wire(Reading, reading) for reading in found)


def note(house: House) -> Capacity:
    """The current capacity. Written into the ledger when it isn't what was noted last, for commands
    that don't know the daemon's configuration; logged when edits begin or cease to wait."""
    found = current(house)
    noted: dict[str, Any] = house.ledger.get_setting(NOTED, {})
    value = to_wire(found)
    if noted == value:
        return found
    house.ledger.set_setting(NOTED, value, now=house.now())
    numbers = {"generation": found.generation, "headroom": found.headroom, "edits_left": found.edits_left}
    if found.waits and found.waits != noted.get("waits"):
        house.log.warning("capacity.edits_wait", **numbers, cause=found.waits)
    elif noted.get("waits") and not found.waits:
        house.log.info("capacity.edits_go_on", **numbers)
    return found


def noted_by_daemon(ledger: Ledger) -> dict[str, Any] | None:
    """What a running daemon noted of the generation that is live now; None before it did."""
    live = ledger.live_generation()
    noted: dict[str, Any] | None = ledger.get_setting(NOTED)
    return noted if noted and live and noted["generation"] == live.number else None


def shown(config: Config, ledger: Ledger, *, running: bool) -> dict[str, Any]:
    """The fields of `Capacity`, and `waiting`: how many due edits wait for it. A running daemon's own
    note wins: it may have been started with another configuration than this command."""
    noted = noted_by_daemon(ledger) if running else None
    value = noted or dict(to_wire(assess(ledger, config)))
    now = utc_now()
    due = sum(is_due(edit, now) for edit in ledger.edits([EditState.PENDING])) if value["waits"] else 0
    return {**value, "waiting": due}
