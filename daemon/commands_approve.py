"""Commands about approval: approvals (what waits for it) and approve.

Knows their arguments and what they print. Doesn't know who must approve what (`policies.sources`) or how
the daemon learns who gives an order.
"""

import argparse
from http import HTTPStatus

from daemon import control_client
from daemon.commands_queue import reading
from daemon.config import Config
from daemon.console import counted, show
from daemon.orders import give
from daemon.status import waiting_for_approval
from daemon.tones import table
from store.errors import EXIT_OK

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
    show(result, "\n".join([f"{counted(count, 'edit')} approved", *lines]), as_json=args.json)
    return EXIT_OK


def approvals(args: argparse.Namespace, config: Config) -> int:
    answer = control_client.get(config, "/approvals")
    if answer is not None and answer[0] == HTTPStatus.OK:
        rows = answer[1]
    else:
        with reading(config) as ledger:
            rows = waiting_for_approval(config, ledger)
    shown = ("edit", "subject", "relation", "new", "source", "waits")
    cells = [(*(row[name] for name in shown), ", ".join(row["approved_by"])) for row in rows]
    head = (*shown, "approved by")
    show(rows, table(head, cells) if rows else "nothing waits for approval", as_json=args.json)
    return EXIT_OK
