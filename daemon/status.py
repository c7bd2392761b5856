"""How a state directory is, seen from another process.

Knows the ledger's reading half and the files in run/. Doesn't write anything.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon import capacity, run_files, waits
from daemon.config import Config
from daemon.console import counted
from daemon.house import utc_now
from daemon.inbox import is_ignored
from policies.hours import closed_until
from policies.sources import For, Waiting
from store.facts import EditState
from store.generations import ModelStore
from store.ledger import Ledger
from store.lock import StateLock

SHOWN = 3  # refused files, the newest ones
_BEHIND = {
    EditState.EDITING: "in work",
    EditState.JUDGED: "in work",
    EditState.PENDING: "queued",
    EditState.HELD: "held for a human",
    EditState.FAILED: "failed",
}


def read_work(config: Config) -> dict[str, Any] | None:
    """The edits in work and their stage, None when there are none."""
    return _read(config, run_files.PROGRESS)


def metrics_port(config: Config) -> int | None:
    """Where the running daemon serves metrics."""
    found = _read(config, run_files.DAEMON)
    return int(found["metrics_port"]) if found else None


def is_running(config: Config) -> bool:
    """Whether a process holds the state directory."""
    return StateLock(config.layout.state).holder() is not None


def read_status(config: Config, ledger: Ledger) -> dict[str, Any]:
    """Everything that `palimpsest status` shows."""
    live, pid = ledger.live_generation(), StateLock(config.layout.state).holder()
    now, running = utc_now(), pid is not None
    waiting = Waiting(waits.by_source(config, ledger, running=running))
    hours = waits.hours_of(config, ledger, running=running).resolved()
    by_hours = waits.count_by_hours(ledger, hours, now, waiting.edits)
    next_due, standing = ledger.next_due_after(now), _standing(config, ledger, now, running=running)
    held = ledger.edits([EditState.HELD, EditState.FAILED])
    refused = sorted(config.layout.failed.glob("*.error.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    return {
        **standing,
        "state_dir": str(config.layout.state),
        "pid": pid,
        "disk_full": not ModelStore(config.layout.model).has_room(),
        "paused": bool(ledger.get_setting("paused", False)),
        "model": config.model.name,
        "live_generation": live.number if live else None,
        "weights_sha256": live.weights_sha256 if live else None,
        "edits": {str(state): count for state, count in ledger.state_counts().items() if count},
        "work": read_work(config) if running else None,
        "next_due": next_due.isoformat() if next_due else None,
        "rolled_back": next(reversed(ledger.rollbacks()), None),
        "refused_files": len(refused),
        "refused": [_refusal(path) for path in refused[:SHOWN]],
        "capacity": capacity.shown(config, ledger, running=running),
        "waiting": {reason.value: waiting.count(reason) for reason in For} | {For.HOURS.value: by_hours},
        "hours": closed_until(hours, now),
        "held": [{"edit": edit.id, "state": str(edit.state), "reason": edit.reason} for edit in held],
        "last_backup": ledger.get_setting("last_backup"),
        "metrics_port": metrics_port(config) if running else None,
    }


def _standing(config: Config, ledger: Ledger, now: datetime, *, running: bool) -> dict[str, Any]:
    """Whether the model is current, in words and in numbers of facts and files."""
    unserved = ledger.unserved(now)
    behind: dict[str, int] = {}
    for state, what in _BEHIND.items():
        if count := unserved.pop(state, 0):
            behind[what] = behind.get(what, 0) + count
    waiting = (config.layout.inbox, config.layout.processing)
    unread = sum(not is_ignored(p.name) for folder in waiting if folder.is_dir() for p in folder.iterdir())
    taken_back = sum(unserved.values())
    if ledger.live_generation() is None:
        said = "no model is here yet: run `palimpsest init`"
    elif behind or unread:
        said = _said(behind, unread) + ("" if running else "; no daemon is running")
    elif taken_back:
        said = f"current, but for {counted(taken_back, 'fact')} rolled back or cancelled by hand"
    else:
        said = "current: every fact that is due is served"
    return {
        "summary": said,
        "current": said.startswith("current"),
        "behind": behind,
        "taken_back": taken_back,
        "unread_files": unread,
    }


def _said(behind: dict[str, int], unread: int) -> str:
    parts = [f"{count} {what}" for what, count in behind.items()]
    parts += [f"{counted(unread, 'file')} not read yet"] if unread else []
    edits = sum(behind.values())
    return f"{counted(edits, 'edit') + ' behind' if edits else 'not known'}: {', '.join(parts)}"


def waiting_for_approval(config: Config, ledger: Ledger) -> list[dict[str, Any]]:
    """What `palimpsest approvals` shows: each edit, its fact, claimed source and who approved it."""
    found = waits.by_source(config, ledger, running=is_running(config))
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


def _refusal(path: Path) -> dict[str, str]:
    """Which file and why, from the report beside it."""
    name = path.name.removesuffix(".error.json")
    try:
        return {"file": name, "cause": str(json.loads(path.read_bytes())["cause"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"file": name, "cause": f"see failed/{path.name}"}


def _read(config: Config, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((config.layout.run / name).read_text())
    except (OSError, ValueError):
        return None
    return found
