"""Why pending edits aren't started: worked out from ledger, rules and disk, each time anew.

Knows where that information is and when the daemon's view is to be believed. Doesn't decide who must
wait (`policies.sources`, `policies.capacity`), and keeps no state of its own: a changed rule, an
approval or an hour that passed sets edits going by themselves.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from daemon import capacity
from daemon.config import Config, SourceSettings
from daemon.house import House, utc_now
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

NOTED = "sources"  # a setting of the ledger
NO_ROOM = "room: the disk has no room for two more models"


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


def note(house: House) -> None:
    """Write the rules that the daemon goes by into the ledger when they changed, for the audit and for
    commands that don't know its configuration."""
    rules = {name: to_wire(settings) for name, settings in house.config.sources.items()}
    if rules != house.ledger.get_setting(NOTED, {}):
        house.ledger.set_setting(NOTED, rules, now=house.now())


def by_source(config: Config, ledger: Ledger, *, running: bool) -> dict[int, Wait]:
    """What `current` is for the daemon, for another process. A running daemon's own rules win."""
    settings: Mapping[str, Any] = config.sources
    if running:
        noted = ledger.get_setting(NOTED, {})
        settings = {name: from_wire(SourceSettings, rules) for name, rules in noted.items()}
    return assess(ledger, policies_from(settings), utc_now())


def shown(config: Config, ledger: Ledger, edits: Iterable[Edit], *, running: bool) -> dict[int, str]:
    """Why each of `edits` that waits does. Only an edit that is due waits for room or capacity."""
    found = {number: str(wait) for number, wait in by_source(config, ledger, running=running).items()}
    return _with_model(config, ledger, edits, found, running=running)


def for_somebody(config: Config, ledger: Ledger, edits: Iterable[Edit]) -> dict[int, str]:
    """Why those of `edits` wait that won't go on by themselves, as the running daemon sees it."""
    waits = by_source(config, ledger, running=True)
    found = {number: str(wait) for number, wait in waits.items() if wait.until is None}
    by_rate = waits.keys() - found.keys()
    free = [edit for edit in edits if edit.id not in by_rate]
    return _with_model(config, ledger, free, found, running=True)


def _with_model(
    config: Config, ledger: Ledger, edits: Iterable[Edit], found: Mapping[int, str], *, running: bool
) -> dict[int, str]:
    """`found` for those of `edits` that are in it; for the other due ones, what all of them wait for."""
    if not ModelStore(config.layout.model).has_room():
        for_all = NO_ROOM
    elif running:
        for_all = (capacity.noted_by_daemon(ledger) or {}).get("waits", "")
    else:
        for_all = capacity.assess(ledger, config).waits
    now = utc_now()
    every = {edit.id: found.get(edit.id, for_all if is_due(edit, now) else "") for edit in edits}
    return {number: why for number, why in every.items() if why}
