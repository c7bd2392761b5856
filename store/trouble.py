"""What an error says about the machine: no room, ledger held by somebody else, or a disk that fails.

Knows errno and SQLite's codes. Doesn't know what was being done, nor what is to be done about it.
"""

import errno
import sqlite3
from enum import StrEnum


class Trouble(StrEnum):
    """The values are what the operator reads."""

    FULL = "the disk is full"
    LOCKED = "another process holds the ledger"
    BROKEN = "the disk failed, or what is on it is damaged"

    @property
    def passes(self) -> bool:
        """Whether the same can be tried again later; after the others the state of files is unknown."""
        return self is not Trouble.BROKEN


_BY_ERRNO = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EIO: Trouble.BROKEN,
    errno.EROFS: Trouble.BROKEN,  # what a file system becomes after an error
    errno.EUCLEAN: Trouble.BROKEN,
}
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_IOERR: Trouble.BROKEN,
    sqlite3.SQLITE_CORRUPT: Trouble.BROKEN,
    sqlite3.SQLITE_NOTADB: Trouble.BROKEN,
    sqlite3.SQLITE_READONLY: Trouble.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Trouble.BROKEN,
    sqlite3.SQLITE_PERM: Trouble.BROKEN,
    sqlite3.SQLITE_AUTH: Trouble.BROKEN,
}


def trouble_of(error: BaseException | None) -> Trouble | None:
    """The trouble that an error, or one that it was raised from, tells of; None: the fault lies with
    what was asked for."""
    while error is not None:
        if (found := _own(error)) is not None:
            return found
        error = error.__cause__
    return None


def _own(error: BaseException) -> Trouble | None:
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)  # absent when Python itself raised it
        return None if code is None else _BY_SQLITE.get(code & 0xFF)
    return None
