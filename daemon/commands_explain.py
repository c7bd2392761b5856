"""The command `explain`: everything the ledger knows of one edit, or of one fact and its latest edit.

Knows its arguments and what it prints. Doesn't know how anything was decided.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from daemon import waits
from daemon.commands_queue import reading
from daemon.config import Config
from daemon.console import show, wrapped
from daemon.status import is_running
from daemon.tones import table, word
from policies.batches import named
from store.errors import EXIT_OK, LedgerError, UsageError
from store.facts import Edit, EditState, FactKey, FactRow
from store.ledger import Ledger
from store.wire import to_wire

Value = dict[str, Any]
INDENT = 6  # columns of what a line is about
_SERVED = frozenset({EditState.LIVE, EditState.SUPERSEDED, EditState.ROLLED_BACK})


def explain(args: argparse.Namespace, config: Config) -> int:
    """`EDIT`: where, every gate and its reason, before and after. `SUBJECT RELATION`: the fact's story,
    then the same of its latest edit."""
    with reading(config) as ledger:
        if len(args.what) == 2:
            value = _fact(config, ledger, FactKey(*args.what))
            text = _story(value) + ("\n\n" + _explanation(value["latest"]) if value["latest"] else "")
        else:
            value = _edit(config, ledger, ledger.edit(_number_of(args.what)))
            text = _explanation(value)
    show(value, text, as_json=args.json)
    return EXIT_OK


def _number_of(what: Sequence[str]) -> int:
    try:
        (text,) = what
        return int(text)
    except ValueError:
        hint = 'like `palimpsest explain 12` or `palimpsest explain "South Korea" capital`'
        cause = "give the number of an edit, or a subject and a relation"
        raise UsageError("explain", " ".join(what), cause, hint) from None


def _edit(config: Config, ledger: Ledger, edit: Edit) -> Value:
    pending = [edit] if edit.state is EditState.PENDING else []
    waiting = waits.standing(config, ledger, pending, running=is_running(config)) if pending else {}
    return {
        "edit": to_wire(edit),
        "batch": _batch(ledger, edit),
        "waits": str(waiting.get(edit.id, "")),
        "approvals": ledger.approvals([edit.id]).get(edit.id, []),
        "outcomes": ledger.outcomes(edit.id),
        "readings": ledger.readings(edit_id=edit.id),
        "soft_forgetting": ledger.soft_forgetting(edit.id),
        "events": ledger.audit_events(limit=100, subject=f"edit:{edit.id}"),
    }


def _batch(ledger: Ledger, edit: Edit) -> list[int]:
    """The edits that were served first in the same generation, itself included; empty when it was alone."""
    if edit.generation is None or edit.state not in _SERVED:
        return []
    row = ledger.generation(edit.generation)
    before = ledger.generation(row.parent).edits if row.parent is not None else ()
    made = [each for each in row.edits if each not in before]
    return made if edit.id in made and len(made) > 1 else []


def _fact(config: Config, ledger: Ledger, key: FactKey) -> Value:
    """Any case and spacing of `key`; raises LedgerError when the ledger holds no such fact."""
    fact = ledger.fact(key)
    if fact is None:
        raise LedgerError("read ledger", str(key), "there is no such fact", "see `palimpsest facts`")
    edits, live = ledger.edits(key=key), ledger.live_generation()
    return {
        "fact": to_wire(fact),
        "served": _served(fact, live.number if live else None),
        "values": ledger.fact_history(key),
        "edits": [to_wire(edit) for edit in edits],
        "latest": _edit(config, ledger, edits[-1]) if edits else None,
    }


def _served(fact: FactRow, live: int | None) -> str:
    """What the live generation says of the fact and by which edit, as far as the ledger knows."""
    by = f"generation {live}"
    if fact.live_edit is not None:
        return f"{_value(fact.value, retracted=fact.value is None)} by {by}, edit {fact.live_edit}"
    if fact.value is not None:
        return f"{fact.value} by {by}, which knew it without an edit"
    return f"whatever {by} says by itself: no edit of this fact is in it"


def _story(value: Value) -> str:
    fact = value["fact"]
    wanted = _value(fact["wanted"], retracted=fact["wanted_op"] == "retract")
    lines = [
        f"fact    {fact['key']['subject']} / {fact['key']['relation']}",
        f"wanted  {wanted}",
        f"served  {value['served']}",
    ]
    spans = [
        (
            _day(r["recorded_from"]), _day(r["recorded_to"]), r["kind"],
            _value(r["value"], retracted=r["op"] == "retract"), r["edit_id"], r["generation"], r["file"],
        )
        for r in value["values"]
    ]  # fmt: skip
    head = ("from", "until", "kind", "value", "edit", "gen", "file")
    lines += ["", table(head, spans)] if spans else []
    edits = [
        (e["id"], e["state"], _value(e["new"], retracted=e["op"] == "retract"), e["generation"], e["reason"])
        for e in value["edits"]
    ]
    lines += ["", table(("edit", "state", "new", "gen", "reason"), edits)] if edits else []
    return "\n".join(lines)


def _value(value: str | None, *, retracted: bool) -> str | None:
    return "(retracted)" if retracted else value


def _day(time: str | None) -> str | None:
    """To the minute: seconds would push the reasons out of the table."""
    return time and time[:16]


def _explanation(value: Value) -> str:
    edit, outcomes = value["edit"], value["outcomes"]
    wanted = "not known" if edit["op"] == "retract" else edit["new"]
    lines = [
        f"edit {edit['id']}: {edit['key']['subject']} / {edit['key']['relation']} -> {wanted}",
        f"state {word(edit['state'])}{_short(value['waits'])}{_made(edit['generation'])}",
        f"try   {_tried(edit['attempt'], value['batch'])}, recipe {edit['recipe']}",
        *wrapped(f"why   {edit['reason']}", INDENT),
        *(wrapped(f"waits for {value['waits']}", INDENT) if value["waits"] else ()),
        *(f"approved by {row['actor']} at {row['approved_at']}" for row in value["approvals"]),
    ]
    for count, earlier in enumerate(outcomes[:-1], 1):
        lines += wrapped(f"try {count} came to: {earlier['verdict_reason'] or earlier['reason']}", INDENT)
    if outcomes:
        last = outcomes[-1]
        lines += [f"before  {last['before']}", f"after   {last['after']}"]
        lines += [f"took    {', '.join(f'{stage} {seconds:.1f} s' for stage, seconds in last['seconds'])}"]
        best = sorted(last["localisation"], key=lambda m: -m["attribution"])[:5]
        cells = [(m["module"], f"{m['attribution']:.3f}", _number(m["effect"])) for m in best]
        lines += ["", table(("module", "attribution", "effect"), cells)] if cells else []
    gates = [
        (r["suite"], r["verdict"], _number(r["value"]), r["n"], _why(r)) for r in _last(value["readings"])
    ]
    lines += ["", table(("suite", "verdict", "value", "n", "reason"), gates)] if gates else []
    lines += _left_behind(value)
    return "\n".join(lines)


def _tried(attempt: int, batch: Sequence[int]) -> str:
    """Which try by itself; in a batch none is counted."""
    return f"in one batch: {named(batch)}" if batch else str(attempt)


def _made(generation: int | None) -> str:
    return "" if generation is None else f", generation {generation}"


def _last(rows: list[Value]) -> list[Value]:
    """Those of the last try that left any; the JSON has them all."""
    return [row for row in rows if row["outcome_id"] == rows[-1]["outcome_id"]]


def _why(reading: Value) -> str:
    """Without the suite's name, which stands in the first column already."""
    return str(reading["reason"]).removeprefix(f"{reading['suite']}: ")


def _short(waits: str) -> str:
    what = waits.partition(": ")[0]
    return f": waits for {what}" if what else ""


def _left_behind(value: Value) -> list[str]:
    """What the last try found of the old answer; the prompts and answers are in the JSON."""
    cells = [
        (
            row["measure"], _number(row["before"]), _number(row["after"]), row["n"],
            _kinds(row, "kind_before"), _kinds(row, "kind_after"),
        )
        for row in _last(value["soft_forgetting"])
    ]  # fmt: skip
    head = ("left of old", "before", "after", "n", "answers before", "answers after")
    return ["", table(head, cells)] if cells else []


def _kinds(row: Value, when: str) -> str | None:
    """How many answers are of which kind; ranks and probabilities are no answers."""
    if row["measure"].endswith(("rank", "probability")):
        return None
    counted = Counter(answer[when] for answer in row["answers"]).most_common()
    return ", ".join(f"{n} {kind}" for kind, n in counted)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
