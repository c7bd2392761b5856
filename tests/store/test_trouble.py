"""What errors tell about the machine."""

import errno
import sqlite3
from pathlib import Path

import pytest

from store.connection import transaction
from store.errors import LedgerError
from store.ledger import Ledger
from store.trouble import Trouble, trouble_of


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, Trouble.FULL),
        (errno.EDQUOT, Trouble.FULL),
        (errno.EIO, Trouble.BROKEN),
        (errno.EROFS, Trouble.BROKEN),
        (errno.EACCES, None),
        (errno.ENOENT, None),
    ],
)
def test_an_errno_says_whose_fault_it_is(code: int, expected: Trouble | None) -> None:
    """No room, a failing disk, or neither; also when another error was raised from it."""
    error = OSError(code, "x")
    assert trouble_of(error) is expected
    wrapped = LedgerError("a", "b", "c")
    wrapped.__cause__ = error
    assert trouble_of(wrapped) is expected


def test_only_what_passes_may_be_waited_for() -> None:
    """After a failed write to a sick disk nothing may go on."""
    assert [trouble for trouble in Trouble if trouble.passes] == [Trouble.FULL, Trouble.LOCKED]


def test_errors_without_a_code_are_nobodys_trouble() -> None:
    """Python's own errors, and SQLite's about what was asked of it, are faults of the asking."""
    assert trouble_of(ValueError("full")) is None
    assert trouble_of(sqlite3.ProgrammingError("closed")) is None
    with pytest.raises(sqlite3.IntegrityError) as caught:
        sqlite3.connect(":memory:").executescript("CREATE TABLE t (x NOT NULL); INSERT INTO t VALUES (NULL)")
    assert trouble_of(caught.value) is None


def test_a_ledger_without_room_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """The write is undone as a whole, the hint says what to do, and it can be repeated."""
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger._db.execute("PRAGMA max_page_count = 1")  # SQLite takes the pages that there are
        with (
            pytest.raises(LedgerError, match="make room on the disk") as caught,
            transaction(ledger._db) as db,
        ):
            db.execute("CREATE TABLE more (x)")
        assert trouble_of(caught.value) is Trouble.FULL
        assert not ledger._db.table("more").exists()
        ledger._db.execute("PRAGMA max_page_count = 100000")
        ledger.try_to_write()
        assert ledger.integrity() == []
