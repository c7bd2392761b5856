"""What an operator may order: one function for each kind, run by whoever holds the state directory.

Knows the orders and their arguments. Doesn't know whether a running daemon or the command line
itself carries them out: an order is a row of the ledger either way.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from daemon import rollback, waits
from daemon.house import House
from daemon.runner import WorkerStopped, never
from policies.sources import For
from store.errors import PalimpsestError, UsageError
from store.facts import EditState
from store.failpoints import reach
from store.trouble import trouble_of

Idle = Callable[[str], str | None]
Args = Mapping[str, Any]

# These touch no weights and no running job, so that they are carried out while an edit is in work.
QUICK = frozenset({"pause", "resume", "retry", "pin", "approve"})
PAUSED = "paused"


def _rollback(house: House, args: Args, idle: Idle) -> dict[str, Any]:
    return rollback.ordered(house, args, idle)


def _pause(house: House, _args: Args, _idle: Idle) -> dict[str, Any]:
    if not is_paused(house):  # since when it is paused is shown
        house.ledger.set_setting(PAUSED, True, now=house.now())
    return {"paused": True}


def _resume(house: House, _args: Args, _idle: Idle) -> dict[str, Any]:
    house.ledger.set_setting(PAUSED, False, now=house.now())
    return {"paused": False}


def _retry(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    house.not_before.pop(int(args["edit"]), None)
    reason, order = "an operator asked for another try", args.get("order")
    edit = house.ledger.retry(int(args["edit"]), reason=reason, now=house.now(), order=order)
    return {"edit": edit.id, "state": str(edit.state)}


def _cancel(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    reason, order = "an operator cancelled it", args.get("order")
    edit = house.ledger.transition(
        int(args["edit"]), EditState.CANCELLED, reason=reason, now=house.now(), order=order
    )
    house.metrics.edits.labels(EditState.CANCELLED.value).inc()
    return {"edit": edit.id, "state": str(edit.state)}


def _approve(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    edits = [int(number) for number in args["edits"]]
    house.ledger.approve(edits, actor=str(args["actor"]), now=house.now(), order=args.get("order"))
    return _approved(house, edits)


def _approved(house: House, edits: Sequence[int]) -> dict[str, Any]:
    left = {number: wait for number, wait in waits.current(house).edits.items() if number in edits}
    asked = {number: wait.what for number, wait in left.items() if wait.reason is For.APPROVAL}
    return {"approved": list(edits), "still_wait": {str(number): what for number, what in asked.items()}}


def _pin(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    row = house.ledger.pin(int(args["generation"]), bool(args["pinned"]), now=house.now())
    return {"generation": row.number, "pinned": row.pinned}


_ORDERS: dict[str, Callable[[House, Args, Idle], dict[str, Any]]] = {
    "rollback": _rollback,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "cancel": _cancel,
    "pin": _pin,
    "approve": _approve,
}
KINDS = frozenset(_ORDERS)


def execute(
    house: House, kind: str, args: Args, idle: Idle = never, *, actor: str, order: int | None = None
) -> dict[str, Any]:
    """Carry out an order of `actor`, which is row `order`. Raises PalimpsestError, UsageError for one that
    makes no sense."""
    if kind not in _ORDERS:
        raise UsageError("carry out order", kind, f"there are only {', '.join(_ORDERS)}")
    try:
        # Who gives the order is what its row says; arguments can claim nobody else.
        return _ORDERS[kind](house, {**args, "actor": actor, "order": order}, idle)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("carry out order", kind, f"arguments {dict(args)}: {error!r}") from error


def execute_open(house: House, idle: Idle = never, kinds: frozenset[str] | None = None) -> list[str]:
    """Carry out every open order (of these kinds), oldest first; returns a sentence for each.

    An order that fails is finished with its error. One that is cut off, by something more urgent or by
    the machine's trouble (`store.trouble`), stays open.
    """
    done = []
    for intent in house.ledger.open_intents():
        kind = intent["kind"]
        if kinds is not None and kind not in kinds:
            continue
        try:
            result = house.unfinished.get(intent["id"])
            if result is None and intent["result"] is not None:
                result = _finish_cut_off(house, kind, intent["result"], idle)
            elif result is None:
                known = {"actor": intent["actor"], "order": intent["id"]}
                result = execute(house, kind, intent["args"], idle, **known)
        except WorkerStopped:
            break
        except PalimpsestError as error:
            if trouble_of(error):
                raise
            result = failure(error)
        house.unfinished[intent["id"]] = result  # done once, even if saying so is put off
        reach("order.executed")
        house.ledger.finish_intent(intent["id"], result, house.now())
        del house.unfinished[intent["id"]]
        state = "failed" if "error" in result else "done"
        house.log.info(f"order.{state}", order=intent["id"], kind=kind, actor=intent["actor"])
        done.append(f"order {intent['id']} ({kind}) is {state}")
    return done


def _finish_cut_off(house: House, kind: str, done: dict[str, Any], idle: Idle) -> dict[str, Any]:
    """The whole result of an order whose process died after the transaction that did it."""
    if kind == "rollback":
        return rollback.finish_cut_off(house, done, idle)
    return _approved(house, done["approved"]) if kind == "approve" else done


def urgent(house: House, running: Collection[int]) -> str | None:
    """Why the edits in work must make way, if an open order says so."""
    for intent in house.ledger.open_intents():
        if intent["kind"] == "rollback":
            return "an operator asked for a rollback"
        if intent["kind"] == "cancel" and intent["args"].get("edit") in running:
            return f"an operator cancelled {'it' if len(running) == 1 else 'one of them'}"
    return None


def failure(error: PalimpsestError) -> dict[str, Any]:
    """An error as the result of an order."""
    return {"error": error.as_dict(), "exit_code": error.exit_code}


def is_paused(house: House) -> bool:
    return bool(house.ledger.get_setting(PAUSED, False))


def last_run(house: House, what: str) -> datetime | None:
    """When a periodic job last ran."""
    text = house.ledger.get_setting(f"last_{what}")
    return datetime.fromisoformat(text) if text else None
