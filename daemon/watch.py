"""Wakes the main thread when the inbox changes, and is started again when it dies.

Knows watchdog. Doesn't know what is in the inbox: events only wake, a scan decides, so an event
that was dropped costs one rescan period and nothing else.
"""

from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# Opening, reading and closing unwritten files are events too; they must not wake the reader of the inbox.
_WAKING = frozenset({"created", "moved", "modified", "closed"})


class _Wake(FileSystemEventHandler):
    """Calls `wake` and nothing else: an exception in a handler would kill the observer's thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _WAKING:
            self._wake()


class Watcher:
    """A supervised observer of one folder. All methods are called by the main thread."""

    def __init__(
        self,
        folder: Path,
        wake: Callable[[], None],
        make_observer: Callable[[], BaseObserver] = Observer,
    ) -> None:
        self._folder = folder
        self._wake = wake
        self._make_observer = make_observer
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self.restarts = 0

    def start(self) -> None:
        """Begin to watch. OSError (no inotify watches left, folder gone) leaves it stopped."""
        observer = self._make_observer()
        observer.schedule(_Wake(self._wake), str(self._folder), recursive=False)
        observer.start()
        self._observer, self._watched = observer, self._identity()

    def alive(self) -> bool:
        """Whether events of the folder that is there now still arrive."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        emitters_live = all(emitter.is_alive() for emitter in observer.emitters)
        return emitters_live and self._watched == self._identity()

    def supervise(self) -> bool:
        """Start again if dead; True when that was done. What fails is tried again next time."""
        if self.alive() or self._identity() is None:
            return False
        self.stop()
        try:
            self.start()
        except OSError:
            self._observer = None
            return False
        self.restarts += 1
        self._wake()
        return True

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(timeout=2)

    def _identity(self) -> tuple[int, int] | None:
        try:
            stat = self._folder.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino
