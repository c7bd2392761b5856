"""One claimed file from bytes to rows of the ledger, and to the report beside it.

Knows the order: read, identify, parse, diff, record, report. Doesn't know how a file was found or
what becomes of the edits; one file that can't be used never stops the next.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.admission import admit, admit_gone
from daemon.config import Config
from daemon.house import House
from daemon.inbox import Claim, Inbox
from daemon.metrics import Stage
from policies.sources import Owner
from store.diffing import diff
from store.errors import FactFileError, PalimpsestError
from store.factfile import ParsedFile, parse
from store.facts import DiffRow, RowClass
from store.failpoints import reach
from store.ledger import Ledger
from store.trouble import trouble_of


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one file: `result` is accepted, duplicate or failed."""

    name: str
    result: str
    report: dict[str, Any]


def ingest_ready(house: House, inbox: Inbox, stop: Callable[[], object] = bool) -> list[Ingested]:
    """Walk every ready file; returns what became of each. `stop` is asked before each one."""

    def on_stuck(name: str, error: OSError) -> None:
        _say_stuck(house, name, error)

    done = _ingest_all(house, inbox, inbox.claims(house.now(), on_stuck), stop)
    house.metrics.succeeded(Stage.SCAN, house.now())
    return done


def ingest_resumed(house: House, inbox: Inbox, stop: Callable[[], object] = bool) -> list[Ingested]:
    """Finish what was claimed before and not finished."""
    return _ingest_all(house, inbox, inbox.resume(), stop)


def _ingest_all(
    house: House, inbox: Inbox, claims: Iterator[Claim], stop: Callable[[], object]
) -> list[Ingested]:
    done: list[Ingested] = []
    while not stop() and (claim := next(claims, None)) is not None:
        try:
            ingested = _ingest(house, inbox, claim)
        except OSError as error:
            _say_stuck(house, claim.name, error)
            continue
        done.append(ingested)
        classes = [RowClass(row["class"]) for row in ingested.report.get("rows", ())]
        house.metrics.file(ingested.result, classes if ingested.result == "accepted" else ())
        log = house.log.warning if ingested.result == "failed" else house.log.info
        log(
            f"file.{ingested.result}",
            file=claim.name,
            sha256=ingested.report.get("sha256"),
            report=ingested.report.get("see"),
            counts=dict(Counter(map(str, classes))),
            code=ingested.report.get("code"),
            line=ingested.report.get("line"),
            column=ingested.report.get("column"),
        )
    return done


def _say_stuck(house: House, name: str, error: OSError) -> None:
    """One entry that can't be moved or read, its rights for instance, stops nobody. A disk that is
    full or fails isn't that entry's fault."""
    if trouble_of(error):
        raise error
    house.log.error("file.stuck", file=name, errno=error.errno, cause=error.strerror)


def _ingest(house: House, inbox: Inbox, claim: Claim) -> Ingested:
    now, data = house.now(), b""
    try:
        data, owner = inbox.read(claim)
        report = record(house, claim.label, data, owner, now, resumed=claim.resumed)
        reach("ingest.recorded")
        inbox.accept(claim, report, now)
        return Ingested(claim.name, report["result"], report)
    except FactFileError as error:
        faults = [error]
    except ExceptionGroup as group:
        faults = [fault for fault in group.exceptions if isinstance(fault, FactFileError)]
    except (PalimpsestError, RecursionError, ValueError, MemoryError) as error:
        if trouble_of(error):
            raise  # not this file's fault: it stays claimed
        house.log.exception("file.internal_error", file=claim.name)
        cause = f"{type(error).__name__}: {error}"
        faults = [FactFileError("take fact file", claim.label, cause, "report this", code="internal")]
    house.ledger.record_bad_file(_sha256(data), claim.label, len(data), faults[0], now=now)
    refused = inbox.refuse(claim, faults, now)
    first = faults[0]
    about = {"code": first.code, "line": first.line, "column": first.column, "sha256": _sha256(data)}
    return Ingested(claim.name, "failed", about | {"see": f"failed/{refused.name}.error.json"})


def record(
    house: House, name: str, data: bytes, owner: Owner, now: datetime, *, resumed: bool = False
) -> dict[str, Any]:
    """Record the bytes of `owner`'s file in the ledger; returns the report for `NAME.result.json`.

    Raises FactFileError, or an ExceptionGroup of them when rows are refused and `partial` is off.
    """
    sha256 = _sha256(data)
    seen = house.ledger.file_seen(sha256)
    if seen is not None and seen["status"] != "rejected":
        rows = house.ledger.file_rows(seen["id"])
        listed = [_row(row["line"], row["row_class"], row["edit_id"], row["reason"]) for row in rows]
        finished = resumed and seen["name"] == name
        return _report(name, sha256, "accepted" if finished else "duplicate", now, listed, first_seen=seen)
    parsed = admit(house.config, _parse(data, name, house.config.inbox.max_file_bytes), owner)
    if parsed.errors and not house.config.inbox.partial:
        raise ExceptionGroup(name, parsed.errors)
    reach("ingest.parsed")
    result = house.ledger.record_file(
        sha256,
        name,
        len(data),
        diff_rows(house.config, house.ledger, parsed),
        now=now,
        partial=bool(parsed.errors),
    )
    rows = [_row(row.line, row.row_class, row.edit_id, row.reason) for row in result.rows]
    invalid = [_row(error.line, RowClass.INVALID, None, error.cause) for error in parsed.errors]
    listed = sorted([*rows, *invalid], key=lambda row: row["line"])
    return _report(name, sha256, "accepted", now, listed)


def _parse(data: bytes, name: str, max_bytes: int) -> ParsedFile:
    try:
        return parse(data, name, max_bytes=max_bytes)
    except FactFileError:
        raise
    except Exception as error:  # a fault of ours must not make a poison file that every start dies of
        cause = f"reading it failed: {type(error).__name__}"
        raise FactFileError("parse fact file", name, cause, "report this", code="internal") from error


def diff_rows(config: Config, ledger: Ledger, parsed: ParsedFile) -> list[DiffRow]:
    """What a parsed file means for the ledger as it is now; changes nothing."""
    snapshot = parsed.source if parsed.snapshot else None
    retract = config.snapshots.retract_missing and parsed.snapshot and not parsed.errors
    current = ledger.facts(None if retract else {update.key for update in parsed.updates})
    rows = diff(parsed.updates, current, snapshot_source=snapshot, retract_missing=retract)
    return admit_gone(config, rows) if retract else rows


def _row(line: int, row_class: str, edit_id: int | None, reason: str) -> dict[str, Any]:
    return {"line": line, "class": str(row_class), "edit": edit_id, "reason": reason}


def _report(
    name: str, sha256: str, result: str, now: datetime, rows: Iterable[dict[str, Any]], first_seen: Any = None
) -> dict[str, Any]:
    report = {"file": name, "result": result, "sha256": sha256, "at": now.isoformat(), "rows": list(rows)}
    if result == "duplicate":
        report["first_seen"] = first_seen["received_at"]
    return report


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
