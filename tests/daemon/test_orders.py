"""Orders that are cut off: what was done is told as done, once, whoever finishes it."""

from collections.abc import Mapping
from typing import Any

import pytest

from daemon import control, cycle, orders
from daemon.fakes import FakeRunner
from daemon.house import House
from store.facts import EditState
from store.failpoints import armed
from tests.daemon.conftest import Take, capital

PLACES = ("ledger.commit", "ledger.committed", "order.executed")
WORK: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cancel": ({"edit": 2}, {"edit": 2, "state": "cancelled"}),
    "retry": ({"edit": 1}, {"edit": 1, "state": "pending"}),
    "approve": ({"edits": [2]}, {"approved": [2], "still_wait": {}}),
    "pin": ({"generation": 0, "pinned": True}, {"generation": 0, "pinned": True}),
    "pause": ({}, {"paused": True}),
    "resume": ({}, {"paused": False}),
}


@pytest.fixture
def queued(house: House, take: Take, runner: FakeRunner) -> House:
    """Edit 1 is held, edit 2 pending."""
    runner.script["France"] = ["failed", "failed"]
    take(capital("France", "Lyon"))
    cycle.step(house)
    cycle.step(house)
    take(capital("Spain", "Seville"))
    assert [edit.state for edit in house.ledger.edits()] == [EditState.HELD, EditState.PENDING]
    return house


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", WORK)
def test_an_order_that_is_cut_off_is_done_and_told_so(queued: House, kind: str, place: str) -> None:
    """Before or after the commit, or before its row is finished: the next start says what was done."""
    args, result = WORK[kind]
    order = queued.ledger.add_intent(kind, args, now=queued.now(), actor="1:ada")
    with armed(_dies_at(place)), pytest.raises(KeyboardInterrupt):
        control.execute_open(queued)
    queued.unfinished.clear()  # of the process that died
    assert control.execute_open(queued) == [f"order {order} ({kind}) is done"]
    assert queued.ledger.intent(order)["result"] == result
    assert control.execute_open(queued) == []


def test_an_order_cut_off_in_the_command_line_is_finished_by_the_daemon(queued: House) -> None:
    """With the daemon down the command does the work itself, and may die as well."""
    with armed(_dies_at("ledger.committed", after=2)), pytest.raises(KeyboardInterrupt):
        orders.give(queued.config, "cancel", {"edit": 2})
    (left,) = queued.ledger.open_intents()
    assert queued.ledger.edit(2).state is EditState.CANCELLED
    assert control.execute_open(queued) == [f"order {left['id']} (cancel) is done"]


def _dies_at(place: str, after: int = 1) -> Any:
    """For `armed`: dies the `after`th time that `place` is reached."""
    seen = 0

    def reached(name: str) -> None:
        nonlocal seen
        seen += name == place
        if name == place and seen == after:
            raise KeyboardInterrupt(name)

    return reached
