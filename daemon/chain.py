"""Walks the audit's hash chain again and again, a few hundred events at a time, between other work.

Knows how far the walk got and what the last one found. It also holds the newest event of the walk before:
while the daemon runs, a chain that was rewritten whole, or whose end was cut off, is noticed too, which the
chain alone can't show (`store.audit`). Doesn't know why anyone would change an event.
"""

import time
from collections.abc import Callable

from daemon.house import House
from daemon.metrics import Stage
from store.audit import START

EVERY_SECONDS = 3600.0
EVENTS = 500  # in one look, about ten milliseconds


class ChainWatch:
    """The walk of one ledger. `monotonic` is in seconds."""

    def __init__(
        self, house: House, events: int = EVENTS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._house = house
        self._events = events
        self._monotonic = monotonic
        self._reached = self._known = START
        self._next_walk = -float("inf")

    def look(self) -> None:
        """Go on with the walk, unless the last one is recent; shows and logs what it comes to."""
        if self._monotonic() < self._next_walk:
            return
        # It stops at the event that is known from the last walk, to compare it.
        ahead = self._known.id - self._reached.id
        limit = min(self._events, ahead) if ahead > 0 else self._events
        reached, broken = self._house.ledger.follow_audit(self._reached, limit)
        if broken is None and reached.id == self._known.id and reached != self._known:
            broken = reached.id
        if broken is not None:
            self._end(broken)
        elif reached == self._reached:
            self._known = max(self._known, reached)
            self._end(None if reached.id == self._known.id else reached.id + 1)
        else:
            self._reached = reached

    def _end(self, broken: int | None) -> None:
        house = self._house
        self._reached = START
        self._next_walk = self._monotonic() + EVERY_SECONDS
        house.metrics.audit_chain_ok.set(broken is None)
        if broken is None:
            house.metrics.succeeded(Stage.AUDIT, house.now())
        else:
            house.log.error("audit.chain_broken", number=broken, see="palimpsest verify")
