"""What a file of updates means for the ledger: a pure function of the two.

Knows keys, versions and times given in rows. Doesn't know the clock, files or SQL.

For one key the newest row of a file wins: by `version` when all its rows have one, then by
`effective_at` when all have one. Against the ledger the order is version, then effective_at, then
the order of arrival, each only where both sides have it. Keys compare by `FactKey.folded()`.
"""

from collections.abc import Iterable, Mapping

from store.facts import DiffRow, FactKey, FactRow, FactUpdate


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
    raise NotImplementedError


def apply(row: DiffRow, current: FactRow | None) -> FactRow | None:
    """The ledger's view of a key after `row` was accepted (None: still unknown)."""
    raise NotImplementedError
