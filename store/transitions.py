"""Which state of an edit may follow which. The whole machine is this table.

pending -> editing -> judged -> live is the way of a good edit. Only a switch of generations
(`store.switch`) moves edits in and out of `live`: there the weights say what is so.
"""

from collections.abc import Mapping

from store.errors import LedgerError
from store.facts import Edit
from store.facts import EditState as S

WAITING = frozenset({S.PENDING, S.HELD, S.FAILED})
"""States from which a newer update of the same fact makes an edit superseded."""

UNFINISHED = WAITING | {S.EDITING, S.JUDGED}
"""States in which something is still to be done."""

LEGAL: Mapping[S, frozenset[S]] = {
    S.PENDING: frozenset({S.EDITING, S.HELD, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    S.EDITING: frozenset({S.JUDGED, S.ALREADY_KNOWN, S.PENDING, S.HELD, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    S.JUDGED: frozenset({S.PENDING, S.HELD, S.FAILED, S.ROLLED_BACK, S.CANCELLED, S.SUPERSEDED}),
    S.LIVE: frozenset(),
    S.ALREADY_KNOWN: frozenset({S.PENDING, S.SUPERSEDED}),
    S.ROLLED_BACK: frozenset({S.PENDING, S.SUPERSEDED, S.CANCELLED}),
    S.HELD: frozenset({S.PENDING, S.CANCELLED, S.SUPERSEDED}),
    S.FAILED: frozenset({S.PENDING, S.HELD, S.CANCELLED, S.SUPERSEDED}),
    S.CANCELLED: frozenset(),
    S.SUPERSEDED: frozenset(),
}


def is_legal(from_: S, to: S) -> bool:
    return to in LEGAL[from_]


def require_move(edit: Edit, to: S, from_: S | None) -> None:
    """Raises LedgerError unless `edit` may become `to` (and is in `from_`, when that is given)."""
    if from_ is not None and edit.state is not from_:
        raise LedgerError("move edit", f"edit {edit.id}", f"it is {edit.state}, not {from_}")
    if not is_legal(edit.state, to):
        raise LedgerError("move edit", f"edit {edit.id}", f"{edit.state} can't become {to}")


def require_state(edit: Edit, states: set[S], operation: str) -> None:
    """Raises LedgerError unless `edit` is in one of `states`."""
    if edit.state not in states:
        hint = f"only {', '.join(sorted(states))} edits can be"
        raise LedgerError(operation, f"edit {edit.id}", f"it is {edit.state}", hint)
