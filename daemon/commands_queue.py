"""Commands about facts and edits: submit, plan, status, facts, history.

Knows their arguments and what they print. Doesn't know how anything is decided.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from daemon import control_client, submission, waits
from daemon.config import Config
from daemon.console import Tone, counted, cut, harmless, paint, progress, show, wrapped
from daemon.house import operator_relations, utc_now
from daemon.orders import require_state
from daemon.status import is_running, read_status
from daemon.tones import table, words
from policies.batches import named
from policies.plan import Plan, Step, plan_queue, plan_rows
from policies.relations import load_relations, relation_key
from policies.sources import Wait
from store.errors import EXIT_FAILED, EXIT_OK, EXIT_PLAN_HAS_CHANGES, UsageError
from store.facts import FactKey
from store.ledger import Ledger
from store.wire import to_wire

SCREEN = 23  # lines of status: a terminal has 24, one of which is the next prompt's
INDENT = 12  # columns of what its lines are about


@contextmanager
def reading(config: Config) -> Iterator[Ledger]:
    """The ledger for reading, closed at the end."""
    require_state(config)
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        yield ledger


def submit(args: argparse.Namespace, config: Config) -> int:
    """Drop files into the inbox; with --wait, exit status 1 unless every fact came to a good end."""
    if args.dry_run:
        return plan(args, config)
    require_state(config)
    drops = [submission.drop(config, path) for path in args.files]
    if not args.wait:
        names = [drop.name for drop in drops]
        show({"files": names}, "\n".join(f"{name} is in the inbox" for name in names), as_json=args.json)
        return EXIT_OK
    with progress("submit") as on_stage:
        settled = [s for drop in drops for s in submission.wait(config, drop, on_stage, args.timeout)]
    rows = [(s["line"], s["subject"], s["relation"], s["class"], s["state"], s["reason"]) for s in settled]
    head = ("line", "subject", "relation", "class", "state", "reason")
    show({"rows": settled}, table(head, rows), as_json=args.json)
    return EXIT_OK if all(s["ok"] for s in settled) else EXIT_FAILED


def plan(args: argparse.Namespace, config: Config) -> int:
    """Exit status 2 when weights will change."""
    relations = load_relations(operator_relations(config.layout))
    with reading(config) as ledger:
        edits, facts = ledger.edits(), ledger.facts()
        queued = plan_queue(
            edits,
            facts,
            utc_now(),
            relations={key.relation for key in facts if relation_key(key.relation) in relations},
            paused=bool(ledger.get_setting("paused", False)),
            waiting=_brief(waits.standing(config, ledger, edits, running=is_running(config))),
        )
        rows = [row for path in args.files for row in submission.preview(config, ledger, path)]
    known = {row.update.key.relation for row in rows if relation_key(row.update.key.relation) in relations}
    whole = Plan((*queued.steps, *plan_rows(rows, utc_now(), relations=known).steps))
    lines = [(s.action, s.key.subject, s.key.relation, s.reason) for s in whole.steps]
    text = table(("action", "subject", "relation", "why"), lines) if lines else "nothing to do"
    show({"changes": whole.has_changes, "steps": [_step(s) for s in whole.steps]}, text, as_json=args.json)
    return EXIT_PLAN_HAS_CHANGES if whole.has_changes else EXIT_OK


def _brief(waiting: dict[int, Wait]) -> dict[int, str]:
    """A line of a table has no room for whole stories."""
    return {n: f"{wait.what}, see `palimpsest explain {n}`" for n, wait in waiting.items()}


def _step(step: Step) -> dict[str, Any]:
    due = step.due.isoformat() if step.due else None
    return {
        "action": str(step.action),
        "subject": step.key.subject,
        "relation": step.key.relation,
        "new": step.new,
        "due": due,
        "edit": step.edit,
        "reason": step.reason,
    }


def status(args: argparse.Namespace, config: Config) -> int:
    answer = control_client.get(config, "/status")
    if answer is not None and answer[0] == HTTPStatus.OK:
        found = answer[1]
    else:
        with reading(config) as ledger:
            found = read_status(config, ledger)
    show(found, "\n".join(_screen(found)), as_json=args.json)
    return EXIT_OK


def _screen(found: dict[str, Any]) -> list[str]:
    """One screen whatever is going on: what there may be many of gets the lines that are left."""
    work = found["work"]
    counts = ", ".join(f"{n} {state}" for state, n in found["edits"].items()) or "none"
    lines = [
        f"state       {found['state_dir']}",
        f"daemon      {'process ' + str(found['pid']) if found['pid'] is not None else 'not running'}"
        + (", paused" if found["paused"] else "")
        + (", edits wait: the disk is full" if found["disk_full"] else ""),
        f"model       {found['model']}, generation {found['live_generation']}",
        f"weights     {found['weights_sha256']}",
        *wrapped(f"edits       {counts}", INDENT),
        f"in work     {named(work['edits']) + ', ' + work['stage'] if work else 'nothing'}",
        f"next due    {found['next_due'] or '-'}",
        *_capacity(found["capacity"]),
        *_waiting(found["waiting"], found["hours"]),
        *_rolled_back(found["rolled_back"]),
        f"refused     {counted(found['refused_files'], 'file')} in failed/",
    ]
    refused = [f"            {cut(refused['file'], 30)}: {refused['cause']}" for refused in found["refused"]]
    held = [f"held        edit {held['edit']}: {held['reason']}" for held in reversed(found["held"])]
    room = SCREEN - 1 - len(lines)
    refused = refused[: max(room - len(held), 1)]
    room -= len(refused)
    if len(held) > room:
        shown = max(room - 1, 0)
        held = [*held[:shown], f"held        {len(held) - shown} more, see `palimpsest plan`"]
    tone = Tone.GOOD if found["current"] else Tone.OPEN
    lines = [*_painted(cut(harmless(line), 79) for line in (*lines, *refused, *held))]
    return [paint(cut(found["summary"], 79), tone), *lines[: SCREEN - 1]]


def _painted(lines: Iterable[str]) -> Iterator[str]:
    """Names dim, or red where something is held, and the states in the line of edits."""
    name = ""
    for line in lines:
        label, text = line[:INDENT], line[INDENT:]
        name = label.strip() or name
        tone = Tone.BAD if name == "held" else Tone.DIM
        yield paint(label, tone) + (words(text) if name == "edits" else text)


def _rolled_back(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    what = f"generation {found['from']} -> {found['to']} at {found['at'][:16]}: {found['reason']}"
    return wrapped(f"rolled back {what}", INDENT)[:2]


def _capacity(found: dict[str, Any]) -> list[str]:
    """Headroom, what limits it, and why edits wait; whole sentences, wrapped instead of cut."""
    left = (
        "no limit is known"
        if found["edits_left"] is None
        else f"about {counted(found['edits_left'], 'edit')} left"
    )
    read = "estimated" if found["value"] is None else f"{found['value']:.3g}"
    by = f", by {found['suite']} ({read}, gate {found['threshold']:g})" if found["suite"] else ""
    texts = [f"headroom    {found['headroom']:.2f}{by}, {left}"]
    if found["waits"]:
        texts.append(f"waiting     {counted(found['waiting'], 'edit')}, for {found['waits']}")
    return [line for text in texts for line in wrapped(text, INDENT)]


def _waiting(waiting: dict[str, int], hours: str) -> list[str]:
    """Who waits for what; the hours are told whenever no edit may be started at this one."""
    told = {"approval": "approval, see `palimpsest approvals`", "rate": "their source's rate", "hours": hours}
    return [
        f"waiting     {counted(n, 'edit')}, for {told[reason]}"
        for reason, n in waiting.items()
        if n or (reason == "hours" and hours)
    ]


def facts(args: argparse.Namespace, config: Config) -> int:
    with reading(config) as ledger:
        rows = [row for row in ledger.facts().values() if _matches(row.key, args.search)]
    rows.sort(key=lambda row: row.key)
    cells = [
        (r.key.subject, r.key.relation, r.value, _wanted(r.wanted, r.wanted_op), r.live_edit) for r in rows
    ]
    text = table(("subject", "relation", "served", "wanted", "edit"), cells) if rows else "no facts"
    show([to_wire(row) for row in rows], text, as_json=args.json)
    return EXIT_OK


def _matches(key: FactKey, search: Sequence[str]) -> bool:
    text = str(key).casefold()
    return all(word.casefold() in text for word in search)


def _wanted(wanted: str | None, op: str) -> str | None:
    return "(retracted)" if op == "retract" else wanted


def history(args: argparse.Namespace, config: Config) -> int:
    """Of one fact, or of the generations."""
    with reading(config) as ledger:
        if not args.fact:
            return _generations(args, ledger)
        if len(args.fact) != 2:
            raise UsageError("show history", " ".join(args.fact), "give a subject and a relation, or nothing")
        rows = ledger.fact_history(FactKey(*args.fact))
    cells = [
        (r["recorded_from"][:19], r["kind"], r["value"], r["edit_id"], r["generation"], r["reason"])
        for r in rows
    ]
    text = table(("from", "kind", "value", "edit", "gen", "reason"), cells) if rows else "no such fact"
    show(rows, text, as_json=args.json)
    return EXIT_OK


def _generations(args: argparse.Namespace, ledger: Ledger) -> int:
    rows, why = ledger.generations(), {span["generation"]: span["reason"] for span in ledger.live_spans()}
    cells = [
        (
            r.number, r.state, r.created_at.isoformat()[:19], len(r.edits), r.weights_sha256[:12],
            why.get(r.number, r.reason),
        )
        for r in rows
    ]  # fmt: skip
    head = ("gen", "state", "created", "edits", "weights", "reason")
    show([to_wire(row) for row in rows], table(head, cells), as_json=args.json)
    return EXIT_OK
