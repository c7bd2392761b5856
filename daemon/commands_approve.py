"""Commands about approval: approvals (what waits for it) and approve.

Knows their arguments and what they print. Doesn't know who must approve what (`policies.sources`) or how
the daemon learns who gives an order.
"""

import argparse
from typing import Any

from daemon import waits
from daemon.commands_queue import reading
from daemon.config import Config
from daemon.console import show, table
from daemon.orders import give
from daemon.status import is_running
from policies.sources import For
from store.errors import EXIT_OK
from store.ledger import Ledger

MOST = 10_000  # edits in one range: a slip of the finger, not a wish


def edit_range(text: str) -> range:
    """`12` or `12-61`. Raises ArgumentTypeError."""
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        found = range(0)
    if not found or found[0] < 1 or len(found) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an edit nor a range of them like 12-61")
    return found


def approve(args: argparse.Namespace, config: Config) -> int:
    """All of them or none."""
    edits = [number for given in args.edits for number in given]
    result = give(config, "approve", {"edits": edits})
    lines = [f"edit {number} still waits for {what}" for number, what in result["still_wait"].items()]
    count = len(result["approved"])
    show(result, "\n".join([f"{count} edit{'' if count == 1 else 's'} approved", *lines]), as_json=args.json)
    return EXIT_OK


def approvals(args: argparse.Namespace, config: Config) -> int:
    with reading(config) as ledger:
        rows = waiting_for_approval(config, ledger, running=is_running(config))
    shown = ("edit", "subject", "relation", "new", "source", "waits")
    cells = [(*(row[name] for name in shown), ", ".join(row["approved_by"])) for row in rows]
    head = (*shown, "approved by")
    show(rows, table(head, cells) if rows else "nothing waits for approval", as_json=args.json)
    return EXIT_OK


def waiting_for_approval(config: Config, ledger: Ledger, *, running: bool) -> list[dict[str, Any]]:
    """What `approve` may be given: each edit with its fact, claimed source, and who approved it so far."""
    found = waits.by_source(config, ledger, running=running)
    asked = {number: wait for number, wait in found.items() if wait.reason is For.APPROVAL}
    given = ledger.approvals(asked)
    return [
        {
            "edit": number,
            "subject": (edit := ledger.edit(number)).key.subject,
            "relation": edit.key.relation,
            "op": str(edit.op),
            "new": edit.new if edit.new is not None else "(retracted)",
            "source": edit.source,
            "waits": wait.what,
            "why": wait.why,
            "approved_by": [row["actor"] for row in given.get(number, ())],
        }
        for number, wait in asked.items()
    ]
