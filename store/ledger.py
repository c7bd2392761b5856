"""The ledger: the only writer of what is true (facts, queue, outcomes, generations, intents, audit).

Knows SQL transactions and which state may follow which. Doesn't know the clock (every write takes
`now`), threads, files of facts, or weights. Reads live in `store.queries`, which `Ledger` extends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self, TypedDict, Unpack

from sqlite_utils import Database

from store.errors import FactFileError
from store.facts import DiffRow, Edit, EditState, Generation, Outcome, RowClass
from store.queries import LedgerQueries


class EditFields(TypedDict, total=False):
    """Columns of an edit that a transition may set besides its state and reason."""

    generation: int | None
    delta_blob: str | None
    recipe: str
    attempt: int
    old: str | None
    old_aliases: tuple[str, ...]


class GenerationFields(TypedDict, total=False):
    """Columns of a generation that `set_generation_state` may set besides its state."""

    weights_sha256: str
    theta_blob: str | None
    edits: tuple[int, ...]
    pinned: bool


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


class Ledger(LedgerQueries):
    """One writing connection, used by the thread that opened it. Raises `LedgerError`."""

    @classmethod
    def open(cls, path: Path, *, backups: Path | None = None) -> Self:
        """Open for writing; create or migrate. An existing ledger is copied into `backups`
        (`VACUUM INTO`) before it is migrated."""
        raise NotImplementedError

    @classmethod
    def open_readonly(cls, path: Path) -> Self:
        """Open for reading; refuses a ledger that is missing or needs a migration."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One `BEGIN IMMEDIATE` transaction; not nestable. Internal to the store."""
        raise NotImplementedError

    # files

    def record_file(
        self,
        sha256: str,
        name: str,
        size: int,
        rows: Sequence[DiffRow],
        *,
        now: datetime,
        partial: bool = False,
    ) -> FileResult:
        """Everything an accepted file changes, in one transaction: the file, its rows, wanted
        values and their history, pending edits for NEW, CHANGED and RETRACTED rows, older waiting
        edits of the same keys superseded. Bytes that were accepted before change nothing."""
        raise NotImplementedError

    def record_bad_file(
        self, sha256: str, name: str, size: int, error: FactFileError, *, now: datetime
    ) -> int:
        """Record a refused file; returns its id."""
        raise NotImplementedError

    # queue

    def transition(
        self,
        edit_id: int,
        to: EditState,
        *,
        reason: str,
        now: datetime,
        from_: EditState | None = None,
        **fields: Unpack[EditFields],
    ) -> Edit:
        """Move an edit to another state (`store.transitions` says which are legal), set `fields`,
        audit. With `from_`, the edit must be in that state."""
        raise NotImplementedError

    def requeue(self, edit_id: int, *, reason: str, now: datetime) -> Edit:
        """editing | judged -> pending: work that was cut off."""
        raise NotImplementedError

    def retry(self, edit_id: int, *, reason: str, now: datetime, recipe: str | None = None) -> Edit:
        """held | failed | rolled_back -> pending: work that is to be tried again."""
        raise NotImplementedError

    def repeat(self, edit_id: int, *, reason: str, now: datetime) -> Edit:
        """A new pending edit with the content of another one: a live fact that was lost."""
        raise NotImplementedError

    # outcomes

    def record_outcome(self, outcome: Outcome, *, now: datetime) -> int:
        """Store an outcome and its readings; returns the outcome's id. Moves no edit."""
        raise NotImplementedError

    # generations

    def insert_generation(self, generation: Generation, now: datetime) -> None:
        """Insert an intent row (`building`), or the base as generation 0 with state `live`."""
        raise NotImplementedError

    def set_generation_state(
        self, number: int, state: str, now: datetime, reason: str, **fields: Unpack[GenerationFields]
    ) -> Generation:
        """Any change of state but to or from `live` (see `promote`, `roll_back`)."""
        raise NotImplementedError

    def pin(self, number: int, pinned: bool, *, now: datetime) -> Generation:
        raise NotImplementedError

    def promote(
        self, number: int, *, now: datetime, reason: str, edits: Sequence[int] = (), rolled_back: bool = False
    ) -> Generation:
        """Make a built generation live, in one transaction: the live one becomes retired (or
        rolled_back); edits of the new one become live; edits that only the old one held become
        superseded (a newer edit of their fact is live) or rolled_back; facts' values follow.
        `edits`, when given, replaces the edits the generation was inserted with."""
        raise NotImplementedError

    def roll_back(self, to_number: int, *, now: datetime, reason: str, trigger: str) -> Generation:
        """Make an earlier generation live again; the live one becomes rolled_back, edits follow as
        in `promote`. `trigger` says who or what asked."""
        raise NotImplementedError

    # control

    def add_intent(self, kind: str, args: Mapping[str, object], *, now: datetime, actor: str) -> int:
        raise NotImplementedError

    def finish_intent(self, intent_id: int, result: Mapping[str, object], now: datetime) -> None:
        raise NotImplementedError

    def set_setting(self, name: str, value: object, *, now: datetime) -> None:
        """`value` is anything JSON can hold."""
        raise NotImplementedError

    # audit, backup

    def audit_append(
        self, event: str, detail: Mapping[str, object], now: datetime, *, subject: str = ""
    ) -> int:
        """Append one event; returns its id. `subject` is `edit:12`, `generation:3`, `file:SHA`, ..."""
        raise NotImplementedError

    def backup(self, to: Path) -> None:
        """A consistent copy (`VACUUM INTO`), on disk when this returns; replaces `to`."""
        raise NotImplementedError
