"""What writes to the ledger take and give that is no noun of the trade.

Knows nothing but names and types.
"""

from dataclasses import dataclass
from typing import TypedDict

from store.facts import RowClass


class EditFields(TypedDict, total=False):
    """Columns of an edit that a transition may set besides its state and reason."""

    generation: int | None
    delta_blob: str | None
    recipe: str
    attempt: int
    old: str | None
    old_aliases: tuple[str, ...]
    batch: int | None


class GenerationFields(TypedDict, total=False):
    """Columns of a generation that `set_generation_state` may set besides its state."""

    weights_sha256: str
    theta_blob: str | None
    edits: tuple[int, ...]
    pinned: bool


@dataclass(frozen=True, slots=True)
class Move:
    """One edit's part in a change of several: why it moves, and its columns."""

    edit: int
    reason: str
    fields: EditFields


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """What the ledger made of one row of a file. `line` is 0 for a row that isn't in the file
    (a retraction because a snapshot no longer holds it)."""

    line: int
    row_class: RowClass
    edit_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class FileResult:
    """What the ledger made of one file. `duplicate`: these bytes were recorded before, and these
    are the rows of that time; nothing was written."""

    file_id: int
    rows: tuple[RecordedRow, ...]
    duplicate: bool = False
