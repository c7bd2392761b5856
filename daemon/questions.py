"""The questions of `policies.served` for one switch of generations, gathered from the ledger.

Knows which rows they come from. Doesn't know hooks or engines.
"""

from collections.abc import Iterable, Sequence

from daemon.house import House
from daemon.jobs import latest_of_each, request
from policies.served import Question, Told, canary, questions
from store.facts import Edit, ProbeAnswer, Reading, Suite
from store.wire import from_wire


def questions_for(house: House, number: int, previous: int, measured: Sequence[Reading]) -> list[Question]:
    """What shows that the live generation `number` is served and no longer `previous`. `measured` are its
    readings when they aren't in the ledger yet."""
    ledger = house.ledger
    before = frozenset(ledger.generation(previous).edits)
    live = tuple(reversed(latest_of_each(ledger.live_facts())))
    keys = {edit.key for edit in live}
    taken_back = sorted(before - frozenset(ledger.generation(number).edits), reverse=True)
    readings = measured or _readings(house, number)
    found = questions(
        (_told(house, edit) for edit in live if edit.id not in before),
        (_told(house, edit) for edit in map(ledger.edit, taken_back) if edit.key not in keys),
        (_told(house, edit) for edit in live if edit.id in before),
        readings,
    )
    # What nobody measured is judged by the newest generation that was: its answers are the base's too.
    unmeasured = () if readings else _readings(house, max(ledger.generation_readings(), default=-1))
    bird = canary(readings or unmeasured)
    return [*found, bird] if bird else found


def _told(house: House, edit: Edit) -> Told:
    outcomes = house.ledger.outcomes(edit.id)
    return Told(edit.id, request(house, edit), outcomes[-1]["before"] if outcomes else "")


def _readings(house: House, number: int) -> list[Reading]:
    return [
        Reading(
            Suite(row["suite"]), row["value"], row["low"], row["high"], row["n"], _answers(row["answers"])
        )
        for row in house.ledger.readings(generation=number)
        if row["value"] is not None
    ]


def _answers(rows: Iterable[object]) -> tuple[ProbeAnswer, ...]:
    return tuple(from_wire(ProbeAnswer, row) for row in rows)
