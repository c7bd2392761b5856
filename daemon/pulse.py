"""Whether the daemon is well, and telling those who watch it.

Knows the parts that must show life, how long each may be silent, systemd's watchdog, and the file
run/alive, which is touched along with it for supervisors that aren't systemd. Doesn't know what a part
does: `daemon.service` beats.

A part is stale only where a restart would help. So a machine that has no inotify watch to give doesn't
make the observer stale (scans go on, and the next process wouldn't get one either), and a trouble that the
daemon waits out doesn't make the ledger stale as long as it can be read.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from daemon.config import Config
from daemon.logs import Log
from daemon.notify import Notifier

_TOUCH_SECONDS = 10.0


class Part(StrEnum):
    """What must show life."""

    OBSERVER = "observer"  # found alive, without having to be started again
    TICK = "tick"  # the scheduler's thread posted one
    LEDGER = "ledger"  # it was read
    WORKER = "worker"  # there is none, or its runner just found it within its heartbeat and deadline


def limits_of(config: Config, patience: float = 60.0) -> dict[Part, float]:
    """Seconds that each part may be silent: `patience`, and as long as the configuration lets it rest."""
    return {
        Part.OBSERVER: patience,
        Part.TICK: patience + 2 * config.daemon.tick_seconds,
        Part.LEDGER: patience,
        # While thousands of files are taken in nobody looks after the child.
        Part.WORKER: max(patience, config.editing.heartbeat_seconds),
    }


class Pulse:
    """When each part last showed life. All methods are called by the main thread, which so shows its own."""

    def __init__(
        self,
        limits: Mapping[Part, float],
        notifier: Notifier,
        alive: Path,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._notifier = notifier
        self._alive = alive
        self._log = log
        self._clock = clock
        self._last = dict.fromkeys(Part, clock())
        self._stale: tuple[Part, ...] = ()
        self._touched: float | None = None
        self._began = False

    def begin(self) -> None:
        """The daemon is ready: from now on it is watched."""
        self._last = dict.fromkeys(Part, self._clock())
        self._began = True
        self.feed()

    def end(self) -> None:
        """Nobody may take what an earlier process left for life."""
        with suppress(OSError):
            self._alive.unlink(missing_ok=True)

    def beat(self, part: Part) -> None:
        self._last[part] = self._clock()

    def stale(self) -> tuple[Part, ...]:
        """The parts that were silent for longer than they may be; empty when all is well."""
        now = self._clock()
        return tuple(part for part in Part if now - self._last[part] > self._limits[part])

    def feed(self) -> None:
        """Tell whoever watches that all is well; keep silent while it isn't, and so be restarted."""
        if not self._began:
            return
        stale, before = self.stale(), self._stale
        self._stale = stale
        if stale and stale != before:
            self._log.error("daemon.stale", parts=[str(part) for part in stale])
        elif before and not stale:
            self._log.info("daemon.fresh", parts=[str(part) for part in before])
        if not stale:
            self._notifier.watchdog()
            self._touch()

    def say(self, sentence: str) -> None:
        """Show what the daemon does, and what keeps the watchdog from being fed."""
        silent = f"no life from {', '.join(self._stale)}; " if self._stale else ""
        self._notifier.status(silent + sentence)

    def _touch(self) -> None:
        now = self._clock()
        if self._touched is None or now - self._touched >= _TOUCH_SECONDS:
            self._touched = now
            with suppress(OSError):  # a full disk is told in other ways
                self._alive.touch()
