"""Putting the edits of a batch back into the queue, to be tried in smaller ones.

Knows what they remember of it, so that it survives a restart. Doesn't know how the batch came to an end
nor who decided which go together (`policies.batches`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from policies.batches import Batch, named
from store.facts import Edit, EditState
from store.ledger import Ledger
from store.results import Move


def put_again(ledger: Ledger, batches: Sequence[Batch], why: Mapping[int, str], now: datetime) -> list[Edit]:
    """Back to pending in one transaction. The edits of `batches` are all in work; `why` is the reason of
    each. Returns them, batch by batch."""
    moves = []
    for batch in batches:
        for edit in batch:
            others = [other for other in batch if other != edit]
            how = f"with {named(others)}" if others else "by itself"
            moves.append(Move(edit, f"{why[edit]}; tried again {how}", {"batch": batch[0]}))
    return ledger.transition_all(EditState.PENDING, moves, now=now)
