"""What a file of updates means for the ledger: a pure function of the two.

Knows keys, versions and times given in rows. Doesn't know the clock, files or SQL.

For one key the newest row of a file wins: by `version` when all its rows have one, then by
`effective_at` when all have one. Against the ledger the order is version, then effective_at, then
the order of arrival, each only where both sides have it. Keys compare by `FactKey.folded()`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from store.facts import DiffRow, FactKey, FactRow, FactUpdate, Op, RowClass
from store.names import normalise

_Order = TypeVar("_Order", int, datetime)

EDITED = frozenset({RowClass.NEW, RowClass.CHANGED, RowClass.RETRACTED})
"""Classes that make an edit."""


def diff(
    updates: Iterable[FactUpdate],
    current: Mapping[FactKey, FactRow],
    *,
    snapshot_source: str | None = None,
    retract_missing: bool = False,
) -> list[DiffRow]:
    """One `DiffRow` for each update, in order; then, for a snapshot with `retract_missing`, a
    RETRACTED row (line 0) for each fact of `snapshot_source` that the file no longer holds.

    Pure and idempotent: once applied, the same updates are unchanged, stale or conflicting. The
    caller must not set `retract_missing` when rows of the file were refused: they'd count as gone.
    """
    known = {key.folded(): row for key, row in current.items()}
    folded = [(update.key.folded(), update) for update in updates]
    groups: dict[FactKey, list[FactUpdate]] = {}
    for key, update in folded:
        groups.setdefault(key, []).append(update)
    classed = {key: iter(_group(rows, known.get(key))) for key, rows in groups.items()}
    result = [next(classed[key]) for key, _ in folded]
    if snapshot_source is not None and retract_missing:
        result += [
            _gone(row)
            for key, row in known.items()
            if key not in groups and row.source == snapshot_source and row.wanted_op is Op.UPSERT
        ]
    return result


def apply(row: DiffRow, current: FactRow | None) -> FactRow | None:
    """The ledger's view of a key after `row` was accepted (None: still unknown).

    The highest version seen stays, so that an update without one can't reopen the door to older
    ones; `effective_at` is that of the wanted value. The source that named the fact last owns it.
    """
    update = row.update
    if row.row_class not in EDITED and row.row_class is not RowClass.UNCHANGED:
        return current
    if current is None:
        return FactRow(
            update.key, None, _wanted(update), update.op, update.aliases, update.version,
            update.effective_at, update.source,
        )  # fmt: skip
    kept = row.row_class is RowClass.UNCHANGED  # what the row doesn't say again still holds
    return replace(
        current,
        wanted=_wanted(update),
        wanted_op=update.op,
        aliases=update.aliases or (current.aliases if kept else ()),
        version=_highest(update.version, current.version),
        effective_at=_highest(update.effective_at, current.effective_at) if kept else update.effective_at,
        source=update.source or (current.source if kept else ""),
    )


def _group(rows: Sequence[FactUpdate], row: FactRow | None) -> list[DiffRow]:
    """Class the updates of one key, in order."""
    if len(rows) == 1:
        return [_against(rows[0], row)]
    newest = _newest(rows)
    winners = {id(update) for update in newest}
    rival = next((update for update in newest if _says(update) != _says(newest[0])), None)
    winner = _against(newest[0], row)
    result = []
    for update in rows:
        if id(update) not in winners:
            result.append(DiffRow(update, RowClass.STALE, f"line {newest[0].line} has a newer one"))
        elif rival is not None:
            result.append(_conflict(update, newest[0] if _says(update) == _says(rival) else rival))
        else:
            result.append(winner if update is winner.update else _repeat(update, winner))
    return result


def _newest(rows: Sequence[FactUpdate]) -> Sequence[FactUpdate]:
    versions = [update.version for update in rows if update.version is not None]
    if len(versions) == len(rows):
        highest = max(versions)
        rows = [update for update in rows if update.version == highest]
    times = [update.effective_at for update in rows if update.effective_at is not None]
    if len(times) == len(rows):
        last = max(times)
        rows = [update for update in rows if update.effective_at == last]
    return rows


def _against(update: FactUpdate, row: FactRow | None) -> DiffRow:
    """Class the newest update of its key against the ledger."""
    if row is None:
        if update.op is Op.RETRACT:
            return DiffRow(update, RowClass.RETRACTED, "to be unlearned; the ledger didn't know this fact")
        return DiffRow(update, RowClass.NEW, "the ledger didn't know this fact")
    if older := _older(update, row):
        return DiffRow(update, RowClass.STALE, older, row.wanted)
    if _says(update) == (row.wanted_op, row.wanted and normalise(row.wanted)):
        return DiffRow(update, RowClass.UNCHANGED, "the ledger already wants this", row.wanted)
    was = "was retracted" if row.wanted_op is Op.RETRACT else f"was {row.wanted!r}"
    row_class = RowClass.RETRACTED if update.op is Op.RETRACT else RowClass.CHANGED
    return DiffRow(update, row_class, was, row.wanted)


def _older(update: FactUpdate, row: FactRow) -> str:
    """Why the ledger's value is the newer one; empty when it isn't."""
    if update.version is not None and row.version is not None and update.version != row.version:
        if update.version > row.version:
            return ""
        return f"version {update.version} is older than the ledger's {row.version}"
    if update.effective_at is None or row.effective_at is None or update.effective_at >= row.effective_at:
        return ""
    return (
        f"took effect {update.effective_at.isoformat()}, "
        f"before the ledger's value ({row.effective_at.isoformat()})"
    )


def _conflict(update: FactUpdate, other: FactUpdate) -> DiffRow:
    reason = f"line {other.line} says {_quoted(other)}, this says {_quoted(update)}, and neither is newer"
    return DiffRow(update, RowClass.CONFLICTING, reason)


def _repeat(update: FactUpdate, winner: DiffRow) -> DiffRow:
    row_class = RowClass.UNCHANGED if winner.row_class in EDITED else winner.row_class
    return DiffRow(update, row_class, f"says the same as line {winner.update.line}", winner.previous)


def _gone(row: FactRow) -> DiffRow:
    update = FactUpdate(row.key, None, Op.RETRACT, source=row.source, line=0)
    return DiffRow(update, RowClass.RETRACTED, f"gone from the snapshot of {row.source!r}", row.wanted)


def _wanted(update: FactUpdate) -> str | None:
    if update.op is Op.RETRACT or update.object is None:
        return None
    return normalise(update.object)


def _says(update: FactUpdate) -> tuple[Op, str | None]:
    return update.op, _wanted(update)


def _quoted(update: FactUpdate) -> str:
    return "retract" if update.op is Op.RETRACT else repr(update.object)


def _highest(one: _Order | None, other: _Order | None) -> _Order | None:
    return max((value for value in (one, other) if value is not None), default=None)
