"""Ticks: APScheduler posts the names of what is due to the main thread, and does nothing else.

Knows periods and dates. Doesn't know the ledger: the queue of work is there, the job store here is
in memory and may be lost at any time.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler


class Signal(StrEnum):
    """What may be posted to the main thread: by the scheduler, the watcher or a signal handler."""

    TICK = "tick"
    RESCAN = "rescan"
    RELOAD = "reload"


class Schedule:
    """Periodic and dated posts to `post`, which must be safe to call from another thread."""

    def __init__(self, post: Callable[[Signal], None]) -> None:
        self._post = post
        # Its warnings about ticks that coincide would be the only lines of our log that aren't JSON.
        logging.getLogger("apscheduler").addHandler(logging.NullHandler())
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},  # posting takes no time; by default ten come to be
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self, periods: dict[Signal, float]) -> None:
        """Post each signal every so many seconds; a period of 0 means never."""
        for signal, seconds in periods.items():
            if seconds > 0:
                self._scheduler.add_job(
                    self._post, "interval", seconds=seconds, args=[signal], id=signal.value
                )
        self._scheduler.start()

    def due_at(self, when: datetime | None) -> None:
        """Post a tick at `when`, when there will be something to do; replaces the date set before."""
        if when is not None:
            self._scheduler.add_job(
                self._post, "date", run_date=when, args=[Signal.TICK], id="due", replace_existing=True
            )

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
