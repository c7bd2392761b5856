"""What an operator may order: one function for each kind, run by whoever holds the state directory.

Knows the orders and their arguments. Doesn't know whether a running daemon or the command line
itself carries them out: an order is a row of the ledger either way.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from daemon import rollback
from daemon.house import House
from daemon.runner import WorkerStopped, never
from store.errors import PalimpsestError, UsageError
from store.facts import EditState, FactKey
from store.failpoints import reach

Idle = Callable[[str], str | None]
Args = Mapping[str, Any]

# These touch no weights and no running job, so that they are carried out while an edit is in work.
QUICK = frozenset({"pause", "resume", "retry", "pin"})
PAUSED = "paused"


def _rollback(house: House, args: Args, idle: Idle) -> dict[str, Any]:
    order = args.get("order")
    if "to" in args:
        force = bool(args.get("force"))
        return rollback.to_generation(house, int(args["to"]), force=force, idle=idle, order=order)
    if "edit" in args:
        return rollback.without_edit(house, int(args["edit"]), idle=idle, order=order)
    subject, relation = args["fact"]
    return rollback.without_fact(house, FactKey(subject, relation), idle=idle, order=order)


def _pause(house: House, _args: Args, _idle: Idle) -> dict[str, Any]:
    house.ledger.set_setting(PAUSED, True, now=house.now())
    return {"paused": True}


def _resume(house: House, _args: Args, _idle: Idle) -> dict[str, Any]:
    house.ledger.set_setting(PAUSED, False, now=house.now())
    return {"paused": False}


def _retry(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    house.not_before.pop(int(args["edit"]), None)
    edit = house.ledger.retry(int(args["edit"]), reason="an operator asked for another try", now=house.now())
    return {"edit": edit.id, "state": str(edit.state)}


def _cancel(house: House, args: Args, _idle: Idle) -> dict[str, Any]:
    edit = house.ledger.transition(
        int(args["edit"]), EditState.CANCELLED, reason="an operator cancelled it", now=house.now()
    )
    return {"edit": edit.id, "state": str(edit.state)}


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
}


def execute(house: House, kind: str, args: Args, idle: Idle = never, *, order: int) -> dict[str, Any]:
    """Carry out the open order `order`. Raises PalimpsestError, UsageError for one that makes no sense."""
    if kind not in _ORDERS:
        raise UsageError("carry out order", kind, f"there are only {', '.join(_ORDERS)}")
    try:
        return _ORDERS[kind](house, {**args, "order": order}, idle)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("carry out order", kind, f"arguments {dict(args)}: {error!r}") from error


def execute_open(house: House, idle: Idle = never, kinds: frozenset[str] | None = None) -> list[str]:
    """Carry out every open order (of these kinds), oldest first; returns a sentence for each.

    An order that fails is finished with its error. One that is cut off stays open.
    """
    done = []
    for intent in house.ledger.open_intents():
        kind = intent["kind"]
        if kinds is not None and kind not in kinds:
            continue
        try:
            result = (
                execute(house, kind, intent["args"], idle, order=intent["id"])
                if intent["result"] is None
                else rollback.finish_cut_off(house, intent["result"], idle)
            )
        except WorkerStopped:
            break
        except PalimpsestError as error:
            result = failure(error)
        reach("order.executed")
        house.ledger.finish_intent(intent["id"], result, house.now())
        state = "failed" if "error" in result else "done"
        house.log.info(f"order.{state}", order=intent["id"], kind=kind, actor=intent["actor"])
        done.append(f"order {intent['id']} ({kind}) is {state}")
    return done


def urgent(house: House, running_edit: int) -> str | None:
    """Why the edit in work must make way, if an open order says so."""
    for intent in house.ledger.open_intents():
        if intent["kind"] == "rollback":
            return "an operator asked for a rollback"
        if intent["kind"] == "cancel" and intent["args"].get("edit") == running_edit:
            return "an operator cancelled it"
    return None


def failure(error: PalimpsestError) -> dict[str, Any]:
    """An error as the result of an order."""
    return {"error": error.as_dict(), "exit_code": error.exit_code}


def is_paused(house: House) -> bool:
    return bool(house.ledger.get_setting(PAUSED, False))


def backup(house: House) -> str:
    """Copy the ledger, keep the newest `[backup] keep`; returns the copy's name."""
    now = house.now()
    name = f"ledger-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.sqlite"
    house.ledger.backup(house.layout.backups / name)
    house.ledger.set_setting("last_backup", now.isoformat(), now=now)
    reach("backup.noted")
    for old in sorted(house.layout.backups.glob("ledger-*.sqlite"))[: -house.config.backup.keep]:
        old.unlink()
    house.log.info("backup.done", name=name)
    return name


def last_run(house: House, what: str) -> datetime | None:
    """When a periodic job last ran."""
    text = house.ledger.get_setting(f"last_{what}")
    return datetime.fromisoformat(text) if text else None
