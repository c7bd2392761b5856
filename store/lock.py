"""One daemon for one state directory: an flock that dies with its process.

Knows a lock file and the pid in it. Doesn't know what is done under the lock.
"""

import fcntl
import os
from pathlib import Path
from typing import Self

from store.errors import LockedError


class StateLock:
    """`with StateLock(state_dir):` holds the lock or raises `LockedError` (exit 75) with the
    holder's pid. Never waits. The lock file stays; only the lock on it counts."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise self._locked(pid) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> int | None:
        """The pid that holds the lock now, 0 when it can't be told, None when it is free."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(descriptor)
        finally:
            os.close(descriptor)
        return None

    def _locked(self, pid: int) -> LockedError:
        who = f"process {pid}" if pid else "another process"
        return LockedError(
            "lock the state directory",
            str(self.path.parent),
            f"{who} holds it",
            "stop that daemon first, or use another state directory",
        )

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _read_pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
