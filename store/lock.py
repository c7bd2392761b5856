"""One daemon for one state directory: an flock that dies with its process.

Knows a lock file and the pid in it. Doesn't know what is done under the lock.
"""

from pathlib import Path
from typing import Self


class StateLock:
    """`with StateLock(state_dir):` holds the lock or raises `LockedError` (exit 75) with the
    holder's pid. Never waits. The lock file stays; only the lock on it counts."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "lock"

    def acquire(self) -> Self:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def holder(self) -> int | None:
        """The pid that holds the lock now, 0 when it can't be told, None when it is free."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
