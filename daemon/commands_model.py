"""Commands about weights: ask, diff, materialize, rollback, and the orders pause, resume, retry, cancel, pin.

Knows their arguments and what they print. Doesn't know how an answer or a rollback is made.
"""

import argparse
from datetime import UTC, date, datetime, time

from daemon.asking import ask_generation, ask_model, differences, find_generation, materialize
from daemon.config import Config
from daemon.console import progress, show
from daemon.orders import give, require_state
from daemon.rollback import planned
from daemon.tones import table
from policies.rollback import RollbackPlan
from store.errors import EXIT_OK, EXIT_PLAN_HAS_CHANGES, UsageError
from store.times import parse_time


def ask(args: argparse.Namespace, config: Config) -> int:
    """Ask the served model, or the one of a date or a generation."""
    require_state(config)
    with progress("ask") as on_stage:
        if args.as_of is None and args.generation is None:
            number, answers = ask_model(config, args.prompts, on_stage)
        else:
            number, answers = ask_generation(config, args.prompts, on_stage, args.generation, args.as_of)
    pairs = [{"prompt": p, "answer": a} for p, a in zip(args.prompts, answers, strict=True)]
    text = (
        "\n".join(answers)
        if len(answers) == 1
        else table(("prompt", "answer"), [tuple(p.values()) for p in pairs])
    )
    show({"generation": number, "answers": pairs}, text, as_json=args.json)
    return EXIT_OK


def moment(text: str) -> datetime:
    """An RFC 3339 time, or a date, which means its end in UTC. Raises ArgumentTypeError."""
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), time.max, tzinfo=UTC)
        return parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def diff(args: argparse.Namespace, config: Config) -> int:
    """Which answers of two generations differ; exit status 2 when any does."""
    require_state(config)
    with progress("diff") as on_stage:
        asked, found = differences(config, args.one, args.other, on_stage)
    rows = [(d.about, d.prompt, d.one, d.other) for d in found]
    head = ("", "prompt", f"generation {args.one}", f"generation {args.other}")
    text = f"{len(found)} of {asked} answers differ" + ("\n\n" + table(head, rows) if rows else "")
    value = {
        "one": args.one,
        "other": args.other,
        "asked": asked,
        "different": [{"about": d.about, "prompt": d.prompt, "one": d.one, "other": d.other} for d in found],
    }
    show(value, text, as_json=args.json)
    return EXIT_PLAN_HAS_CHANGES if found else EXIT_OK


def materialize_past(args: argparse.Namespace, config: Config) -> int:
    """Write the model of a generation or of a date as a directory."""
    require_state(config)
    found = find_generation(config, args.generation, args.as_of)
    with progress("materialize") as on_stage:
        materialize(config, found, args.out.absolute(), on_stage)
    value = {"generation": found.number, "path": str(args.out), "weights_sha256": found.weights_sha256}
    text = f"generation {found.number} is in {args.out}\nweights {found.weights_sha256}"
    show(value, text, as_json=args.json)
    return EXIT_OK


def rollback(args: argparse.Namespace, config: Config) -> int:
    if args.to is not None:
        order: dict[str, object] = {"to": args.to, "force": args.force}
    elif args.edit is not None:
        order = {"edit": args.edit}
    else:
        order = {"fact": list(args.fact)}
    if args.force and args.to is None:
        raise UsageError("roll back", "--force", "only goes with --to")
    if args.dry_run:
        require_state(config)
        plan = planned(config, order)
        to = "a new generation" if plan.generation is None else f"generation {plan.generation}"
        lines = [f"would serve {to}: {plan.reason}"]
        lines += [f"{name}: edits {', '.join(map(str, ids))}" for name, ids in _moved(plan) if ids]
        value = {"way": str(plan.way), "to": plan.generation, "reason": plan.reason, **dict(_moved(plan))}
        show(value, "\n".join(lines), as_json=args.json)
        return EXIT_PLAN_HAS_CHANGES
    with progress("rollback") as on_stage:
        result = give(config, "rollback", order, idle=on_stage)
    requeued = (
        f"\nqueued again: edits {', '.join(map(str, result['requeued']))}" if result["requeued"] else ""
    )
    text = (
        f"generation {result['to']} is live instead of {result['from']}\nweights {result['weights_sha256']}"
    )
    show(result, text + requeued, as_json=args.json)
    return EXIT_OK


def _moved(plan: RollbackPlan) -> list[tuple[str, list[int]]]:
    return [
        ("removed", list(plan.removed)),
        ("restored", list(plan.restored)),
        ("asked again", list(plan.reprobe)),
    ]


def pause(args: argparse.Namespace, config: Config) -> int:
    show(give(config, "pause", {}), "editing is paused", as_json=args.json)
    return EXIT_OK


def resume(args: argparse.Namespace, config: Config) -> int:
    show(give(config, "resume", {}), "editing goes on", as_json=args.json)
    return EXIT_OK


def retry(args: argparse.Namespace, config: Config) -> int:
    show(give(config, "retry", {"edit": args.edit}), f"edit {args.edit} is queued again", as_json=args.json)
    return EXIT_OK


def cancel(args: argparse.Namespace, config: Config) -> int:
    show(give(config, "cancel", {"edit": args.edit}), f"edit {args.edit} is cancelled", as_json=args.json)
    return EXIT_OK


def pin(args: argparse.Namespace, config: Config) -> int:
    order = {"generation": args.generation, "pinned": not args.off}
    done = "may be tidied away" if args.off else "is kept"
    show(give(config, "pin", order), f"generation {args.generation} {done}", as_json=args.json)
    return EXIT_OK
