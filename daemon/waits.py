"""Why pending edits aren't started: worked out from ledger, rules, disk and hour, each time anew.

Knows where that information is and when the daemon's view is to be believed. Doesn't decide who must
wait (`policies.sources`, `policies.capacity`, `policies.hours`), and keeps no state of its own: a changed
rule, an approval or an hour that passed sets edits going by themselves.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from daemon import capacity
from daemon.config import Config, HoursSettings, SourceSettings
from daemon.house import House, utc_now
from policies import hours
from policies.plan import is_due
from policies.sources import (
    HOUR,
    Begun,
    Drop,
    For,
    Policies,
    Traffic,
    Wait,
    Waiting,
    policies_from,
    waiting,
    within_rates,
)
from store.facts import Edit, EditState
from store.generations import ModelStore
from store.ledger import Ledger
from store.wire import from_wire, to_wire

NOTED, NOTED_HOURS = "sources", "hours"  # settings of the ledger
NO_ROOM = Wait(None, "room", "the disk has no room for two more models")


def current(house: House) -> Waiting:
    """Worked out once for each state of the ledger; what newly waits for a human is logged."""
    event, now = house.ledger.newest_event(), house.now()
    found = house.waiting.get(event)
    if found is not None and (found.until is None or now < found.until):
        return found
    before = next(iter(house.waiting.values()), Waiting())
    found = Waiting(assess(house.ledger, policies_from(house.config.sources), now))
    house.waiting.clear()
    house.waiting[event] = found
    if found.count(For.APPROVAL) > before.count(For.APPROVAL):
        see = "palimpsest approvals"
        house.log.warning("approval.edits_wait", edits=found.count(For.APPROVAL), see=see)
    return found


def assess(ledger: Ledger, policies: Policies, now: datetime) -> dict[int, Wait]:
    """The pending edits that wait for approval or for their source's rate."""
    pending = ledger.edits([EditState.PENDING]) if policies.restrict_the_queue else []
    if not pending:
        return {}
    oldest = min(edit.dropped_at or now for edit in pending)
    approvals = ledger.approvals(edit.id for edit in pending)
    traffic = Traffic(
        [Drop(*row) for row in ledger.drops_since(oldest - HOUR)],
        [Begun(*row) for row in ledger.begun_since(now - HOUR)],
        {edit: [row["actor"] for row in rows] for edit, rows in approvals.items()},
    )
    return waiting(pending, policies, traffic, now)


def begun_together(house: House, edits: Iterable[Edit]) -> list[Edit]:
    """Those of `edits`, none of which waits, that may be begun at once."""
    now = house.now()
    begun = (Begun(*row) for row in house.ledger.begun_since(now - HOUR))
    return within_rates(edits, policies_from(house.config.sources), begun, now)


def by_hours(house: House, edit: Edit) -> str:
    """Why `edit` can't be started at this hour; empty when it can."""
    found = hours.waiting([edit], house.config.hours.resolved(), house.now())
    return str(found.get(edit.id, ""))


def count_by_hours(ledger: Ledger, known: hours.Hours, now: datetime, without: Iterable[int]) -> int:
    """How many due edits wait for another hour, less those of `without`, which wait for something else."""
    counts = {} if known.are_open(now) else ledger.due_counts(now, without)
    return sum(n for priority, n in counts.items() if not known.let_start(priority, now))


def next_change(house: House) -> datetime | None:
    """When the next edit takes effect or edits may be started again."""
    now, known = house.now(), house.config.hours.resolved()
    opens = None if known.are_open(now) else known.open_at(now)
    return min(filter(None, (house.ledger.next_due_after(now), opens)), default=None)


def note(house: House) -> None:
    """Write the rules that the daemon goes by into the ledger when they changed, for the audit and for
    commands that don't know its configuration."""
    config = house.config
    rules = {name: to_wire(settings) for name, settings in config.sources.items()}
    noted = {NOTED: (rules, {}), NOTED_HOURS: (to_wire(config.hours), to_wire(HoursSettings()))}
    for name, (value, default) in noted.items():
        if value != house.ledger.get_setting(name, default):
            house.ledger.set_setting(name, value, now=house.now())


def hours_of(config: Config, ledger: Ledger, *, running: bool) -> HoursSettings:
    """The hours to go by; a running daemon's own win."""
    return from_wire(HoursSettings, ledger.get_setting(NOTED_HOURS, {})) if running else config.hours


def by_source(config: Config, ledger: Ledger, *, running: bool) -> dict[int, Wait]:
    """What `current` is for the daemon, for another process. A running daemon's own rules win."""
    settings: Mapping[str, Any] = config.sources
    if running:
        noted = ledger.get_setting(NOTED, {})
        settings = {name: from_wire(SourceSettings, rules) for name, rules in noted.items()}
    return assess(ledger, policies_from(settings), utc_now())


def standing(config: Config, ledger: Ledger, edits: Iterable[Edit], *, running: bool) -> dict[int, Wait]:
    """Why each of `edits` that waits does. Only one that is due waits for room, capacity or the hour."""
    taken, now = list(edits), utc_now()
    found = hours.waiting(taken, hours_of(config, ledger, running=running).resolved(), now)
    if for_all := _for_all(config, ledger, running=running):
        found |= {edit.id: for_all for edit in taken if is_due(edit, now)}
    found |= by_source(config, ledger, running=running)
    return {edit.id: found[edit.id] for edit in taken if edit.id in found}


def _for_all(config: Config, ledger: Ledger, *, running: bool) -> Wait | None:
    """What every edit waits for, until somebody does something about it."""
    if not ModelStore(config.layout.model).has_room():
        return NO_ROOM
    noted = capacity.noted_by_daemon(ledger) or {}
    full = noted.get("waits", "") if running else capacity.assess(ledger, config).waits
    what, _, why = full.partition(": ")
    return Wait(None, what, why) if full else None
