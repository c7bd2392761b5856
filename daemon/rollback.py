"""Back to other weights: to a generation, or to the live one less an edit or a fact.

Knows how a rollback that `policies.rollback` planned is carried out, exactly and audited. Doesn't
know who asked, nor which way is right.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from daemon.commit import complete, open_intent, serve, tidy
from daemon.config import Config
from daemon.house import House, scratch
from daemon.jobs import (
    compose_job,
    latest_of_each,
    materialize_job,
    measure_job,
    read_measured,
    request,
    theta_of,
)
from daemon.publish import announce
from daemon.runner import WorkerError, WorkerStopped, never
from policies import rollback as plans
from policies.rollback import History, RollbackPlan, Way
from store.errors import GenerationError, PalimpsestError
from store.facts import Edit, EditState, FactKey
from store.failpoints import reach
from store.generations import ModelStore
from store.ledger import Ledger
from store.queries import LedgerQueries
from store.trouble import trouble_of

Idle = Callable[[str], str | None]
REPROBE_WANTED = "reprobe_wanted"  # a setting of the ledger


def history(ledger: LedgerQueries, models: ModelStore) -> History:
    rows, live = {row.number: row for row in ledger.generations()}, ledger.live_generation()
    return History(rows, live.number if live is not None else 0, frozenset(models.numbers()))


def plan_for(ledger: LedgerQueries, models: ModelStore, args: Mapping[str, Any]) -> RollbackPlan:
    """What an order wants: `to` a generation (`force`), without an `edit`, or without a `fact`'s newest
    live edit."""
    known = history(ledger, models)
    if "to" in args:
        return plans.to_generation(known, int(args["to"]), force=bool(args.get("force")))
    if "edit" in args:
        return plans.without_edit(known, int(args["edit"]))
    key = FactKey(*args["fact"])
    row = ledger.fact(key)
    edits = {edit.id: edit for edit in ledger.live_facts()}
    return plans.without_fact(known, row.key if row else key, edits)


def planned(config: Config, args: Mapping[str, Any]) -> RollbackPlan:
    """The plan of an order that isn't given; nothing is written."""
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        return plan_for(ledger, ModelStore(config.layout.model), args)


def to_generation(house: House, number: int, *, force: bool = False, idle: Idle = never) -> dict[str, Any]:
    """Serve generation `number` again; its directory is written again when it is gone."""
    return ordered(house, {"to": number, "force": force}, idle)


def without_edit(house: House, edit: int, *, idle: Idle = never) -> dict[str, Any]:
    """Serve the live generation less one edit."""
    return ordered(house, {"edit": edit}, idle)


def without_fact(house: House, key: FactKey, *, idle: Idle = never) -> dict[str, Any]:
    """Undo the newest live edit of one fact."""
    return ordered(house, {"fact": [key.subject, key.relation]}, idle)


def ordered(house: House, args: Mapping[str, Any], idle: Idle = never) -> dict[str, Any]:
    """Carry out what an order wants (`plan_for`); `order` among its arguments is its row."""
    plan = plan_for(house.ledger, house.models, args)
    return carry_out(house, plan, idle=idle, order=args.get("order"))


def carry_out(
    house: House,
    plan: RollbackPlan,
    *,
    trigger: str = "manual",
    idle: Idle = never,
    order: int | None = None,
) -> dict[str, Any]:
    """Do what was planned, then ask the facts again that were never measured in this company. `order`
    is the open one that asked for it."""
    before = house.live_number
    if plan.reprobe:  # owed from here on, whatever cuts this off
        house.ledger.set_setting(REPROBE_WANTED, True, now=house.now())
    if plan.generation is None:
        number = _compose(house, plan, idle, order)
    else:
        number = plan.generation
        if plan.way is Way.MATERIALIZE or house.models.verify(number):
            restore(house, number, idle)
            reach("rollback.restored")
        house.models.promote(number)
        reach("rollback.swapped")
        house.ledger.roll_back(number, now=house.now(), reason=plan.reason, trigger=trigger, order=order)
        reach("rollback.live")
        announce(house, number, before, plan.reason)
        tidy(house)
    house.metrics.edits.labels(EditState.ROLLED_BACK.value).inc(len(plan.removed))
    edits = {edit.id: edit for edit in house.ledger.live_facts()}
    broken = _ask_again(house, plans.facts_to_reprobe(plan, edits), idle)
    return _done(house, before, number, plan.reason, broken)


def finish_cut_off(house: House, done: Mapping[str, Any], idle: Idle = never) -> dict[str, Any]:
    """The rest of a rollback whose process died after the switch: which facts it had meant to ask
    again isn't known, so all are asked."""
    broken = _ask_again(house, latest_of_each(house.ledger.live_facts()), idle)
    return _done(house, done["from"], done["to"], done["reason"], broken)


def _done(house: House, before: int, number: int, reason: str, requeued: list[int]) -> dict[str, Any]:
    left, now = house.ledger.generation(before), house.ledger.generation(number)
    removed = [edit for edit in left.edits if edit not in now.edits]
    house.log.info("rollback.done", generation=number, previous=before, removed=removed, requeued=requeued)
    return {
        "from": before,
        "to": number,
        "weights_sha256": now.weights_sha256,
        "removed": removed,
        "restored": [edit for edit in now.edits if edit not in left.edits],
        "requeued": requeued,
        "reason": reason,
    }


def _ask_again(house: House, edits: tuple[Edit, ...], idle: Idle) -> list[int]:
    """Re-probe after a switch that is done: being cut off here only puts the asking off."""
    if not edits:
        return []
    try:
        lost = reprobe(house, edits, idle)
        house.ledger.set_setting(REPROBE_WANTED, False, now=house.now())
        return lost
    except (PalimpsestError, OSError) as error:
        found = trouble_of(error)
        if not (isinstance(error, (WorkerError, WorkerStopped)) or (found and found.passes)):
            raise
        house.log.warning("rollback.reprobe_put_off", reason=str(error))
        return []


def restore(house: House, number: int, idle: Idle = never) -> None:
    """Write a generation's directory again from its vectors, bit for bit; what lies there is set aside.

    Raises GenerationError when the bytes don't come out as they were.
    """
    row = house.ledger.generation(number)
    if number == 0:
        hint = "run `palimpsest init` on a new state directory with the same source"
        raise GenerationError("restore generation", "the base", "its files are damaged or missing", hint)
    house.room.require("restore generation")
    with house.models.staging(uuid.uuid4().hex) as staging, scratch(house.layout) as out:
        house.runner.run(materialize_job(house, theta_of(house, number), staging, out), idle)
        if number in house.models.numbers():
            set_aside(house, number, "its files didn't fit its manifest")
        manifest = house.models.commit(
            staging, number, {"parent": row.parent, "edits": list(row.edits), "theta": row.theta_blob}
        )
    if manifest["weights_sha256"] != row.weights_sha256:
        house.models.quarantine(number, "rebuilt bytes differ")
        hint = "library versions may have changed; see its manifest"
        raise GenerationError("restore generation", str(number), "the rebuilt weights differ", hint)


def set_aside(house: House, number: int, reason: str) -> None:
    """Move a directory into quarantine; were it the served one, the base is served meanwhile."""
    if served(house) == number:
        house.models.promote(0)
    house.models.quarantine(number, reason)


def served(house: House) -> int | None:
    """The number that `current` shows, None when it shows nothing."""
    try:
        return house.models.current_number()
    except GenerationError:
        return None


def _compose(house: House, plan: RollbackPlan, idle: Idle, order: int | None) -> int:
    """Build and serve a generation that is the sum of `plan.edits`; returns its number."""
    deltas = [house.ledger.edit(number).delta_blob for number in plan.edits]
    missing = [number for number, delta in zip(plan.edits, deltas, strict=True) if delta is None]
    if missing:
        raise GenerationError("roll back", f"edit {missing[0]}", "its vectors aren't recorded")
    house.room.require("roll back")
    with house.models.staging(uuid.uuid4().hex) as staging, scratch(house.layout) as out:
        result = house.runner.run(compose_job(house, [d for d in deltas if d], staging, out), idle)
        intent = open_intent(house, out / result["theta"], plan.edits, plan.reason)
        complete(house, intent, staging, {})
    serve(house, intent.number, plan.reason, rolled_back=True, order=order)
    return intent.number


def reprobe(house: House, edits: tuple[Edit, ...], idle: Idle = never) -> list[int]:
    """Ask the served model the facts of `edits`; those it no longer answers are queued again.

    Returns the ids of the new edits.
    """
    if not edits:
        return []
    requests = [request(house, edit, edits) for edit in edits]
    result = house.runner.run(measure_job(house, house.models.current(), requests), idle)
    right = read_measured(result, len(edits))
    still: Mapping[int, bool] = {edit.id: ok for edit, ok in zip(edits, right, strict=True)}
    lost = plans.to_requeue(edits, lambda edit: still[edit.id])
    reason = "asked again, the served model no longer answers it"
    return [house.ledger.repeat(edit.id, reason=reason, now=house.now()).id for edit in lost]


def reprobe_live(house: House, idle: Idle = never) -> list[int]:
    """The periodic look at every live fact."""
    lost = reprobe(house, latest_of_each(house.ledger.live_facts()), idle)
    house.ledger.set_setting(REPROBE_WANTED, False, now=house.now())
    return lost
