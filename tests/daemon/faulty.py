"""A disk that fails when told to, and a service that runs in this process until it has said something.

The disk fails at the level of the calls that the code makes: writes through `io.open`, fsync, renames,
new entries of directories, and SQLite's COMMIT.
"""

import errno
import io
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from daemon.house import House
from daemon.notify import Notifier
from daemon.service import Service

PATIENCE_SECONDS = 60.0
_mkdir = os.mkdir
ALL = frozenset({"write", "fsync", "rename", "make", "commit"})


class FaultyDisk:
    """Fails the `nth` call of the kinds in `what` (counted from 1) with `code`; with `lasting`, that one
    and every call after it, until `mend` is called."""

    def __init__(
        self, what: frozenset[str], nth: int, code: int = errno.EIO, *, lasting: bool = False
    ) -> None:
        self.what, self.nth, self.code, self.lasting = what, nth, code, lasting
        self.calls = 0
        self.failed: list[str] = []
        self._mended = False

    def mend(self) -> None:
        self._mended = True

    @property
    def broken(self) -> bool:
        return bool(self.failed) and self.lasting and not self._mended

    def meet(self, kind: str) -> None:
        """Called before each call of a kind; raises when the disk is to fail."""
        if kind not in self.what or self._mended:
            return
        self.calls += 1
        if self.calls == self.nth or (self.lasting and self.calls > self.nth):
            self.failed.append(kind)
            raise self._error(kind)

    def _error(self, kind: str) -> Exception:
        if kind != "commit":
            return OSError(self.code, os.strerror(self.code))
        full = self.code == errno.ENOSPC
        error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR_FSYNC
        return error

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Let every such call of this process meet the disk."""
        with pytest.MonkeyPatch.context() as patch:
            for kind, names in {
                "fsync": ("fsync", "posix_fallocate"),
                "rename": ("rename", "replace"),
                "make": ("mkdir", "symlink", "link"),
            }.items():
                for name in names:
                    patch.setattr(os, name, self._before(kind, getattr(os, name)))
            patch.setattr(io, "open", self._opening(io.open))
            patch.setattr(Database, "execute", self._executing(Database.execute))
            yield

    def _before(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def meet_and_call(*args: Any, **more: Any) -> Any:
            if not (call is _mkdir and os.path.isdir(args[0])):  # nothing is made then
                self.meet(kind)
            return call(*args, **more)

        return meet_and_call

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def open_it(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            opened = call(file, mode, *args, **more)
            if not set(mode) & set("wax+"):
                return opened
            return _Written(opened, self)

        return open_it

    def _executing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def execute(db: Database, sql: str, *args: Any) -> Any:
            if sql.startswith(("COMMIT", "VACUUM")):
                self.meet("commit")
            return call(db, sql, *args)

        return execute


class _Written:
    """A file open for writing whose disk may fail."""

    def __init__(self, file: Any, disk: FaultyDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> Any:
        self._disk.meet("write")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Listener(Notifier):
    """Hears the sentence of each turn of a service."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__({})
        self._hear = hear

    def status(self, text: str) -> bool:
        self._hear(text)
        return True


class DeafWatcher:
    """A watcher that never wakes anybody: scans find everything, and no thread has to end."""

    restarts = 0

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def supervise(self) -> bool:
        return False


def run_until(house: House, done: Callable[[str], object]) -> list[str]:
    """Run a real service on `house`, but for its watcher, until `done` says so of a turn's sentence;
    returns all sentences."""
    said: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS

    def hear(text: str) -> None:
        said.append(text)
        assert time.monotonic() < deadline, said[-20:]
        if done(text):
            service.stop("the test is done")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.service.Watcher", DeafWatcher)
        service = Service(house, notifier=Listener(hear))
        assert service.run() == 0
    return said


def idle(said: str) -> bool:
    """Whether a turn found nothing to do."""
    return said == "nothing is due"


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file, whatever shares its inode too."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def tear(path: Path) -> None:
    """Cut a file in half, as a crash leaves one that was never synced."""
    os.truncate(path, path.stat().st_size // 2)
