"""Putting the edits of a batch back into the queue, to be tried in smaller ones.

Knows what they remember of it, so that it survives a restart. Doesn't know how the batch came to an end
nor who decided which go together (`policies.batches`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from policies.batches import Batch, named
from store.facts import Edit, EditState
from store.ledger import Ledger
from store.results import EditFields, Move


def put_again(
    ledger: Ledger, edits: Sequence[Edit], batches: Sequence[Batch], why: Mapping[int, str], now: datetime
) -> list[Edit]:
    """Back to pending in one transaction; nobody is charged with the try. `edits` are all in work and each
    is in one of `batches`; `why` is the reason of each. Returns them, batch by batch."""
    attempts = {edit.id: edit.attempt for edit in edits}
    moves = []
    for batch in batches:
        for edit in batch:
            others = [other for other in batch if other != edit]
            how = f"with {named(others)}" if others else "by itself"
            fields: EditFields = {"batch": batch[0], "attempt": max(attempts[edit] - 1, 0)}
            moves.append(Move(edit, f"{why[edit]}; tried again {how}", fields))
    return ledger.transition_all(EditState.PENDING, moves, now=now)
