"""The command `report`: the ledger's whole story as one HTML page.

Knows what of the ledger the page needs. Doesn't know HTML (`daemon.html_report`).
"""

import argparse
from datetime import datetime
from typing import Any

from daemon import html_report
from daemon.commands_queue import reading
from daemon.config import Config
from daemon.console import show
from daemon.house import utc_now
from daemon.status import read_status
from policies.gates import gates_for
from store.disk import write_atomic
from store.errors import EXIT_OK
from store.facts import Edit, FactRow, Op
from store.ledger import Ledger
from store.times import parse_time


def report(args: argparse.Namespace, config: Config) -> int:
    """Write the page to `--out`."""
    with reading(config) as ledger:
        story = tell(config, ledger, utc_now())
    write_atomic(args.out.absolute(), html_report.page(story).encode())
    show({"path": str(args.out)}, f"the report is in {args.out}", as_json=args.json)
    return EXIT_OK


def tell(config: Config, ledger: Ledger, now: datetime) -> html_report.Story:
    status = read_status(config, ledger)
    edits, facts = ledger.edits(), sorted(ledger.facts().values(), key=lambda row: row.key)
    readings = ledger.generation_readings()
    return html_report.Story(
        model=config.model.name,
        at=now,
        tiles=_tiles(status),
        facts=tuple(_fact(row) for row in facts),
        edits=tuple(_mark(edit, _settled(ledger, edit)) for edit in edits),
        spans=tuple(_span(row) for row in ledger.live_spans()),
        measured=tuple(
            html_report.Measured(number, {r.suite.value: r.value for r in readings[number]})
            for number in sorted(readings)
        ),
        thresholds={str(gate.suite): gate.threshold for gate in gates_for(Op.UPSERT, config.gates)},
        rollbacks=tuple(_rollbacks(ledger)),
    )


def _tiles(status: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    counts = status["edits"]
    waiting = sum(counts.get(state, 0) for state in ("pending", "editing", "judged"))
    left = status["capacity"]["edits_left"]
    return (
        ("live generation", str(status["live_generation"])),
        ("facts edited, live", str(counts.get("live", 0))),
        ("queued", str(waiting)),
        ("held or failed", str(len(status["held"]))),
        ("headroom", f"{status['capacity']['headroom']:.0%}"),
        ("edits left", "unknown" if left is None else f"about {left}"),
        ("editing", "paused" if status["paused"] else "on"),
    )


def _fact(row: FactRow) -> tuple[str, ...]:
    wanted = "(retracted)" if row.wanted_op is Op.RETRACT else row.wanted
    edit = "-" if row.live_edit is None else str(row.live_edit)
    return (row.key.subject, row.key.relation, row.value or "-", wanted or "-", edit)


def _settled(ledger: Ledger, edit: Edit) -> datetime:
    """When the edit came to the state it is in."""
    (event,) = ledger.audit_events(limit=1, subject=f"edit:{edit.id}")
    return parse_time(event["at"])


def _mark(edit: Edit, at: datetime) -> html_report.EditMark:
    new = "(retracted)" if edit.op is Op.RETRACT else edit.new or ""
    return html_report.EditMark(
        edit.id, edit.key.subject, edit.key.relation, new, str(edit.state), at, edit.generation, edit.reason
    )


def _span(row: dict[str, Any]) -> html_report.Span:
    until = row["live_until"] and parse_time(row["live_until"])
    return html_report.Span(row["generation"], parse_time(row["live_from"]), until, row["reason"])


def _rollbacks(ledger: Ledger) -> list[html_report.Rollback]:
    return [
        html_report.Rollback(parse_time(row["at"]), row["from"], row["to"], row["reason"])
        for row in ledger.rollbacks()
    ]
